"""The state of a run. Resuming, stages of experiments and reports all use this one rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from proctool import artifact
from proctool.errors import ArtifactError
from proctool.events import EndEvent
from proctool.results import RESULTS, holds_results
from proctool.training.extension import EXTENDED_FROM, scheduled_steps
from proctool.training.run_form import read_form
from proctool.training.run_place import best_of

State = Literal["missing", "started", "done"]


def run_state(folder: Path, *, began: bool, end: EndEvent | None, output: Path | None = None) -> State:
    """The state of the run in `folder`. `began` says whether its events have a start; `end` is its end event, if any.

    The run is done if it has ended, no extension has begun since, and its files hold the weights that it wrote. Without
    an `output`, files are not checked, because the metrics are complete even if the weights were removed.
    """
    if end is not None and end.extensions == len(extensions_of(folder)):
        written = [(output, end.content)] if output is not None else []
        if output is not None and end.best_content is not None:
            written.append((best_of(output), end.best_content))
        if all(content is not None and content_of(path) == content for path, content in written):
            return "done"
    return "started" if began else "missing"


def content_of(path: Path) -> str | None:
    """The content hash in an artifact's header; None if the artifact is missing or damaged."""
    try:
        return artifact.read_header(path).content
    except (ArtifactError, OSError):
        return None


def is_written(path: Path) -> bool:
    """Whether the file (an artifact or results) is complete. Both kinds are written completely or not at all."""
    if path.name == RESULTS:
        try:
            return holds_results(path)
        except OSError:
            return False
    return content_of(path) is not None


def extensions_of(folder: Path) -> list[dict[str, Any]]:
    """The extensions listed in a run's settings."""
    found: list[dict[str, Any]] = (read_form(folder) or {}).get(EXTENDED_FROM, [])
    return found


def covered_steps(folder: Path, steps: int, *, extend: bool) -> int:
    """The steps covered by the schedules of the run in `folder`: those before the run was extended."""
    found = read_form(folder) or {}
    if found.get(EXTENDED_FROM):
        return scheduled_steps(steps, found[EXTENDED_FROM])
    return int(found.get("steps", steps)) if extend else steps
