"""Options of a transplant, resolved for a target: layers, heads, treatments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from proctool.errors import OptionError
from proctool.transplantation.head_choice import Head, choose_heads, head_names
from proctool.transplantation.layers import by_component, check_carried, parse_layers
from proctool.transplantation.options import TransplantOptions
from proctool.transplantation.plan import Target
from proctool.transplantation.treatments import Treatment
from proctool.units import parse_number


def layer_sets(written: Sequence[str], carried: Iterable[str], target: Target) -> dict[str, frozenset[int]]:
    """The chosen layers, by component. Raises OptionError."""
    ranges = by_component("layers", written, carried)
    return {name: parse_layers(each, target.anatomy.layers) for name, each in ranges.items()}


def chosen_heads(
    written: Sequence[str] | None, carried: Iterable[str], ranges: Mapping[str, frozenset[int]], target: Target
) -> frozenset[Head] | None:
    """The attention heads to carry; None for all. Raises OptionError, ModelError."""
    if written is None:
        return None
    check_carried("heads", "attention", carried)
    chosen = choose_heads(written, target.head_map(), target.seed)
    outside = {head for head in chosen if head[0] not in ranges.get("attention", {head[0]})}
    if outside:
        raise OptionError(
            f"heads: {head_names(frozenset(outside))[0]} is not in the carried layers; add its layer to --layers"
        )
    return chosen


def treatments_of(options: TransplantOptions, carried: Collection[str]) -> dict[str, Treatment]:
    """The treatment of each carried component. Raises OptionError."""
    for option in ("shuffle", "match_scale"):
        for component in getattr(options, option):
            check_carried(option, component, carried)
    if options.sharpen is not None:
        check_carried("sharpen", "attention", carried)
    sharpen = {"attention": _factor(options.sharpen)}
    noise = by_component("noise", options.noise, carried)
    alpha = by_component("alpha", options.alpha, carried)
    made = {}
    for name in carried:
        try:
            made[name] = Treatment(
                shuffle=name in options.shuffle,
                match_scale=name in options.match_scale,
                sharpen=sharpen.get(name, 1.0),
                noise=parse_number(noise.get(name, 0.0)),
                alpha=parse_number(alpha.get(name, 1.0)),
            )
        except OptionError as error:
            raise OptionError(f"{name}: {error}") from None
    return made


def _factor(written: str | None) -> float | Literal["match"]:
    if written == "match":
        return "match"
    try:
        return parse_number(written or 1)
    except OptionError as error:
        raise OptionError(f"sharpen: {error}; or match") from None
