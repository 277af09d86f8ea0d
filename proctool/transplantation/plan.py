"""Deciding where every tensor of the target comes from, before anything is read or written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.errors import ModelError, OptionError
from proctool.models.components import COMPONENTS, Anatomy, Place, anatomy
from proctool.models.heads import HeadMap, head_map
from proctool.transplantation.donors import Donor
from proctool.transplantation.fresh import seeded
from proctool.transplantation.head_choice import Head, head_names
from proctool.transplantation.layers import donor_layer
from proctool.transplantation.origin import DonorTensor, Origin, Provenance
from proctool.transplantation.sharpen import Factors, sharpened
from proctool.transplantation.treatments import (
    EMBEDDINGS,
    Treatment,
    embedding_rows,
    resize_positions,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

# Settings that must be equal for a component's weights to fit: (in words, in the configuration, for which components).
_SHAPE = (
    ("width", "hidden_size", COMPONENTS),
    ("heads", "num_attention_heads", ("attention",)),
    ("key-value heads", "num_key_value_heads", ("attention",)),
)
# Settings that change what the same weights compute; users get a note if one differs.
_FUNCTION = (
    "hidden_act", "activation_function", "hidden_activation", "rope_parameters", "layer_norm_epsilon",
    "layer_norm_eps", "rms_norm_eps", "sliding_window", "num_experts_per_tok", "attn_logit_softcapping",
)  # fmt: skip


@dataclass(frozen=True)
class Graft:
    """One component from its donor, or from the average of several."""

    component: str
    donors: tuple[Donor, ...]
    layers: frozenset[int] | None = None
    """Only these layers of the target. None: all, and tensors outside the layers (the last norm) too."""
    treatment: Treatment = field(default_factory=Treatment)
    heads: frozenset[Head] | None = None
    """For attention, only these heads; tensors that all heads of a layer share are not changed. None: everything."""
    factors: Factors | None = None
    """For attention, the factors of the queries, if the treatment sharpens it."""


@dataclass(frozen=True)
class Target:
    """The model to fill."""

    config: Any
    anatomy: Anatomy
    shapes: dict[str, tuple[int, ...]]
    fresh: Callable[[str], torch.Tensor]
    start: Callable[[str], torch.Tensor]
    """A tensor's value before the transplant: fresh, or the base model's."""
    base: Donor | None
    seed: int
    head_map: Callable[[], HeadMap]
    """The head of each row of attention. Raises ModelError."""

    @property
    def places(self) -> dict[str, Place]:
        """Every saved tensor: parameters in the model's order, then buffers."""
        return self.anatomy.parameters | self.anatomy.buffers


def target_of(
    model: PreTrainedModel, fresh: Callable[[str], torch.Tensor], seed: int, base: Donor | None = None
) -> Target:
    """`model` (may be on the meta device) as a target. Raises ModelError for a family with unknown modules."""
    parts = anatomy(model)
    tensors: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: tuple(tensors[name].shape) for name in (*parts.parameters, *parts.buffers)}
    return Target(
        model.config,
        parts,
        shapes,
        fresh,
        base.read if base else fresh,
        base,
        seed,
        functools.cache(lambda: head_map(model)),
    )


@dataclass(frozen=True)
class Step:
    """One tensor's origin and the function that makes it; `make` is None if it is not changed."""

    origin: Origin
    make: Callable[[], torch.Tensor] | None
    same: tuple[Donor, str] | None = None
    """The tensor that it copies without a change, so that `make` is not needed."""


