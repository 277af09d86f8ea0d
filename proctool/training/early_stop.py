"""Stopping before the last step: a measure reached, or no progress for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proctool.errors import OptionError
from proctool.units import parse_number

if TYPE_CHECKING:
    from proctool.training.evaluate import Scores

_RISING = ("accuracy", "exact_match")


def parse_until(written: str) -> tuple[str, float]:
    """`accuracy=.99`, `exact_match=.9` or `loss=1.5` as (measure, value). Raises OptionError."""
    measure, equals, value = written.partition("=")
    if not equals or measure not in (*_RISING, "loss"):
        raise OptionError(f'until = "{written}": write accuracy=.99, exact_match=.9 or loss=1.5')
    return measure, parse_number(value)


@dataclass
class EarlyStop:
    """Watches the held-out scores of a run. `best` and `waited` are its state, kept in checkpoints."""

    until: str | None
    patience: int | None
    best: float = math.inf
    waited: int = 0

    def sees(self, scores: Scores) -> str | None:
        """Why to stop after these scores; None to go on."""
        self.waited = 0 if scores.loss < self.best else self.waited + 1
        self.best = min(self.best, scores.loss)
        if self.until is not None:
            measure, value = parse_until(self.until)
            found = getattr(scores, measure)
            if found >= value if measure in _RISING else found <= value:
                return f"{measure} {found:.4g} has reached {value:g}"
        if self.patience is not None and self.waited >= self.patience:
            return f"no better held-out loss than {self.best:.4g} in {self.waited} evaluations"
        return None
