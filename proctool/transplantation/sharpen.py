"""Sharper attention: query weights and biases times a factor, the same for all heads or one per head.

Attention logits are linear in the query, so the factor multiplies them; a larger factor lowers the entropy of
attention. `match` finds a factor for each head, layer after layer, that gives it the donor's entropy on random tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from proctool.errors import ModelError, OptionError
from proctool.models.build import build_model, context_of
from proctool.models.heads import QUERY, HeadMap, HeadRows, eager, entropies, patterns

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from proctool.transplantation.donors import Donor
    from proctool.transplantation.plan import Step, Target

MATCH = "match"
_SAMPLES, _LENGTH = 16, 64
_LEAST, _MOST = -12.0, 16.0
"""Bounds of the factors, as powers of 2."""
_HALVINGS = 30

Factors = Callable[[int], NDArray[np.float64]]
"""The factor of each head of a layer: (heads,)."""


def sharpened(
    value: torch.Tensor, rows: HeadRows, factors: NDArray[np.float64], part: NDArray[np.bool_] | None = None
) -> torch.Tensor:
    """`value` with its query rows multiplied by their heads' factors. With `part`, `value` has only those rows."""
    import torch

    scale = np.ones(len(rows.role))
    is_query = rows.role == QUERY
    scale[is_query] = factors[rows.owner[is_query]]
    axis = rows.axis if part is None else 0
    scale = scale if part is None else scale[part]
    shape = [-1 if dimension == axis else 1 for dimension in range(value.ndim)]
    return value * torch.from_numpy(scale).to(value.dtype).view(shape)


class Sharpening:
    """The factors of a planned transplant; those that match the donor's entropy are computed on first use."""

    def __init__(self, how: float | str, target: Target, donors: Sequence[Donor]) -> None:
        self._how, self._target, self._donors = how, target, donors
        self._found: dict[int, NDArray[np.float64]] | None = None
        self.steps: Sequence[Step] = ()
        """The whole plan, to build the model that is measured."""
        if not target.head_map().free_queries:
            raise ModelError(
                f"sharpen: {target.config.model_type} models normalise queries, so a factor has no effect; "
                "leave --sharpen out"
            )
        if how == MATCH and len(donors) > 1:
            raise OptionError("sharpen: match needs exactly one donor of attention; give one donor, or a factor")

    def factors(self, layer: int) -> NDArray[np.float64]:
        """The factor of each head of a layer: (heads,). Raises ModelError, ArtifactError."""
        known = self._target.head_map()
        if self._how != MATCH:
            return np.full(known.heads, float(self._how))
        if self._found is None:
            self._found = {each: np.ones(known.heads) for each in known.layers}  # for the model that is measured
            self._found = matching_factors(self._model(), self._donors[0], known, self._target.seed)
        return self._found[layer]

    def _model(self) -> PreTrainedModel:
        import torch

        model = build_model(self._target.config, 0)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for step in self.steps:
                name = step.origin.tensor
                tensors[name].copy_(step.make() if step.make else self._target.start(name))
        return model


def matching_factors(model: PreTrainedModel, donor: Donor, known: HeadMap, seed: int) -> dict[int, NDArray[np.float64]]:
    """Factors by layer that give the heads of `model` the donor's entropies: (heads,). Changes `model`.

    A head that no factor matches gets the nearest bound.
    """
    import torch

    teacher = donor.saved.model()
    vocabulary = min(model.config.vocab_size, teacher.config.vocab_size)
    length = min(_LENGTH, *(context_of(each.config) or _LENGTH for each in (model, teacher)))
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (_SAMPLES, length), generator=draw)
    wanted = _entropies(teacher, ids)
    tensors = dict(model.named_parameters())
    found: dict[int, NDArray[np.float64]] = {}
    for index, layer in enumerate(known.layers):
        here = {name: rows for name, rows in known.rows.items() if rows.layer == layer and (rows.role == QUERY).any()}
        before = {name: tensors[name].detach().clone() for name in here}
        low, high = np.full(known.heads, _LEAST), np.full(known.heads, _MOST)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            with torch.no_grad():
                for name, rows in here.items():
                    tensors[name].copy_(sharpened(before[name], rows, 2.0**middle))
            is_flat = _entropies(model, ids)[index] > wanted[index]
            low, high = np.where(is_flat, middle, low), np.where(is_flat, high, middle)
        found[layer] = 2.0 ** ((low + high) / 2)
    return found


def _entropies(model: PreTrainedModel, ids: torch.Tensor) -> NDArray[np.float64]:
    """Mean entropy of each head, without the first position: (layers, heads)."""
    with eager(model):
        shown, _ = patterns(model, ids)
    return np.array([entropies(each)[..., 1:].mean((0, 2)).numpy() for each in shown])
