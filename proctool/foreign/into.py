"""Carrying components of a model into any module: `proctool.transplant_into`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from proctool import config
from proctool.arguments import listed
from proctool.errors import ModelError, OptionError, notice
from proctool.foreign.apart import Slot, TakenApart, matches
from proctool.foreign.layouts import join
from proctool.foreign.mapping import ModelMapping
from proctool.foreign.opened import LiveModel, apart_module, apart_saved, config_of_live, mapping_for, unwrapped
from proctool.models.components import parse_components
from proctool.models.saved import SavedModel, open_model
from proctool.paths import user_path
from proctool.transplantation import engine
from proctool.transplantation.fresh import seeded
from proctool.transplantation.layers import by_component, parse_layers
from proctool.transplantation.leftovers import Leftover
from proctool.transplantation.origin import DonorTensor, Origin, Provenance
from proctool.transplantation.treatments import EMBEDDINGS, embedding_rows, resize_positions
from proctool.transplantation.writable import require_writable

if TYPE_CHECKING:
    import torch
    from torch import nn


def transplant_into(
    module: nn.Module,
    donor: str | os.PathLike[str] | SavedModel | nn.Module,
    components: str | Sequence[str] = engine.BODY,
    embeddings: str = "scale",
    mapping: str | ModelMapping | None = None,
    layers: int | str | Sequence[int | str] | None = None,
    seed: int = 0,
) -> list[Origin]:
    """Carry components of `donor` into `module`, in place.

        proctool.transplant_into(model, "warm.safetensors", components=("attention", "mlp", "norms"))

    `module` is a transformers model or any other module. For another module, `mapping` describes its parameters
    ("nanogpt", "litgpt", "torchtitan", "nanochat", or a `proctool.foreign.ModelMapping`); without it, the parameter
    names must be exactly those of a known project. `donor` is a model artifact, a Hugging Face folder, a transformers
    model or a module of the target's class. Tensors are fused, split, transposed and permuted to fit the target.

    `components` may have attention, mixer, mlp, norms and positions. `embeddings` is scale (rescaled to the donor's
    standard deviation), fresh (unchanged), mean, sample or copy. `layers` selects layers: 0, "0-5", [0, 2] or
    "mlp=0-5". `seed` is for the random rows of sample.

    Returns the origin of every parameter, in the module's order. Raises ModelError if mapping, shapes, depths or heads
    do not fit, or the donor has NaN or infinities; OptionError if nothing would be carried. The module changes only
    after all checks.
    """
    module = unwrapped(_module(module, "module"))
    components = components.split(",") if isinstance(components, str) else listed("components", components)
    given = _opened(donor)
    ranges = _written_layers(layers)
    settings = config_of_live(module)
    if mapping is None and settings is not None and isinstance(given, SavedModel):
        return engine.transplant_into(module, given, components, embeddings=embeddings, layers=ranges, seed=seed)
    target = apart_module(module, mapping_for(module, mapping))
    source = apart_saved(given) if isinstance(given, SavedModel) else _apart_donor(given, module, target.mapping)
    return _carry(module, target, source, components, embeddings, ranges, seed)


def _module(given: object, argument: str) -> nn.Module:
    from torch.nn import Module

    if not isinstance(given, Module):
        or_file = " or the path of a model" if argument == "donor" else ""
        raise OptionError(f"{argument}: is a {type(given).__name__}, not a torch.nn.Module{or_file}")
    return given


def _opened(donor: str | os.PathLike[str] | SavedModel | nn.Module) -> SavedModel | nn.Module:
    if isinstance(donor, SavedModel):
        return donor
    if isinstance(donor, str | os.PathLike):
        return open_model(user_path(str(Path(donor))))
    donor = unwrapped(_module(donor, "donor"))
    settings = config_of_live(donor)
    return donor if settings is None else LiveModel(donor, settings)


def _apart_donor(donor: nn.Module, module: nn.Module, mapping: ModelMapping) -> TakenApart:
    """A donor module: read by the target's mapping if it has the target's class, else by its own names."""
    names = [name for name, _ in donor.named_parameters()]
    # A family may have the same names as a project but another layout (GPT-2 and nanoGPT).
    is_alike = type(donor) is type(module) or (config_of_live(module) is None and matches(mapping, names))
    return apart_module(donor, mapping if is_alike else mapping_for(donor, None))


def _written_layers(layers: int | str | Sequence[int | str] | None) -> tuple[str, ...]:
    if layers is None:
        return ()
    if isinstance(layers, Sequence) and not layers:
        raise OptionError("layers: is empty, so nothing would be carried; leave it out for all layers")
    if isinstance(layers, int | str):
        return (str(layers),)
    layers = listed("layers", layers)
    if odd := [layer for layer in layers if not isinstance(layer, int | str)]:
        raise OptionError(f"layers: {odd[0]!r} is neither a number nor text such as 0-5")
    numbers = [str(layer) for layer in layers if isinstance(layer, int)]
    return (*([",".join(numbers)] if numbers else ()), *(layer for layer in layers if isinstance(layer, str)))


def _carry(
    module: nn.Module,
    target: TakenApart,
    source: TakenApart,
    components: Sequence[str],
    embeddings: str,
    layers: Sequence[str],
    seed: int,
) -> list[Origin]:
    import torch

    if embeddings not in EMBEDDINGS:
        raise OptionError(f'embeddings: "{embeddings}"{config.suggestion(embeddings, EMBEDDINGS)}')
    names = _carried(target, components, embeddings)
    ranges = by_component("layers", layers, names)
    chosen = {name: parse_layers(written, target.layers) for name, written in ranges.items()}
    _check_fits(target, source, names)
    made: dict[str, torch.Tensor] = {}
    origins = []
    for name in target.shapes:
        slot = target.slots.get(name)
        origin, value = _stays(target, name, slot, "no-rule"), None
        if slot is not None and slot.component in ("embeddings", "head"):
            origin, value = _embedding(target, source, name, slot, embeddings, seed)
        elif slot is not None and slot.component not in names:
            origin = _stays(target, name, slot, "not-carried")
        elif slot is not None:
            within = chosen.get(slot.component)
            if within is not None and slot.component != "positions" and slot.layer not in within:
                origin = _stays(target, name, slot, "outside-layers")
            else:
                origin, value = _grafted(target, source, name, slot)
        if value is not None:
            made[name] = value
        origins.append(origin)
    if not made:
        raise OptionError(f"components: nothing would be carried: {target.label} has no {' or '.join(names)} there")
    require_writable(target.label, dict(module.named_parameters()), made)
    _tell(target, source, parse_components(components), embeddings, origins)
    with torch.no_grad():
        for name, value in made.items():
            module.get_parameter(name).copy_(value)
    return origins


def _carried(target: TakenApart, components: Sequence[str], embeddings: str) -> tuple[str, ...]:
    """The components to carry, without optional ones that the module does not have."""
    names = parse_components(components)
    for name in ("head", "embeddings"):
        if name in names:
            alias = next((each for each in target.tied if name == "head"), None)
            tied = f": {alias} is tied to {target.tied[alias]}" if alias else ""
            raise OptionError(
                f'components: set the start of the {name} with embeddings="copy" (or scale, mean, sample){tied}'
            )
    there = {slot.component for slot in target.slots.values()}
    if rest := tuple(name for name in names if name in there or name not in engine.OPTIONAL):
        names = rest
    if missing := [name for name in names if name not in there]:
        raise OptionError(
            f"components: the mapping {target.mapping.name} matches no {missing[0]} in {target.label}; it matches "
            f"{', '.join(sorted(there))}"
        )
    if not names and embeddings == "fresh":
        raise OptionError("components: nothing would be carried over; name at least one component")
    return names


def _check_fits(target: TakenApart, source: TakenApart, names: Sequence[str]) -> None:
    if source.layers != target.layers and any(name != "positions" for name in names):
        raise ModelError(
            f"{source.label}: has {source.layers} layers but {target.label} has {target.layers}: "
            "weights cannot be carried over"
        )
    if "attention" not in names:
        return
    ours, theirs = target.heads, source.heads
    tensor = next((name for name, slot in target.slots.items() if "query" in slot.rule.parts), None)
    if tensor is None:
        return  # without parts, attention tensors are carried by name and need no heads
    if ours is None or theirs is None:
        unknown = target if ours is None else source
        raise ModelError(
            f"{unknown.label}: the number of heads is unknown, but attention ({tensor}) needs it; "
            "give ModelMapping(heads=...): a number or the attribute that has it"
        )
    for what in ("query", "groups", "size"):
        if getattr(ours, what) != getattr(theirs, what):
            label = {"query": "{} heads", "groups": "{} key-value heads", "size": "heads of {} rows"}[what]
            raise ModelError(
                f"{source.label}: has {label.format(getattr(theirs, what))}, {target.label} "
                f"{label.format(getattr(ours, what))} ({tensor}): weights cannot be carried over"
            )
    layouts = {source.mapping.rotary, target.mapping.rotary} - {None}
    if len(layouts) > 1 and not (source.rotates_whole and target.rotates_whole):
        raise ModelError(
            f"{source.label}: rotates only some rows of each head, which {target.label} ({tensor}) does not support: "
            "weights cannot be carried over"
        )


def _stays(target: TakenApart, name: str, slot: Slot | None, why: str) -> Origin:
    provenance = Provenance(slot.component if slot else "other", "fresh", why=why)
    return Origin(name, target.shapes[name], slot.layer if slot else None, provenance)


def _grafted(target: TakenApart, source: TakenApart, name: str, slot: Slot) -> tuple[Origin, torch.Tensor]:
    given = []
    for key in slot.keys:
        if (slot.layer, key) not in source.where:
            place = f"layer {slot.layer}" if slot.layer is not None else "model"
            raise ModelError(f"{source.label}: its {place} has no {key}, which {name} of {target.label} needs")
        given.append(DonorTensor(source.label, source.where[slot.layer, key][0]))
    value = join([source.part(slot.layer, key) for key in slot.keys], slot.rule, target.heads, target.mapping.rotary)
    shape, kind, positions = target.shapes[name], "carried", None
    if slot.component == "positions" and value.shape[1:] == shape[1:] and len(value) != shape[0]:
        kind, positions = ("cut" if len(value) > shape[0] else "extended"), (len(value), shape[0])
        value = resize_positions(value, shape[0], 0)
    _check_shape(target, source, name, slot, value)
    provenance = Provenance(slot.component, kind, donors=(source.label,), positions=positions)
    return Origin(name, shape, slot.layer, provenance, tuple(dict.fromkeys(given))), value


def _check_shape(target: TakenApart, source: TakenApart, name: str, slot: Slot, value: torch.Tensor) -> None:
    if tuple(value.shape) != target.shapes[name]:
        theirs = source.where[slot.layer, slot.keys[0]][0]
        raise ModelError(
            f"{source.label}: tensor {theirs} gives shape {tuple(value.shape)}, but {name} of {target.label} has "
            f"{target.shapes[name]}: weights cannot be carried over"
        )


def _embedding(
    target: TakenApart, source: TakenApart, name: str, slot: Slot, way: str, seed: int
) -> tuple[Origin, torch.Tensor | None]:
    """Start a tensor with a row per token, or a bias over the vocabulary."""
    import torch

    if way == "fresh":
        return _stays(target, name, slot, "drawn-by-default"), None
    key = slot.keys[0]
    if (slot.layer, key) not in source.where and key == "head.weight":
        key = "tokens.weight"  # the head of a tied donor is its token embedding
    found = source.where.get((slot.layer, key))
    if found is None or (len(target.shapes[name]) == 1 and way != "copy"):
        return _stays(target, name, slot, "vocabulary-bias" if len(target.shapes[name]) == 1 else "as-started"), None
    theirs, shape = source.part(slot.layer, key), target.shapes[name]
    current = target.read(name)
    if way == "copy":
        tokens = _tokens_copied(target, source, name, found[0])
        theirs = theirs[:tokens]
        if theirs.shape[1:] == shape[1:]:
            theirs = torch.cat([theirs, current[tokens:]])  # padding rows do not change
    if way != "scale" and theirs.shape[1:] != shape[1:]:
        _check_shape(target, source, name, slot, theirs)
    value = embedding_rows(way, shape[0], theirs, lambda: current, seeded(seed, "embeddings"))
    provenance = Provenance(slot.component, way, donors=(source.label,))
    return Origin(name, shape, slot.layer, provenance, (DonorTensor(source.label, found[0]),)), value


def _tokens_copied(target: TakenApart, source: TakenApart, name: str, theirs: str) -> int:
    """The number of rows to copy: all, or the vocabulary without padding. Raises ModelError."""
    rows, given = target.shapes[name][0], source.shapes[theirs][0]
    if rows == given and source.vocabulary == target.vocabulary:
        return rows
    tokens = source.vocabulary or given
    wanted = target.vocabulary or rows
    step = target.mapping.padded_to
    is_padded = target.vocabulary is None and step is not None and rows == -(-tokens // step) * step
    if tokens == wanted or is_padded:
        return tokens
    raise ModelError(
        f"{source.label}: {theirs} has {tokens} tokens, {name} of {target.label} {wanted}: rows cannot be copied; "
        "use embeddings fresh, scale, mean or sample"
    )


def _tell(
    target: TakenApart, source: TakenApart, names: Sequence[str], embeddings: str, origins: Sequence[Origin]
) -> None:
    """Show notices about padding, parts that are not carried, and different kinds of positions."""
    for origin in origins:
        if origin.source == "copy":
            tokens, rows = _tokens_copied(target, source, origin.tensor, origin.given[0].tensor), origin.shape[0]
            if tokens < rows:
                last = f"rows {tokens} to {rows - 1} of {origin.tensor}"
                notice(f"{target.label}: {last} are padding and do not change")
    wanted = {(slot.layer, key) for slot in target.slots.values() for key in slot.keys}
    moved = (*names, "embeddings", "head") if embeddings == "copy" else names
    for component in moved:
        left = [
            name
            for name, slot in source.slots.items()
            if slot.component == component and not any((slot.layer, key) in wanted for key in slot.keys)
        ]
        if left:
            notice(Leftover(source.label, component, tuple(left)).words())
    if "attention" in names and (target.mapping.rotary is None) != (source.mapping.rotary is None):
        with_rotary, without = (target, source) if target.mapping.rotary else (source, target)
        notice(
            f"{with_rotary.label} has rotary positions but {without.label} does not: "
            "the same attention weights give different results"
        )