def plan(
    target: Target,
    grafts: Sequence[Graft],
    embeddings: str | None = None,
    embeddings_from: Donor | None = None,
    depth_map: str | None = None,
) -> list[Step]:
    """A step for every tensor of `target`, in the model's order. Shapes are compared, no weights are read.

    `embeddings` is one of `EMBEDDINGS`, or None to leave them unchanged. Raises OptionError if nothing would be carried
    or if a component has no tensors in the target, and ModelError with the tensor's name if a donor's family or
    shapes do not fit.
    """
    if embeddings is not None and embeddings not in EMBEDDINGS:
        raise OptionError(f'embeddings: "{embeddings}"{config.suggestion(embeddings, EMBEDDINGS)}')
    starts = embeddings if embeddings_from is not None else None
    if not grafts and starts in (None, "fresh"):
        raise OptionError("components: nothing would be carried over; give at least one component")
    by_component: dict[str, Graft] = {}
    for graft in grafts:
        if graft.component in ("embeddings", "head"):
            raise OptionError("components: use --embeddings copy (or scale, mean, sample) for token embeddings")
        by_component[graft.component] = graft
        for donor in graft.donors:
            _check_fits(target, donor, graft.component, depth_map)
    if embeddings_from is not None:
        _check_family(target, embeddings_from)
    steps = []
    for name, place in target.places.items():
        if place.component in ("embeddings", "head"):
            steps.append(_embedding(target, name, place, embeddings, embeddings_from))
        elif place.component in by_component:
            steps.append(_grafted(target, name, place, by_component[place.component], depth_map))
        else:
            steps.append(_start(target, name, place, "not-carried"))
    for component in by_component:
        if not any(step.make and step.origin.component == component for step in steps):
            raise OptionError(
                f"{component}: the {target.config.model_type} target has no {component} to carry in the chosen layers; "
                "leave it out"
            )
    return steps


def differences(target: Target, donors: Sequence[Donor]) -> list[str]:
    """A note for each setting of a donor that differs from the target and changes what the same weights compute."""
    said = []
    for donor in donors:
        for name in _FUNCTION:
            ours, theirs = getattr(target.config, name, None), getattr(donor.config, name, None)
            if ours != theirs:
                said.append(f"{donor}: was trained with {name} = {theirs}, but the target has {ours}")
    return said


def _check_family(target: Target, donor: Donor) -> None:
    ours, theirs = target.config.model_type, donor.config.model_type
    if ours != theirs:
        raise ModelError(f"{donor.saved.path}: is a {theirs} model, but the target is {ours}; use one family for both")


def _check_fits(target: Target, donor: Donor, component: str, depth_map: str | None) -> None:
    _check_family(target, donor)
    path, depth = donor.saved.path, target.anatomy.layers
    if donor.depth != depth and depth_map is None and component != "positions":
        raise ModelError(
            f"{path}: has {donor.depth} layers, but the target has {depth}; use the same number of layers, or match "
            "them with `proctool transplant --depth-map repeat`"
        )
    for label, key, which in _SHAPE:
        ours, theirs = getattr(target.config, key, None), getattr(donor.config, key, None)
        if ours != theirs and component in which:
            raise ModelError(f"{path}: has {theirs} {label}, but the target has {ours}; use models of equal {label}")


def _start(target: Target, name: str, place: Place, why: str, donors: tuple[str, ...] = ()) -> Step:
    base = target.base
    source, given = ("base", (DonorTensor(str(base), name),)) if base else ("fresh", ())
    provenance = Provenance(place.component, source, donors=donors, why=why)
    origin = Origin(name, target.shapes[name], place.layer, provenance, given)
    return Step(origin, None, (base, name) if base else None)


