"""What an arm is: a treatment, or a control of one. Recipes say it; otherwise it is read from how an arm starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proctool.transplantation.origin import NOT_TAKEN, Provenance

_BODY = ("attention", "mlp")
_SHUFFLED_TASK = "shuffle("

CONTROLS = {
    "shuffled": "shuffled",
    "longer": "more-corpus",
    "ramp": "learning-rate-ramp",
    "scale": "scale-matched",
    "sharpened": "attention-sharpened",
    "random-heads": "random-heads",
    "mean": "embedding-mean",
    "embeddings": "embeddings-only",
    "weights": "weight-shuffled",
    "noise": "noise",
}
"""Kinds of control and the word for each, as in "its shuffled control"; the most telling first."""


@dataclass(frozen=True)
class Start:
    """Where an arm's weights come from before it is pretrained."""

    tasks: tuple[str, ...] = ()
    """Specifications of what its donors were warmed up on; none for a cold start."""
    carried: tuple[Provenance, ...] = ()
    """Where its components come from."""
    kind: str | None = None
    """The kind of control it is, as a recipe says it: a key of CONTROLS."""
    of: tuple[str, ...] = ()
    """The arms that it is a control of, as a recipe says it."""
    layers: tuple[str, ...] = ()
    """The layers that carrying was limited to, as written; none for all."""
    made_from: str = ""
    """The arm as written in a recipe: forms of one arm differ in the length of their warm-up."""

    @property
    def components(self) -> tuple[str, ...]:
        """The components that come from donors in one way or another."""
        return tuple(dict.fromkeys(each.component for each in self.carried if each.source not in NOT_TAKEN))

    @property
    def control(self) -> str | None:
        """The kind of control it is, a key of CONTROLS; None for a treatment or a cold start."""
        if self.kind is not None:
            return self.kind
        if not self.tasks:
            return None
        if all(task.startswith(_SHUFFLED_TASK) for task in self.tasks):
            return "shuffled"
        body = [each for each in self.carried if each.component in _BODY]
        given = [each.treatment for each in body if each.source not in NOT_TAKEN]
        if body and not given:
            return "embeddings"
        if given and all(each.match_scale for each in given):
            return "scale"
        return "weights" if given and all(each.shuffle for each in given) else None

    @property
    def treatment(self) -> tuple[str, ...]:
        """What it is apart from the warm-up's length: arms that share it make one substitutive curve."""
        if self.made_from:
            return (self.made_from, self.kind or "")
        # Without the donor's file name, which may hold the warm-up's length.
        ways = (f"{each.component}:{each.source}:{each.treatment}{each.heads or ''}" for each in self.carried)
        return (*self.tasks, *sorted(ways))


@dataclass(frozen=True)
class ControlPair:
    """One arm as the control of another."""

    arm: str
    of: str
    kind: str

    @property
    def words(self) -> str:
        """ "shuffled control"."""
        return f"{CONTROLS.get(self.kind, self.kind)} control"


def controls(starts: Mapping[str, Start]) -> list[ControlPair]:
    """Which arm is a control of which, the most telling kinds first."""
    found = []
    for arm, start in starts.items():
        kind = start.control
        if kind is None:
            continue
        of = start.of or [
            other
            for other, theirs in starts.items()
            if theirs.tasks and theirs.control is None and _alike(start, theirs)
        ]
        found += [ControlPair(arm, other, kind) for other in of]
    order = {kind: place for place, kind in enumerate(CONTROLS)}
    return sorted(found, key=lambda each: order.get(each.kind, len(order)))


def _alike(control: Start, arm: Start) -> bool:
    """Whether the tasks are the same but for a shuffled control's shuffling, and so is what is carried.

    A control without the body carries less by what it is, so it stands beside every arm of its tasks.
    """
    if tuple(map(_plain, control.tasks)) != tuple(map(_plain, arm.tasks)):
        return False
    same = set(control.components) == set(arm.components) and control.layers == arm.layers
    return same or control.control in ("embeddings", "mean")


def _plain(task: str) -> str:
    return task.removeprefix(_SHUFFLED_TASK).removesuffix(")") if task.startswith(_SHUFFLED_TASK) else task
