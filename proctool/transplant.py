"""Move exactly the weights you mean from a donor into a target, and say what moved, what did not, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proctool import config
from proctool.errors import ModelError, OptionError
from proctool.models.components import COMPONENTS, components

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from proctool.models.saved import SavedModel

BODY = ("attention", "mlp", "norms")
"""What the paper carries into language pretraining (section 3)."""

EMBEDDINGS = ("fresh", "scale", "mean", "sample", "copy")
"""Starts for the token embeddings (and an untied head):

fresh   as the target drew them
scale   as the target drew them, times one number, so that their standard deviation is the donor's
mean    every row the mean of the donor's rows (the paper's "full transfer", section 4)
sample  each row one of the donor's rows, drawn from the seed
copy    the donor's own rows, which asks for the same vocabulary size
"""


@dataclass(frozen=True)
class Origin:
    """Where one tensor of the target comes from."""

    tensor: str
    shape: tuple[int, ...]
    component: str
    layer: int | None
    source: str
    """"fresh", or what was done with the donor's tensor: "carried", "scale", "mean", "sample", "cut", "extended"."""
    reason: str


def parse_components(names: Sequence[str]) -> tuple[str, ...]:
    """Component names in the standard order; "none" alone is none.

    Raises OptionError on an unknown or repeated name.
    """
    if tuple(names) == ("none",):
        return ()
    for name in names:
        if name not in COMPONENTS:
            raise OptionError(f'components: "{name}" is not a component{config.suggestion(name, COMPONENTS)}')
    if len(set(names)) != len(names):
        raise OptionError(f"components: {', '.join(names)}: the same component is named twice")
    return tuple(name for name in COMPONENTS if name in names)


def transplant(
    target: PreTrainedModel,
    donor: SavedModel,
    carried: Sequence[str] = BODY,
    *,
    embeddings: str = "fresh",
    seed: int = 0,
) -> list[Origin]:
    """Carry the components `carried` of `donor` into `target`, in place, and start its embeddings as asked.

    `positions` among `carried` moves the position embeddings: in full, cut to the target's context, or into its
    first rows where it is longer. Returns the origin of every tensor, in the model's order.
    Raises ModelError when families, widths or depths differ, or the donor holds a value that is not finite;
    OptionError when nothing would be carried. The target is changed only after everything was checked.
    """
    import torch

    carried = parse_components(carried)
    if embeddings not in EMBEDDINGS:
        raise OptionError(f'embeddings: "{embeddings}"{config.suggestion(embeddings, EMBEDDINGS)}')
    if not carried and embeddings == "fresh":
        raise OptionError("components: nothing would be carried over; name at least one component")
    if {"embeddings", "head"} & set(carried):
        raise OptionError("components: token embeddings move by --embeddings copy (or scale, mean, sample)")
    if donor.config.model_type != target.config.model_type:
        raise ModelError(f"{donor.path}: a {donor.config.model_type} model; the target is {target.config.model_type}")
    places = components(target)
    weights = donor.weights()
    _check_same_body(target, donor, weights, [name for name, place in places.items() if place.component in BODY])
    parameters = dict(target.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    origins, changes = [], {}
    for name, place in places.items():
        made, source, reason = _start(
            place.component, parameters[name], weights.get(name), carried, embeddings, generator, donor
        )
        if made is not None:
            if not torch.isfinite(made).all():
                raise ModelError(f"{donor.path}: tensor {name} holds values that are not finite; nothing was carried")
            changes[name] = made
        origins.append(Origin(name, tuple(parameters[name].shape), place.component, place.layer, source, reason))
    with torch.no_grad():
        for name, made in changes.items():
            parameters[name].copy_(made)
    return origins


def _start(
    component: str,
    fresh: torch.Tensor,
    given: torch.Tensor | None,
    carried: Sequence[str],
    embeddings: str,
    generator: torch.Generator,
    donor: SavedModel,
) -> tuple[torch.Tensor | None, str, str]:
    """(new value or None, source, reason) for one tensor."""
    import torch

    if component in ("embeddings", "head"):
        if embeddings == "fresh" or given is None:
            return None, "fresh", "other vocabulary; fresh by --embeddings"
        if given.dim() == 1 and embeddings != "copy":
            return None, "fresh", "a bias over the vocabulary"
        if embeddings == "copy":
            if given.shape != fresh.shape:
                raise ModelError(
                    f"{donor.path}: vocabulary of {given.shape[0]}, the target has {fresh.shape[0]}: rows cannot be "
                    "copied; use --embeddings fresh, scale, mean or sample"
                )
            return given, "copy", "the donor's rows"
        rows = fresh.shape[0]
        if embeddings == "scale":
            return fresh.detach() * (given.std() / fresh.detach().std()), "scale", "fresh, with the donor's deviation"
        if embeddings == "mean":
            return given.mean(0, keepdim=True).expand(rows, -1), "mean", "every row the mean of the donor's"
        chosen = torch.randint(given.shape[0], (rows,), generator=generator)
        return given[chosen], "sample", "rows drawn from the donor's"
    if component not in carried:
        return None, "fresh", f"{component} not among the carried components"
    if given is None:
        raise ModelError(f"{donor.path}: has no {component} to carry")
    if component == "positions" and given.shape != fresh.shape:
        if given.shape[1:] != fresh.shape[1:]:
            raise ModelError(
                f"{donor.path}: position embeddings of width {given.shape[1]}, the target {fresh.shape[1]}"
            )
        common = min(len(given), len(fresh))
        made = fresh.detach().clone()
        made[:common] = given[:common]
        if len(given) > len(fresh):
            return made, "cut", f"the donor's first {common} of {len(given)} positions"
        return made, "extended", f"the donor's {common} positions, then {len(fresh) - common} fresh ones"
    return given, "carried", f"from {donor.path.name}"


def _check_same_body(
    target: PreTrainedModel, donor: SavedModel, weights: Mapping[str, torch.Tensor], names: Sequence[str]
) -> None:
    for label, key in (("layers", "num_hidden_layers"), ("width", "hidden_size"), ("heads", "num_attention_heads")):
        ours, theirs = getattr(target.config, key, None), getattr(donor.config, key, None)
        if ours != theirs:
            raise ModelError(f"{donor.path}: has {theirs} {label}, the target {ours}: weights cannot be carried over")
    parameters = dict(target.named_parameters())
    for name in names:
        if name not in weights:
            raise ModelError(f"{donor.path}: has no tensor {name}, which the target needs")
        if weights[name].shape != parameters[name].shape:
            raise ModelError(
                f"{donor.path}: tensor {name} has shape {tuple(weights[name].shape)}, "
                f"the target {tuple(parameters[name].shape)}: weights cannot be carried over"
            )


def summary(origins: Sequence[Origin]) -> list[dict[str, object]]:
    """One row per component and way: tensors, parameters, source, reason; in the model's order of components."""
    rows: dict[tuple[str, str, str], dict[str, object]] = {}
    for origin in origins:
        key = (origin.component, origin.source, origin.reason)
        row = rows.setdefault(
            key,
            {
                "component": origin.component,
                "source": origin.source,
                "reason": origin.reason,
                "tensors": 0,
                "parameters": 0,
            },
        )
        size = 1
        for extent in origin.shape:
            size *= extent
        row["tensors"] = int(str(row["tensors"])) + 1
        row["parameters"] = int(str(row["parameters"])) + size
    return sorted(rows.values(), key=lambda row: COMPONENTS.index(str(row["component"])))
