"""The settings file of a run folder. It distinguishes a run folder from any other folder.

config.json holds the run's settings and, under the key `FORM`, the version of this layout. Only proctool writes that
key. Settings files of versions before the key are recognised by their content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctool import artifact
from proctool.errors import RunError
from proctool.events import FILE, StartEvent, read_event
from proctool.models.shapes import GPT2_INIT_STD
from proctool.outputs import holds_nothing
from proctool.training.extension import EXTENDED_FROM
from proctool.untrusted import parse_json

FORM = "proctool_run"
VERSION = 1
SETTINGS = "config.json"


_STARTED_THEN = {"init_std": GPT2_INIT_STD, "tie": None}
"""Initial weights of models given by shape, in versions whose settings did not record them."""


_OF_A_START = {"components", "embeddings", "layers", "heads", "load_optimizer_state"}
"""Settings that have no effect in runs from fresh weights, so that their defaults may change."""


def read_form(folder: Path) -> dict[str, Any] | None:
    """The content of a run folder's settings file; None if there is no such file or it has another form."""
    try:
        found = parse_json((folder / SETTINGS).read_bytes(), any_text=True)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    if not (FORM in found or _is_older(found)):
        return None
    said = "init_std" in found or "model.content" in found or "model" not in found
    return found if said else _STARTED_THEN | found


def _is_older(found: Mapping[str, Any]) -> bool:
    """Whether these are settings from a version of proctool that did not write the key."""
    command = found.get("command")
    trains = isinstance(command, str) and (command in ("warmup", "pretrain") or command.startswith("eval "))
    return (
        trains
        and isinstance(found.get("parents"), list)
        and {"steps", "batch_size", "schedule", "seed"} <= found.keys()
        and any(key.startswith("source.") for key in found)
    )


def write_form(folder: Path, values: Mapping[str, Any]) -> None:
    """Write a run folder's settings file. It is either complete or absent."""
    with artifact.replacing(folder / SETTINGS) as file:
        file.write((json.dumps({FORM: VERSION, **values}, indent=2) + "\n").encode())


def changed_settings(found: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """The keys in which the settings of a run folder, `found`, differ from those of a run."""
    keys = (found.keys() | settings.keys()) - {FORM, EXTENDED_FROM}
    if found.get("init") is None and settings.get("init") is None:
        keys -= _OF_A_START
    return sorted(key for key in keys if found.get(key) != settings.get(key))


def require_run_folder(folder: Path) -> None:
    """Raise RunError unless `folder` is missing, empty, or a run folder."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file; give a folder as --run-dir")
    if folder.is_symlink() and not folder.exists():
        raise RunError(f"{folder}: is a broken link; choose another --run-dir")
    if holds_nothing(folder) or read_form(folder) is not None or _lost_form(folder):
        return
    raise RunError(
        f"{folder}: is not empty and is not a run folder of proctool; choose another --run-dir, or an empty folder"
    )


def _lost_form(folder: Path) -> bool:
    """Whether the settings are missing or damaged, but the metrics are those of a run."""
    try:
        parse_json((folder / SETTINGS).read_bytes(), any_text=True)
        return False  # written by another program
    except (FileNotFoundError, IsADirectoryError, ValueError):
        pass
    try:
        with (folder / FILE).open("rb") as file:
            first = read_event(file.readline(1 << 20), folder / FILE)
    except (OSError, RunError):
        return False
    return isinstance(first, StartEvent) and bool(first.command and first.tokens_per_step)
