"""Which layers are carried, and from which donor layers: `0-5,8`, `attention=0-5`, depth maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from proctool import config
from proctool.errors import OptionError
from proctool.models.components import COMPONENTS

DEPTH_MAPS = ("repeat", "stretch", "first")
"""How the T layers of a target are matched with the D layers of a donor:

repeat   layer i takes donor layer i mod D: the donor's stack repeated, or its first T layers
stretch  layer i takes donor layer i * D // T: each donor layer several times in a row, or every n-th layer
first    layer i takes donor layer i; layers after the donor's last are not changed
"""

_RANGE = re.compile(r"(\d+)(?:(-)(\d+)?)?")


def parse_layers(written: str, depth: int) -> frozenset[int]:
    """The layers in ranges such as `0-5,8,10-` (ends included, counted from 0) of a model of `depth` layers.

    Raises OptionError if that is not a range, or if it exceeds the model.
    """
    layers: set[int] = set()
    for part in written.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise OptionError(f'layers: "{part}" is not a range of layers; write 0-5, 3 or 0-2,9-11')
        first = int(match[1])
        last = int(match[3]) if match[3] else depth - 1 if match[2] else first
        if max(first, last) >= depth:
            raise OptionError(f"layers: {part.strip()} exceeds the model, which has layers 0 to {depth - 1}")
        if last < first:
            raise OptionError(f"layers: {part.strip()} ends before it starts; write the smaller layer first")
        layers |= set(range(first, last + 1))
    return frozenset(layers)


def donor_layer(depth_map: str | None, layer: int, depth: int, donor_depth: int) -> int | None:
    """The donor's layer for layer `layer` of `depth`; None if it takes none."""
    if depth == donor_depth or depth_map == "first":
        return layer if layer < donor_depth else None
    if depth_map == "repeat":
        return layer % donor_depth
    if depth_map == "stretch":
        return layer * donor_depth // depth
    raise ValueError(depth_map)


def by_component(option: str, values: Sequence[str], carried: Iterable[str]) -> dict[str, str]:
    """Values written `VALUE` (for every component of `carried`) or `COMPONENT=VALUE`, by component.

    Raises OptionError on a component that is unknown, not carried, or given twice.
    """
    carried = tuple(carried)
    general: dict[str, str] = {}
    own: dict[str, str] = {}
    for written in values:
        component, equals, value = written.partition("=")
        if not equals:
            if general:
                raise OptionError(f"{option}: given twice for every component; write COMPONENT={written}")
            general = dict.fromkeys(carried, written)
            continue
        check_carried(option, component, carried)
        if component in own:
            raise OptionError(f"{option}: given twice for {component}; give it once")
        own[component] = value
    return general | own


def check_carried(option: str, component: str, carried: Iterable[str]) -> None:
    """Raises OptionError unless the component is known and among `carried`."""
    if component not in COMPONENTS:
        raise OptionError(f'{option}: "{component}" is not a component{config.suggestion(component, COMPONENTS)}')
    if component not in carried:
        raise OptionError(f"{option}: {component} is not carried; give a donor with --{component} FILE")
