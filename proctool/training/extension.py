"""Extending a finished run (`--extend`): which settings may change, and what the settings file records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proctool.errors import RunError
from proctool.events import EndEvent, read_events
from proctool.training.schedule import learning_rate

EXTENDABLE = frozenset({"steps", "until", "patience"})
"""Settings that an extension may change. They determine how long a run trains, but not the result of any step."""

EXTENDED_FROM = "extended_from"
"""Key of a run folder's settings: for each extension the step it began at, the steps of the run until then, and the
content of the artifact that the run had written. The steps of the first are those that the schedule was made for."""

KEPT_BELOW = 64 << 20
"""Training states of up to this many bytes are kept by default (models of about five million parameters)."""


def keeps_state(asked: bool | None, size: int) -> bool:
    """Whether a run keeps its final training state of `size` bytes."""
    return size <= KEPT_BELOW if asked is None else asked


def scheduled_steps(steps: int, extended_from: Sequence[Mapping[str, Any]]) -> int:
    """The number of steps that the learning rate schedule covers. Later steps keep its final rate."""
    return int(extended_from[0]["steps"]) if extended_from else steps


def finished_step(folder: Path) -> int:
    """The last step of the run in `folder`, from which --extend continues. Raises RunError, OSError."""
    end = next((event for event in reversed(read_events(folder)) if isinstance(event, EndEvent)), None)
    if end is None:
        raise RunError(f"{folder}: has no finished run to extend; train it first, without --extend")
    return end.step


def extension(where: str, found: Mapping[str, Any], wanted: Mapping[str, Any], end: EndEvent) -> dict[str, Any]:
    """The record of an extension in the settings; the extended run has the settings `found` and the end event `end`.

    Raises RunError if the run already has that many steps, or if its learning rate ended at zero.
    """
    done = end.step
    if wanted["steps"] <= done:
        raise RunError(f"{where}: has {done} steps already; --extend needs more --steps than that")
    before = found.get(EXTENDED_FROM, [])
    entry = {"step": done, "steps": found["steps"], "content": end.content}
    covered = scheduled_steps(found["steps"], [*before, entry])
    if wanted["steps"] > covered and _final_rate(found, covered) == 0:
        raise RunError(
            f"{where}: the {found['schedule']} schedule ended at a learning rate of 0, so more steps would change "
            "nothing; start a new run with --init, or train with --final-lr above 0"
        )
    return entry


def _final_rate(settings: Mapping[str, Any], covered: int) -> float:
    return learning_rate(
        covered, steps=covered, peak=settings["lr"], schedule=settings["schedule"],
        ramp_steps=settings["ramp_steps"], final=settings["final_lr"],
    )  # fmt: skip


def note(settings: Mapping[str, Any], extended_from: Sequence[Mapping[str, Any]]) -> str:
    """A line on the learning rate of the added steps; empty if a longer run from the start would have the same."""
    if settings["schedule"] == "constant":
        return ""
    covered = scheduled_steps(settings["steps"], extended_from)
    return (
        f"the {settings['schedule']} schedule was made for {covered} steps; later steps keep its final rate "
        f"{_final_rate(settings, covered):.3g}, unlike a run of {settings['steps']} steps from the start"
    )
