"""Whether an arm is a treatment or a control: as the recipe says, else derived from where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from proctool.transplantation.origin import NOT_TAKEN, Provenance

_BODY = ("attention", "mlp")
_OTHER_TOKENS = {"shuffle(": "shuffled", "random(": "random"}
"""How the task of a control begins that has other tokens, and the kind of control."""

CONTROLS = {
    "shuffled": "shuffled",
    "text": "natural-text",
    "random": "random-token",
    "longer": "more-corpus",
    "ramp": "learning-rate-ramp",
    "scale": "scale-matched",
    "sharpened": "attention-sharpened",
    "random-heads": "random-heads",
    "mean": "embedding-mean",
    "embeddings": "embeddings-only",
    "weights": "weight-shuffled",
    "noise": "noise",
    "text-continued": "continued-text",
    "mimetic": "mimetic",
}
"""Kinds of control and the word for each, as in "its shuffled control"; the most telling first."""

SUBJECTS = {
    "shuffled": "a warm-up on the same tokens in random order",
    "text": "a warm-up on natural text",
    "random": "a warm-up on random tokens",
    "longer": "more corpus instead of the warm-up",
    "ramp": "the baseline with a learning-rate ramp",
    "scale": "fresh weights at the donor's scale",
    "sharpened": "fresh weights at the donor's scale, with attention as sharp,",
    "random-heads": "as many other heads",
    "mean": "fresh weights with the mean of the warmed embeddings",
    "embeddings": "fresh weights with the same embedding start",
    "weights": "the warmed weights in random order",
    "noise": "the warmed weights with noise",
    "text-continued": "a warm-up on natural text without a reset",
    "mimetic": "fresh attention with structure",
}
"""What each kind of control is, as in "fresh weights at the donor's scale did as well"."""


@dataclass(frozen=True)
class Start:
    """Where an arm's weights come from before it is pretrained."""

    tasks: tuple[str, ...] = ()
    """Specifications of the tasks of its donors; empty for a cold start."""
    carried: tuple[Provenance, ...] = ()
    """Where its components come from."""
    kind: str | None = None
    """The kind of control, from the recipe: a key of CONTROLS."""
    of: tuple[str, ...] = ()
    """The arms that it is a control of, from the recipe."""
    layers: tuple[str, ...] = ()
    """The layers that were carried over, as written; empty for all."""
    corpora: tuple[str, ...] = ()
    """The corpora that its donors were trained on."""
    optimiser: Literal["part", "all"] | None = None
    """For which parameters the optimiser keeps its state from the warm-up; None: for none."""
    made_from: str = ""
    """The arm in the recipe that it is a variant of: variants differ in the length of their warm-up."""

    @property
    def components(self) -> tuple[str, ...]:
        """The components that come from donors in some way."""
        return tuple(dict.fromkeys(each.component for each in self.carried if each.source not in NOT_TAKEN))

    @property
    def control(self) -> str | None:
        """The kind of control, a key of CONTROLS; None for a treatment or a cold start."""
        if self.kind is not None:
            return self.kind
        if not self.tasks:
            return None
        for begins, kind in _OTHER_TOKENS.items():
            if all(task.startswith(begins) for task in self.tasks):
                return kind
        body = [each for each in self.carried if each.component in _BODY]
        given = [each.treatment for each in body if each.source not in NOT_TAKEN]
        if body and not given:
            return "embeddings"
        if given and all(each.match_scale for each in given):
            return "scale"
        return "weights" if given and all(each.shuffle for each in given) else None

    @property
    def treatment(self) -> tuple[str, ...]:
        """What identifies it apart from the warm-up's length: arms with the same value form one substitutive curve."""
        if self.made_from:
            return (self.made_from, self.kind or "")
        # Without the donor's file name, which may contain the warm-up's length.
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

    @property
    def subject(self) -> str:
        """ "fresh weights at the donor's scale"."""
        return SUBJECTS.get(self.kind, self.arm)


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
    """Whether tasks (apart from their tokens) and carried components are the same.

    Controls that carry no body have fewer components by design, so they belong to every arm of their tasks.
    """
    if tuple(map(_plain, control.tasks)) != tuple(map(_plain, arm.tasks)):
        return False
    same = set(control.components) == set(arm.components) and control.layers == arm.layers
    return same or control.control in ("embeddings", "mean")


def _plain(task: str) -> str:
    begins = next((each for each in _OTHER_TOKENS if task.startswith(each)), None)
    return task if begins is None else task.removeprefix(begins).removesuffix(")")
