"""Procedural rows in a corpus: parses `--mix` and chooses the rows. This file does not import torch."""

from __future__ import annotations

import bisect
import functools
import hashlib
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Self

from proctool.errors import OptionError
from proctool.units import parse_count, parse_number

if TYPE_CHECKING:
    from proctool.procedural.registry import Task

Symbols = Literal["reserved", "frequency"]

_PART = re.compile(r"(.+)[=*]([^=*()]*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class MixOptions:
    """Changes to the rows that a pretraining sees; its validation rows stay as they are."""

    mix: tuple[str, ...] | None = None
    """Procedural rows among the corpus rows: set=0.01 (repeatable)."""
    mix_schedule: str | None = None
    """constant, first:SHARE, decay or periodic:N (default: constant)."""
    mix_symbols: Symbols | None = None
    """Token ids of symbols: added (reserved, the default), or frequent ones."""
    noise_tokens: float | None = None
    """Share of the corpus tokens to replace by random tokens in training."""
    noise_rows: float | None = None
    """Share of all rows that are random tokens, between the corpus rows."""

    @property
    def mixed(self) -> Mix | None:
        """The parsed `mix`; None without one. Raises OptionError."""
        return None if self.mix is None else parse_mix(self.mix, self.mix_schedule, self.mix_symbols)


@dataclass(frozen=True)
class MixSchedule:
    """How a run's procedural rows spread over it. Schedules move them and do not change their number.

    constant   evenly over the run
    first      evenly over the first `value` of the run
    decay      densest at the start, then linearly fewer, down to none at the end
    periodic   the run has `value` equal periods, and each has all of its procedural rows in its first half
    """

    kind: str = "constant"
    value: Fraction = Fraction(1)

    @classmethod
    def parse(cls, written: str) -> Self:
        """`constant`, `first:0.1`, `decay`, `periodic:10`. Raises OptionError."""
        kind, colon, value = written.strip().partition(":")
        try:
            if kind == "first" and colon and 0 < (share := parse_number(value)) <= 1:
                return cls(kind, Fraction(str(share)))
            if kind == "periodic" and colon and (periods := parse_count(value)) >= 1:
                return cls(kind, Fraction(periods))
            if kind in ("constant", "decay") and not colon:
                return cls(kind)
        except OptionError:
            pass
        raise OptionError(
            f'mix_schedule = "{written}": write constant, first:SHARE (above 0, at most 1), decay or periodic:N '
            "(N at least 1)"
        )

    @property
    def peak(self) -> Fraction:
        """The highest density, relative to the mean."""
        return {"constant": Fraction(1), "first": 1 / self.value}.get(self.kind, Fraction(2))

    def before(self, position: int, rows: int) -> Fraction:
        """The sum of relative densities over the first `position` of `rows` rows; at the end it equals `rows`.

        Later rows belong to an extended run: constant and periodic continue there, the others have ended.
        """
        if self.kind == "constant":
            return Fraction(position)
        if self.kind == "first":
            return min(position / self.value, Fraction(rows))
        if self.kind == "decay":
            inside = min(position, rows)
            return 2 * inside - Fraction(inside * inside, rows)
        period = rows / self.value
        whole, rest = divmod(Fraction(position), period)
        return whole * period + 2 * min(rest, period / 2)


@dataclass(frozen=True)
class Mix:
    """The procedural part of a pretraining: a task, its share of all rows, when they come, and the ids of symbols."""

    task: Task
    """A task, or a mixture of several by their shares."""
    parts: tuple[tuple[Task, Fraction], ...]
    schedule: MixSchedule
    symbols: Symbols

    @property
    def share(self) -> Fraction:
        """Share of all rows of the run."""
        return sum((share for _, share in self.parts), Fraction(0))

    @property
    def written(self) -> tuple[str, ...]:
        """The tasks with all options, and their shares. Equal mixes have equal texts."""
        return tuple(f"{task.spec}={float(share)!r}" for task, share in self.parts)

    def samples_per_row(self, context: int) -> int:
        """Whole samples in a row of `context` tokens. Raises OptionError if not even one fits."""
        if self.task.length > context:
            raise OptionError(
                f"mix: a sample of {self.task.spec} has {self.task.length} tokens and a row only {context}; use "
                f"shorter samples, or a --context of at least {self.task.length}"
            )
        return context // self.task.length

    @property
    def added_ids(self) -> int:
        """The number of ids that the model needs in addition to those of its tokenizer."""
        return self.task.vocab_size if self.symbols == "reserved" else 0


@functools.lru_cache(maxsize=32)
def parse_mix(written: tuple[str, ...], schedule: str | None = None, symbols: Symbols | None = None) -> Mix | None:
    """Parse texts such as `SPEC=SHARE` (or `SPEC*SHARE`), optionally joined by " + "; None if all shares are 0.

    A share is relative to all rows of the run. Raises OptionError.
    """
    from proctool.procedural.mixture import Mixture, top_level

    parts = [_part(each) for text in written for each in top_level(text)]
    parts = [(task, share) for task, share in parts if share]
    if not parts:
        return None
    planned = MixSchedule.parse(schedule or "constant")
    total = sum(share for _, share in parts)
    if total >= 1:
        raise OptionError(f"mix: the shares sum to {float(total):g}: must be below 1, so that corpus rows are left")
    if total * planned.peak > 1:
        raise OptionError(
            f'mix_schedule = "{schedule}": a share of {float(total):g} does not fit; the schedule has room for at most '
            f"{float(1 / planned.peak):g} of the rows"
        )
    tasks, shares = zip(*parts, strict=True)
    try:
        task = tasks[0] if len(tasks) == 1 else Mixture(tasks, tuple(map(float, shares)))
    except OptionError as error:
        raise OptionError(f"mix: {error}") from None
    return Mix(task, tuple(parts), planned, symbols or "reserved")


def _part(written: str) -> tuple[Task, Fraction]:
    from proctool.procedural.mixture import parse_tasks

    found = _PART.fullmatch(written)
    if found is None:
        raise OptionError(f'mix: "{written}": give its share of the rows; write for example set=0.01')
    try:
        share = parse_number(found[2])
        task = parse_tasks(found[1])
    except OptionError as error:
        raise OptionError(f"mix: {error}") from None
    if not 0 <= share < 1:
        raise OptionError(f"mix: share of {found[1]} = {share:g}: must be from 0 to below 1, a share of the rows")
    return task, Fraction(str(share))


def checked(options: MixOptions, context: int) -> dict[str, object]:
    """The options in their recorded form: equal for equal data, None for options without effect. Raises OptionError."""
    for name in ("noise_tokens", "noise_rows"):
        share = getattr(options, name)
        if share is not None and not 0 <= share < 1:
            of = "corpus tokens" if name == "noise_tokens" else "rows"
            raise OptionError(f"{name} = {share:g}: must be from 0 to below 1, a share of the {of}")
    noise = {"noise_tokens": options.noise_tokens or None, "noise_rows": options.noise_rows or None}
    for name in ("mix_schedule", "mix_symbols") if options.mix is None else ():
        if getattr(options, name) is not None:
            raise OptionError(f"{name}: needs --mix, such as --mix set=0.01")
    mix = options.mixed
    if mix is None:
        return {"mix": None, "mix_schedule": None, "mix_symbols": None, **noise}
    mix.samples_per_row(context)
    return {
        "mix": mix.written,
        "mix_schedule": None if mix.schedule.kind == "constant" else options.mix_schedule,
        "mix_symbols": None if mix.symbols == "reserved" else mix.symbols,
        **noise,
    }


@dataclass(frozen=True)
class Placement:
    """Determines which rows of a run are inserted (procedural, for example), from the seed and the position only.

    Before position p there are floor(share * density(p) + phase) inserted rows, where the seed determines the phase.
    They are evenly spaced at any density, their number is within one of the share, and a closed formula counts those
    before a position. Arithmetic is exact, so rounding cannot move a row.
    """

    share: Fraction
    """Share of all rows."""
    schedule: MixSchedule
    rows: int
    """Rows of the run that the schedule covers."""
    seed: int
    kind: str = "mix"
    """Kind of the rows; each kind has a different phase."""

    @functools.cached_property
    def _phase(self) -> Fraction:
        digest = hashlib.sha256(f"{self.kind}/{self.seed}".encode()).digest()
        return Fraction(int.from_bytes(digest[:8], "little"), 1 << 64)

    def before(self, position: int) -> int:
        """The number of inserted rows among the first `position` rows."""
        return math.floor(self.share * self.schedule.before(position, self.rows) + self._phase)

    def within(self, start: int, stop: int) -> list[int]:
        """The positions of the inserted rows among rows start..stop - 1, in order."""
        positions = range(start, stop + 1)
        return [
            positions[bisect.bisect_left(positions, number + 1, key=self.before)] - 1
            for number in range(self.before(start), self.before(stop))
        ]


def even_placement(share: float, seed: int) -> Placement:
    """The placement of rows of random tokens: evenly over the run."""
    return Placement(Fraction(str(share)), MixSchedule(), 1, seed, kind="noise-rows")
