"""Decides what a command with given settings does with a run folder. This file writes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from proctool import artifact
from proctool.errors import ArtifactError, RunError
from proctool.events import FILE, EndEvent, ExtendEvent, StartEvent, read_events
from proctool.locks import holder
from proctool.outputs import is_artifact
from proctool.training.extension import EXTENDABLE, EXTENDED_FROM, extension
from proctool.training.options import TrainingOptions
from proctool.training.run_form import FORM, SETTINGS, changed_settings, read_form
from proctool.training.run_state import extensions_of, run_state

Kind = Literal["step", "best"]
CHECKPOINT = re.compile(r"(step|best)-\d{8,}\.safetensors")
"""The name of a checkpoint."""


def claim(path: Path, settings: Mapping[str, Any], *, extend: bool) -> Literal["new", "same", "extends"]:
    """Whether a run with these settings starts anew in the folder, resumes there, or extends the finished run.

    A run that stopped before its first step is overwritten. Raises RunError if the folder has a run with other
    settings, or no run to extend.
    """
    found = read_form(path)
    if not ((path / FILE).exists() or any(is_artifact(each) for each in checkpoints_of(path, "step"))):
        if extend:
            raise RunError(f"{path}: has no finished run to extend; train it first, without --extend")
        return "new"
    if found is None:
        raise RunError(
            f"{path / SETTINGS}: damaged or missing, so this run cannot be resumed; "
            "choose another --output or --run-dir, or --resume never to discard it"
        )
    changed = changed_settings(found, settings)
    if not changed:
        return "same"
    if extend and EXTENDABLE.issuperset(changed):
        return "extends"
    raise RunError(_refusal(path, found, settings, changed))


def _refusal(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any], changed: list[str]) -> str:
    key = next((key for key in changed if key not in EXTENDABLE), changed[0])
    was, now = found.get(key), settings.get(key)
    if key == "parents":
        return (
            f"{path}: belongs to a run from other weights ({_contents(was)} instead of {_contents(now)}); "
            "choose another --output or --run-dir, or --resume never to discard it"
        )
    if key in ("init_std", "tie"):
        return (
            f"{path}: belongs to a run with {key} = {was}, not {now}; "
            f"{_started(key, was)} to resume it, or choose another --output or --run-dir"
        )
    if key == "source.code":
        return (
            f"{path}: belongs to a run whose task had other code ({_codes(was)}; now {_codes(now)}); "
            "choose another --output or --run-dir, or --resume never to discard it"
        )
    end = last_end(path) if EXTENDABLE.issuperset(changed) else None
    longer = end is not None and settings.get("steps", 0) > end.step
    return (
        f"{path}: belongs to a run with {key} = {was}, not {now}; "
        + ("--extend continues it; or " if longer else "")
        + "choose another --output or --run-dir, or --resume never to discard it"
    )


def checked_extension(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an extension in the settings, after checking that everything it needs exists.

    Raises RunError, ArtifactError.
    """
    end = last_end(path)
    if end is None:
        raise RunError(
            f"{path}: this run has not finished its {found.get('steps')} steps; resume it with the command "
            "that started it, then extend it"
        )
    entry = extension(str(path), found, settings, end)
    state = state_of(path, entry["step"])
    if not state.exists():
        raise RunError(
            f"{path}: has no training state, so it cannot be extended; train with --keep-state to keep it, "
            "or start a new run from the model with --init"
        )
    kept = artifact.open_artifact(state, "checkpoint")
    if kept.metadata.get("settings") != lasting(found):
        raise RunError(f"{state}: is the training state of another run; remove it, and start this run again")
    artifact.verify(kept)
    return entry


def last_end(path: Path, output: Path | None = None) -> EndEvent | None:
    """The end event; None if the run must continue or write its `output` again."""
    decisive = (
        event for event in reversed(read_events(path)) if isinstance(event, StartEvent | ExtendEvent | EndEvent)
    )
    last = next(decisive, None)
    if not isinstance(last, EndEvent) or run_state(path, began=True, end=last, output=output) != "done":
        return None
    return last


# -- what a dry run says --


@dataclass(frozen=True)
class Outlook:
    """What a command would do with the run in its folder."""

    action: Literal["begin", "resume", "restart", "extend", "discard", "complete", "refuse"]
    """begin: there is no run yet. restart: the run there has no checkpoint. complete: nothing is left to do."""
    step: int | None = None
    """The step from which the run resumes, or at which it ended."""
    reason: str | None = None
    """Why the command would be refused."""
    tries: int | None = None
    """Number of donors tried so far, for a warm-up with `accept`."""


def outlook(path: Path, settings: Mapping[str, Any], options: TrainingOptions, output: Path | None) -> Outlook:
    """What a command would do with the run folder `path`. Raises OSError."""
    if (by := holder(path / ".lock")) is not None:
        return Outlook("refuse", reason=f"{path}: this run is in use by {by}; wait for it or choose another --run-dir")
    has_run = (path / FILE).exists()
    if options.resume == "never":
        return Outlook("discard" if has_run else "begin")
    try:
        found = claim(path, settings, extend=options.extend)
        if found == "extends":
            return Outlook("extend", checked_extension(path, read_form(path) or {}, settings)["step"])
    except (RunError, ArtifactError) as error:
        return Outlook("refuse", reason=str(error))
    if found == "new":
        return Outlook("begin")
    if (end := last_end(path, output)) is not None:
        return Outlook("complete", end.step)
    step = _latest(path)
    return Outlook("restart") if step is None else Outlook("resume", step)


def _latest(path: Path) -> int | None:
    """The step of the latest undamaged checkpoint."""
    extended = extensions_of(path)
    kept = [state_of(path, extended[-1]["step"])] if extended else []
    for each in [*reversed(checkpoints_of(path, "step")), *kept]:
        try:
            artifact.verify(artifact.open_artifact(each, "checkpoint"))
        except (ArtifactError, OSError):
            continue
        return step_of(each)
    return None


# -- files and settings --


def checkpoints_of(path: Path, kind: Kind) -> list[Path]:
    """Files with the name of a checkpoint, ordered by step."""
    folder = path / "checkpoints"
    if not folder.is_dir():
        return []
    named = [each for each in folder.iterdir() if CHECKPOINT.fullmatch(each.name) and each.is_file()]
    return sorted(each for each in named if each.name.startswith(kind))


def state_of(path: Path, step: int) -> Path:
    """The file of the final training state."""
    return path / f"state-{step:08d}.safetensors"


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint or a state."""
    return int(path.stem.partition("-")[2])


def lasting(settings: Mapping[str, Any]) -> str:
    """A digest of the settings that an extension cannot change. It identifies the run that a state belongs to."""
    return artifact.digest({key: settings[key] for key in settings.keys() - EXTENDABLE - {FORM, EXTENDED_FROM}})


def _codes(code: Any) -> str:
    """The packages of a task's code (procedural/task_code.py), with the hashes of their samples."""
    listed = [each for each in code if isinstance(each, dict)] if isinstance(code, list) else []
    known = [f"{each.get('package')} {each.get('version')}, samples {each.get('samples')}" for each in listed]
    return " and ".join(known) or "not recorded"


def _contents(parents: Any) -> str:
    """Shortened content hashes for messages."""
    return ", ".join(str(each)[:12] for each in parents) if isinstance(parents, list) and parents else "none"


def _started(key: str, value: object) -> str:
    """Options with which a command starts its model as an earlier run did."""
    if value is None:
        return "leave out --tie and --no-tie" if key == "tie" else "leave out --init-std"
    return f"give --init-std {value}" if key == "init_std" else f"give {'--tie' if value else '--no-tie'}"
