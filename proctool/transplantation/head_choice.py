"""Which attention heads to carry: `1.2,0.3`, or `random:2`, drawn with the seed.

    1.2             head 2 of layer 1, both counted from 0
    random:2        two random heads
    random:2,-1.2   two random heads, but not 1.2

Heads that share a key and a value (grouped-query attention) are carried together or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proctool.errors import OptionError

if TYPE_CHECKING:
    from proctool.models.heads import HeadMap

Head = tuple[int, int]
"""A layer and a head."""

_HEAD = re.compile(r"(-?)(\d{1,6})\.(\d{1,6})")
_RANDOM = re.compile(r"random:(\d{1,6})")


@dataclass(frozen=True)
class HeadChoice:
    """Heads as written: those named, or `drawn` random ones among those not named."""

    named: tuple[Head, ...]
    drawn: int | None = None


def read_heads(written: Sequence[str]) -> HeadChoice:
    """The written choice, before the model is known. Raises OptionError."""
    named: list[Head] = []
    drawn: int | None = None
    for index, each in enumerate(written):
        if (match := _RANDOM.fullmatch(each.strip())) and index == 0 and int(match[1]):
            drawn = int(match[1])
            continue
        match = _HEAD.fullmatch(each.strip())
        if match is None or bool(match[1]) != (drawn is not None):
            raise OptionError(
                f'heads: "{each}" is not a head; write LAYER.HEAD (1.2,0.3), random:2, or random:2,-1.2,-0.3'
            )
        named.append((int(match[2]), int(match[3])))
    if len(set(named)) < len(named):
        raise OptionError(f"heads: {','.join(written)}: the same head is given twice; give it once")
    if not written:
        raise OptionError("heads: no head is given; write LAYER.HEAD, such as 1.2,0.3, or leave heads out")
    return HeadChoice(tuple(named), drawn)


def choose_heads(written: Sequence[str], known: HeadMap, seed: int) -> frozenset[Head]:
    """The chosen heads of a model.

    Raises OptionError if the model has no such head, if a group is split, or if there are too few heads to draw from.
    """
    import numpy as np

    choice = read_heads(written)
    there = known.all()
    for layer, head in choice.named:
        if (layer, head) not in there:
            layers = ", ".join(map(str, known.layers)) or "none"
            raise OptionError(
                f"heads: the model has no head {layer}.{head}; it has heads 0 to {known.heads - 1} in layers {layers}"
            )
    groups: dict[tuple[int, int], list[Head]] = {}
    for layer, head in there:
        groups.setdefault((layer, head // known.group), []).append((layer, head))
    if choice.drawn is None:
        for group in groups.values():
            taken = [head for head in group if head in choice.named]
            if taken and len(taken) < len(group):
                raise OptionError(
                    f"heads: {_words(taken)} {'shares' if len(taken) == 1 else 'share'} a key and a value with "
                    f"{_words(head for head in group if head not in taken)}; give all of {_words(group)}"
                )
        return frozenset(choice.named)
    free = [group for group in groups.values() if not any(head in choice.named for head in group)]
    count, uneven = divmod(choice.drawn, known.group)
    if uneven:
        raise OptionError(
            f"heads: random:{choice.drawn}: {known.group} heads share a key and a value; use a multiple of that"
        )
    if count > len(free):
        raise OptionError(
            f"heads: random:{choice.drawn}: only {len(free) * known.group} heads are left; use at most that"
        )
    drawn = np.random.default_rng([seed, 0x6865616473]).choice(len(free), count, replace=False)
    return frozenset(head for index in drawn for head in free[index])


def head_names(heads: frozenset[Head]) -> tuple[str, ...]:
    """Heads as text, sorted."""
    return tuple(f"{layer}.{head}" for layer, head in sorted(heads))


def _words(heads: object) -> str:
    return " and ".join(f"{layer}.{head}" for layer, head in heads)  # type: ignore[attr-defined]
