"""Which attention heads are carried: `1.2,0.3`, or `random:2`, drawn from the seed.

    1.2             head 2 of layer 1, both counted from 0
    random:2        two heads, drawn among all
    random:2,-1.2   two heads, drawn among all but 1.2

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
    """Heads as written: those named, or as many as `drawn` among those that are not named."""

    named: tuple[Head, ...]
    drawn: int | None = None


def read_heads(written: Sequence[str]) -> HeadChoice:
    """What is written, before the model is known. Raises OptionError."""
    named: list[Head] = []
    drawn: int | None = None
    for index, each in enumerate(written):
        if (match := _RANDOM.fullmatch(each.strip())) and index == 0 and int(match[1]):
            drawn = int(match[1])
            continue
        match = _HEAD.fullmatch(each.strip())
        if match is None or bool(match[1]) != (drawn is not None):
            raise OptionError(
                f'heads: "{each}" is not a head; write LAYER.HEAD, such as 1.2,0.3, or random:2, or random:2,-1.2,-0.3'
            )
        named.append((int(match[2]), int(match[3])))
    if len(set(named)) < len(named):
        raise OptionError(f"heads: {','.join(written)}: the same head is named twice")
    if not written:
        raise OptionError("heads: none is named; write LAYER.HEAD, such as 1.2,0.3, or leave heads out")
    return HeadChoice(tuple(named), drawn)


def choose_heads(written: Sequence[str], known: HeadMap, seed: int) -> frozenset[Head]:
    """The heads of a model that are meant.

    Raises OptionError where the model has no such head, a group is split, or fewer are left than are to be drawn.
    """
    import numpy as np

    choice = read_heads(written)
    there = known.all()
    for layer, head in choice.named:
        if (layer, head) not in there:
            layers = ", ".join(map(str, known.layers)) or "none"
            raise OptionError(
                f"heads: {layer}.{head} is not in the model, which has heads 0 to {known.heads - 1} in layers {layers}"
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
                    f"{_words(head for head in group if head not in taken)}; name all of {_words(group)}"
                )
        return frozenset(choice.named)
    free = [group for group in groups.values() if not any(head in choice.named for head in group)]
    count, uneven = divmod(choice.drawn, known.group)
    if uneven:
        raise OptionError(
            f"heads: random:{choice.drawn}: {known.group} heads share a key and a value; draw a multiple of that"
        )
    if count > len(free):
        raise OptionError(f"heads: random:{choice.drawn}: only {len(free) * known.group} heads are left to draw from")
    drawn = np.random.default_rng([seed, 0x6865616473]).choice(len(free), count, replace=False)
    return frozenset(head for index in drawn for head in free[index])


def head_names(heads: frozenset[Head]) -> tuple[str, ...]:
    """Heads as they are written, in their order."""
    return tuple(f"{layer}.{head}" for layer, head in sorted(heads))


def _words(heads: object) -> str:
    return " and ".join(f"{layer}.{head}" for layer, head in heads)  # type: ignore[attr-defined]
