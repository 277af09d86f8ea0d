"""Tracks validation scores: the best evaluation so far, and early stopping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.errors import OptionError
from proctool.events import Evaluation
from proctool.units import parse_number

if TYPE_CHECKING:
    from proctool.training.evaluate import Scores

_RISING = ("accuracy", "exact_match")
MEASURES = (*_RISING, "loss")


def parse_until(written: str) -> tuple[str, float]:
    """`accuracy=.99`, `exact_match=.9` or `loss=1.5` as (measure, value). Raises OptionError."""
    measure, equals, value = written.partition("=")
    if not equals or measure not in MEASURES:
        raise OptionError(f'until = "{written}": write accuracy=.99, exact_match=.9 or loss=1.5')
    try:
        wanted = parse_number(value)
    except OptionError as error:
        raise OptionError(f"until: {error}") from None
    if measure in _RISING and not 0 <= wanted <= 1:
        raise OptionError(f'until = "{written}": {measure} is from 0 to 1; write for example {measure}=.99')
    return measure, wanted


def has_reached(scores: Scores, measure: str, value: float) -> bool:
    """Whether the measure is at least as good as `value`."""
    found: float = getattr(scores, measure)
    return found >= value if measure in _RISING else found <= value


@dataclass
class EarlyStop:
    """Watches the validation scores of a run. `best` and `waited` are its state, kept in checkpoints."""

    until: str | None
    patience: int | None
    best: Evaluation | None = None
    """The evaluation with the lowest loss."""
    waited: int = 0
    """Evaluations since then."""

    def sees(self, scores: Scores, step: int, tokens: int) -> bool:
        """Record an evaluation; returns whether it is the best so far."""
        if math.isfinite(scores.loss) and (self.best is None or scores.loss < self.best.loss):
            self.best = scores.at(step, tokens)
            self.waited = 0
            return True
        self.waited += 1
        return False

    def reason(self, scores: Scores, *, in_full: bool = True) -> str | None:
        """The reason to stop after these scores; None to continue. `until` applies only at full size (`in_full`)."""
        if self.until is not None and in_full:
            measure, value = parse_until(self.until)
            if has_reached(scores, measure, value):
                return f"{measure} {getattr(scores, measure):.4g} has reached {value:g}"
        if self.patience is not None and self.waited >= self.patience:
            least = f"than {self.best.loss:.4g}" if self.best else "that is a number"
            return f"no better validation loss {least} in {self.waited} evaluations"
        return None

    def begin_again(self) -> None:
        """Forget earlier scores: later ones are not comparable with them."""
        self.best, self.waited = None, 0

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {"best": dataclasses.asdict(self.best) if self.best else None, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.best = Evaluation(**state["best"]) if state["best"] else None
        self.waited = state["waited"]
