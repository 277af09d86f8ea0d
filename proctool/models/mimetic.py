"""Mimetic initialisation: fresh attention whose weight products look like those of trained models.

For each head, W_Q W_K^T is close to a multiple of the identity. For all heads together, W_V W_O is close to a negative
multiple. Noise of the same size is added to both. A singular value decomposition gives the weights; each head keeps the
largest singular values. Source: Mimetic Initialization of Self-Attention Layers (arXiv 2305.09828). The multiples are
those of public implementations for vision transformers; they were not compared with the paper's text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from proctool.models.heads import KEY, OUTPUT, QUERY, VALUE, HeadRows, head_map

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

QK = (0.4, 0.4)
"""Factors of the noise and of the identity in W_Q W_K^T of a head."""
VO = (0.7, -0.7)
"""The same factors in W_V W_O of all heads together."""
_STREAM = 2305_09828
"""Makes these draws independent of the model's other draws, which have the same seed."""


def make_mimetic(model: PreTrainedModel, seed: int) -> None:
    """Set the attention weights of the model in place. Biases do not change.

    Heads that share a key and a value have different queries, each fitted to a different matrix. If a head has more
    rows than the model's width, the remaining rows do not change. Raises ModelError for an unknown head layout.
    """
    import torch

    known, tensors = head_map(model), dict(model.named_parameters())
    random = np.random.default_rng((_STREAM, seed))
    with torch.no_grad():
        for layer in known.layers:
            here = {name: rows for name, rows in known.rows.items() if rows.layer == layer and tensors[name].ndim == 2}
            places = {
                (role, owner): (tensors[name].movedim(rows.axis, 0), _rows(rows, role, owner))
                for name, rows in here.items()
                for role, owner in {*zip(rows.role.tolist(), rows.owner.tolist(), strict=True)}
            }
            width = places[QUERY, 0][0].shape[1]
            for key in range(known.heads // known.group):
                wanted = _near_identity(random, width, *QK)
                _, sizes, right = torch.linalg.svd(wanted)
                factor = sizes.sqrt()[:, None] * right  # (width, width), largest singular value first
                _put(places[KEY, key], factor)
                for member in range(known.group):
                    wanted = wanted if member == 0 else _near_identity(random, width, *QK)
                    _put(places[QUERY, key * known.group + member], (wanted @ right.T / sizes.sqrt()).T)
            left, sizes, right = torch.linalg.svd(_near_identity(random, width, *VO))
            values, outputs = (left * sizes.sqrt()).T, sizes.sqrt()[:, None] * right
            size = len(places[VALUE, 0][1])
            for key in range(known.heads // known.group):
                part = slice(key * size, (key + 1) * size)
                _put(places[VALUE, key], values[part])
                for member in range(known.group):
                    _put(places[OUTPUT, key * known.group + member], outputs[part] / known.group)


def _rows(rows: HeadRows, role: int, owner: int) -> NDArray[np.int64]:
    return np.flatnonzero((rows.role == role) & (rows.owner == owner))


def _near_identity(random: np.random.Generator, width: int, noise: float, identity: float) -> torch.Tensor:
    """noise * Z + identity * I, where Z is Gaussian with variance 1 / width. (width, width)"""
    import torch

    drawn = random.standard_normal((width, width), np.float32) / width**0.5
    return torch.from_numpy(noise * drawn + identity * np.eye(width, dtype=np.float32))


def _put(place: tuple[torch.Tensor, NDArray[np.int64]], value: torch.Tensor) -> None:
    """Copy the first rows of `value` to a head's rows, as many as both have."""
    tensor, rows = place
    count = min(len(rows), len(value))
    tensor[rows[:count]] = value[:count].to(tensor)
