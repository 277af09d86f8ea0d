"""A search's folder: what it is a search of, its trials, its answer.

FOLDER/search.json      settings, the steps and rows of a trial, measured speeds: fixed when the search begins
FOLDER/study.db         Optuna's storage, unless --storage names another
FOLDER/trials/          the run folders of all trials, as in an experiment
FOLDER/recipe.yaml      the recipe for the target
FOLDER/answer.json      the answer
FOLDER/worker-1.log     the output of the other processes of --jobs
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool import artifact, config
from proctool.errors import OptionError, RunError
from proctool.experiment.identity import forget, identity
from proctool.locks import take
from proctool.outputs import holds_nothing, reads_of, require_apart
from proctool.search.options import SearchOptions
from proctool.search.study import without_password
from proctool.training.options import recorded
from proctool.untrusted import parse_json

RECORD, TRIALS, RECIPE, ANSWER = "search.json", "trials", "recipe.yaml", "answer.json"
STORAGE, LOCK = "study.db", ".lock"
FORMAT = 1


@dataclass(frozen=True)
class SearchRecord:
    """`search.json`."""

    format: int
    id: str
    """The first part of the names of its studies, so that searches can share a storage."""
    settings: dict[str, Any]
    steps: int
    eval_samples: int
    speeds: dict[str, float]
    """Seconds of a pretraining step by small model, on the machine that began the search."""
    jobs: int
    """Processes of the command that began it."""


def settings_of(options: SearchOptions) -> dict[str, Any]:
    """What the trials depend on, with files by their contents; and the storage."""
    forget()
    given = {name: identity(name, value) for name, value in recorded(options).items() if value is not None}
    storage = None if options.storage is None else without_password(options.storage)
    as_json: dict[str, Any] = json.loads(json.dumps({**given, "storage": storage}))
    return as_json


def require_search_folder(options: SearchOptions) -> None:
    """Raise RunError unless the folder is new, empty or a search's; ArtifactError if it holds an input."""
    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file, but a search needs a folder; choose another --output")
    if not holds_nothing(folder) and not (folder / RECORD).exists():
        raise RunError(
            f"{folder}: is not empty and is not a search's folder ({RECORD} is missing); choose another --output"
        )
    require_apart(folder, (RECORD, RECIPE, ANSWER), "--output", reads_of(options))


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes out while a trial is chosen. It takes milliseconds."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process is refused and has just removed the folder
            held = take(folder / LOCK, waiting)
            break
    with held or contextlib.nullcontext():
        yield


@contextlib.contextmanager
def beginning(folder: Path) -> Iterator[None]:
    """Keep other processes out while a search begins. If it is refused, nothing of it stays in the file system."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    with locked(folder):
        try:
            yield
        except BaseException:
            if not (folder / RECORD).exists():
                for name in (STORAGE, LOCK):  # the lock is still held: see `take`
                    (folder / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # another process has put something there
                    for each in missing:
                        each.rmdir()
            raise


def read_record(options: SearchOptions) -> SearchRecord | None:
    """The record of this search; None if it has not begun. Raises RunError for that of another search."""
    path = options.output / RECORD
    if not path.exists():
        return None
    try:
        values = parse_json(path.read_bytes())
        record = config.build(SearchRecord, values, str(path))
    except (ValueError, OptionError):
        raise RunError(f"{path}: damaged, or not written by a search; choose another --output") from None
    if record.format != FORMAT:
        raise RunError(f"{path}: is of another version of proctool; choose another --output")
    settings = settings_of(options)
    for key in sorted({*record.settings, *settings}):
        was, now = record.settings.get(key), settings.get(key)
        if was != now:
            how = (
                f"whose {key} has other contents"
                if isinstance(was, dict) or isinstance(now, dict)
                else f"with {key} = {_written(was)}, not {_written(now)}"
            )
            raise RunError(f"{options.output}: belongs to a search {how}; choose another --output")
    return record


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "the default" if value is None else str(value)


def write_record(
    options: SearchOptions, steps: int, eval_samples: int, speeds: dict[str, float], jobs: int
) -> SearchRecord:
    """Begin a search."""
    record = SearchRecord(FORMAT, secrets.token_hex(4), settings_of(options), steps, eval_samples, speeds, jobs)
    write_json(options.output / RECORD, dataclasses.asdict(record))
    return record


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one piece."""
    with artifact.replacing(path) as file:
        file.write((json.dumps(values, indent=2) + "\n").encode())