def _grafted(target: Target, name: str, place: Place, graft: Graft, depth_map: str | None) -> Step:
    shape, parts = target.shapes[name], target.anatomy
    rows_of = target.head_map().rows.get(name) if graft.heads is not None or graft.factors is not None else None
    part = None
    if graft.layers is not None and place.component != "positions" and place.layer not in graft.layers:
        return _start(target, name, place, "outside-layers")
    if graft.heads is not None:
        mine = frozenset(head for layer, head in graft.heads if layer == place.layer)
        if rows_of is None or not mine:
            return _start(target, name, place, "shared-by-heads" if mine else "outside-heads")
        part = rows_of.of(mine, target.head_map().group)
    sources: list[tuple[Donor, str]] = []
    for donor in graft.donors:
        theirs = name
        if place.layer is not None:
            layer = donor_layer(depth_map, place.layer, parts.layers, donor.depth)
            if layer is None:
                return _start(target, name, place, "past-donor", (str(donor),))
            theirs = parts.in_layer(name, layer)
        if theirs not in donor.shapes:
            raise ModelError(f"{donor.saved.path}: has no tensor {theirs}, which the target needs; use another donor")
        sources.append((donor, theirs))
    altered = len(sources) > 1 or graft.treatment != Treatment() or part is not None
    source = "altered" if altered else "carried"
    is_mapped = place.layer is not None and any(donor.depth != parts.layers for donor in graft.donors)
    positions: tuple[int, int] | None = None
    rows = None
    for donor, theirs in sources:
        found = donor.shapes[theirs]
        if found == shape:
            continue
        if place.component != "positions" or found[1:] != shape[1:]:
            raise ModelError(
                f"{donor.saved.path}: tensor {theirs} has shape {found}, but the target needs {shape}; "
                "use models of equal shape"
            )
        rows, offset = shape[0], parts.position_offset
        source = "cut" if found[0] > rows else "extended"
        positions = found[0] - offset, rows - offset

    def make() -> torch.Tensor:
        import torch

        given = [donor.read(theirs) for donor, theirs in sources]
        if rows is not None:
            given = [resize_positions(each, rows, parts.position_offset) for each in given]
        start, fresh = functools.partial(target.start, name), functools.partial(target.fresh, name)
        sharpen = None
        if graft.factors is not None and rows_of is not None and place.layer is not None:
            sharpen = functools.partial(sharpened, rows=rows_of, factors=graft.factors(place.layer), part=part)
        random = seeded(target.seed, f"treatment/{name}")
        if part is None or rows_of is None:
            return graft.treatment.apply(given, start, fresh, random, sharpen)
        whole = start().clone()
        # Treatments see only the rows of these heads, so that a shuffle does not mix in others.
        own = functools.partial(rows_along, axis=rows_of.axis, part=part)
        treated = graft.treatment.apply(
            [own(each) for each in given], lambda: own(start()), lambda: own(fresh()), random, sharpen
        )
        whole.movedim(rows_of.axis, 0)[torch.from_numpy(part)] = treated
        return whole

    provenance = Provenance(
        place.component,
        source,
        donors=tuple(str(donor) for donor, _ in sources),
        treatment=graft.treatment,
        depth_map=depth_map if is_mapped else None,
        heads=head_names(graft.heads) if graft.heads is not None else (),
        positions=positions,
    )
    given = tuple(DonorTensor(str(donor), theirs) for donor, theirs in sources)
    return Step(Origin(name, shape, place.layer, provenance, given), make, sources[0] if source == "carried" else None)


def rows_along(value: torch.Tensor, axis: int, part: NDArray[np.bool_]) -> torch.Tensor:
    """The rows `part` of a tensor along `axis`, which becomes the first axis."""
    import torch

    return value.movedim(axis, 0)[torch.from_numpy(part)]


def _embedding(target: Target, name: str, place: Place, way: str | None, donor: Donor | None) -> Step:
    """The step of the token embedding, of an untied head, or of a bias over the vocabulary."""
    start = _start(target, name, place, "drawn-by-default")
    shape = target.shapes[name]
    if way is None:
        return _start(target, name, place, "as-started") if target.base else start
    if way == "fresh" or donor is None:
        if target.base is None:
            return start
        drawn = Provenance(place.component, "fresh", why="drawn-anew")
        return Step(Origin(name, shape, place.layer, drawn), lambda: target.fresh(name))
    theirs = name
    if theirs not in donor.shapes and len(shape) == 2:
        # A tied donor's head is its token embedding.
        theirs = next(each for each, where in target.places.items() if where.component == "embeddings")
    if theirs not in donor.shapes or (len(shape) == 1 and way != "copy"):
        return _start(target, name, place, "vocabulary-bias")
    found = donor.shapes[theirs]
    if way == "copy" and found[0] != shape[0]:
        raise ModelError(
            f"{donor.saved.path}: has a vocabulary of {found[0]}, but the target has {shape[0]}, so rows cannot be "
            "copied; use --embeddings fresh, scale, mean or sample"
        )
    if way != "scale" and found[1:] != shape[1:]:
        raise ModelError(
            f"{donor.saved.path}: tensor {theirs} has shape {found}, but the target needs {shape}; "
            "use --embeddings scale or fresh"
        )

    def make() -> torch.Tensor:
        random = seeded(target.seed, "embeddings")  # the same rows for the embedding and an untied head
        return embedding_rows(way, shape[0], donor.read(theirs), lambda: target.fresh(name), random)

    provenance = Provenance(place.component, way, donors=(str(donor),))
    origin = Origin(name, shape, place.layer, provenance, (DonorTensor(str(donor), theirs),))
    return Step(origin, make, (donor, theirs) if way == "copy" else None)
