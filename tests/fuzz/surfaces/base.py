"""A way in, and what may come of an input."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.fuzz.mutate import mutated, mutated_value

ROOT = Path(__file__).parents[3]


class Finding(Exception):
    """An input that was not refused as it should be, or accepted wrongly."""


class Surface(ABC):
    """One way in. `folder` is empty, in memory where there is such a place, and all that may be written to."""

    words: Sequence[str] = ()
    """What mutations insert beside the usual."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = self.make_seeds()

    @abstractmethod
    def make_seeds(self) -> list[bytes]:
        """Inputs that are accepted."""

    def draw(self, random: Random) -> bytes:
        """A damaged input."""
        return mutated(random, random.choice(self.seeds), self.seeds, self.words)

    @abstractmethod
    def check(self, data: bytes) -> None:
        """Hand an input to the code."""

    def written(self, name: str, data: bytes) -> Path:
        """A file of this name that holds the input."""
        path = self.folder / name
        path.write_bytes(data)
        return path


class Values(Surface):
    """Inputs that are JSON: damaged as values, so that they get past the parser."""

    def draw(self, random: Random) -> bytes:
        if random.random() < 0.2:
            return super().draw(random)
        return json.dumps(mutated_value(random, json.loads(random.choice(self.seeds)))).encode()


def refusals() -> tuple[type[BaseException], ...]:
    from proctool.errors import ProctoolError

    return ProctoolError, OSError


def verdict(surface: Surface, data: bytes) -> str:
    """ "taken" or "refused". Raises whatever is a finding."""
    try:
        surface.check(data)
    except refusals() as error:
        from proctool.errors import describe_os_error, one_line

        line = one_line(describe_os_error(error) if isinstance(error, OSError) else str(error))
        if not line or len(line) > 1100:
            raise Finding(f"a refusal of {len(line)} characters") from error
        return "refused"
    return "taken"
