"""The option `--accept`: train donors until one passes a short diagnostic, the probe (evaluation/acceptance.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from proctool import config
from proctool.errors import OptionError
from proctool.training.schedule import lr_options

REDRAWN_SEEDS = 10**9
"""Try t (from 0) of a warm-up with seed s uses the seed s + t * REDRAWN_SEEDS. With --accept, s must be below this, so
that no try repeats another run."""
PROBE_SEED = 10**12
"""The seed of every probe: of its training samples, fresh weights and validation samples. It is above the seeds of all
tries, so that no other diagnostic uses it by chance."""
MOST_TRIES = PROBE_SEED // REDRAWN_SEEDS - 1


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """When a donor is accepted. Written `haystack:steps=1750,above=.15`, or as a mapping of these keys."""

    diagnostic: str
    """The diagnostic that each donor is probed with: haystack, addition, sorting, ..."""
    above: float = 0.15
    """Accept a donor whose probe gets at least this share of the validation targets right."""
    tries: int = field(default=10, metadata={"incidental": True})
    """Most donors to train, each with a seed of its own."""
    steps: int = 1750
    """Optimiser steps of the probe."""
    batch_size: int = 1000
    """Samples in one step of the probe."""
    lr: float = 2e-3
    """Peak learning rate of the probe."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    """Learning rate of the probe after its ramp."""
    ramp_steps: int | None = None
    """Steps over which the probe's rate rises (default: 500, at most half of its steps)."""
    final_lr: float | None = None
    """Rate at the probe's last step, as a share of the peak (default: the diagnostic's own)."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Optimiser of the probe; muon: for matrices of attention and MLPs, AdamW for the rest."""
    beta2: float | None = None
    """AdamW's beta2 in the probe (default: the diagnostic's own)."""
    lr_of: tuple[str, ...] | None = None
    """Factors on the probe's rate for components: embeddings=2."""
    components: tuple[str, ...] = ("attention", "mlp", "norms", "positions")
    """What the probe carries over from the donor."""
    embeddings: Literal["fresh", "scale", "mean", "sample", "copy"] = "mean"
    """Start of the probe's token embeddings."""
    tie: bool = False
    """Use the probe's token embeddings as its output head too; a mean start needs them apart."""
    model: str | None = None
    """The probe's model (default: the warm-up's)."""
    init_std: float | None = None
    """Standard deviation of the probe's fresh weights (default: the warm-up's)."""
    eval_samples: int = 2000
    """Validation samples that the probe is scored on."""
    pairs: int | None = None
    """Most key-value pairs, for haystack (default: the diagnostic's own)."""
    vocab: int | None = None
    """Vocabulary, for haystack (default: the diagnostic's own)."""
    digits: int | None = None
    """Digits of each number, for arithmetic (default: the diagnostic's own)."""
    items: int | None = None
    """Numbers in a list, for sorting (default: the diagnostic's own)."""
    symbols: int | None = None
    """Numbers are below this, for sorting (default: the diagnostic's own)."""

    def __post_init__(self) -> None:
        if not 0 <= self.above <= 1:
            raise OptionError(f"accept: above = {self.above:g}: a share of targets right, from 0 to 1")
        if not 1 <= self.tries <= MOST_TRIES:
            raise OptionError(f"accept: tries = {self.tries}: must be from 1 to {MOST_TRIES}")
        try:
            object.__setattr__(self, "lr_of", lr_options(self.lr_of))
        except OptionError as error:
            raise OptionError(f"accept: {error}") from None

    @classmethod
    def parse(cls, written: str, where: str = "accept") -> Self:
        """Parse a specification such as `haystack:above=.2,components=attention+mlp`.

        Raises OptionError.
        """
        name, _, rest = written.partition(":")
        values: dict[str, Any] = {"diagnostic": name.strip()}
        several = ("components", "lr_of")
        for part in filter(None, map(str.strip, rest.split(","))):
            key, equals, value = part.partition("=")
            key = key.strip().replace("-", "_")
            if not equals:
                raise OptionError(f'{where}: "{part}" in "{written}": write DIAGNOSTIC:option=value,option=value')
            if key in values:
                raise OptionError(f'{where}: option "{key}" is given twice')
            values[key] = value.strip().split("+") if key in several else value.strip()
        return config.build(cls, values, where)

    def __str__(self) -> str:
        """The specification, with the options that differ from the defaults. `parse` is the inverse."""
        given = [
            f"{each.name}={_written(value)}"
            for each in fields(self)
            if each.name != "diagnostic" and (value := getattr(self, each.name)) != each.default
        ]
        return f"{self.diagnostic}:{','.join(given)}" if given else self.diagnostic

    @property
    def probe(self) -> Mapping[str, Any]:
        """The probe's options that the user set, by name."""
        own = ("diagnostic", "above", "tries")
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in own}
        values["ramp_steps"] = min(500, self.steps // 2) if self.ramp_steps is None else self.ramp_steps
        return {name: value for name, value in values.items() if value is not None}


def seed_of_try(seed: int, number: int) -> int:
    """The seed of a try. Try 0 has the given seed."""
    return seed + number * REDRAWN_SEEDS


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(value) if isinstance(value, tuple) else str(value)
