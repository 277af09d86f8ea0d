"""How far a model's weights are from those of other models, such as its fresh start or its warmed donor.

relative   Frobenius norm of the difference over that of the other's weights
cosine     cosine similarity, with all weights of the part as one vector
spectral   largest singular value of the difference over the other's, as the mean over the part's matrices
kept       only with `fresh` among the others: the share of the change fresh -> other that the model still has,
           <model - fresh, other - fresh> / |other - fresh|^2; 1: all of it, 0: nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError, OptionError
from proctool.paths import user_path

if TYPE_CHECKING:
    from torch import Tensor

    from proctool.models.components import Place
    from proctool.models.saved import SavedModel

FRESH = "fresh"


@dataclass(frozen=True)
class Other:
    """Weights to measure from."""

    weights: Mapping[str, Tensor]
    content: str | None


@dataclass(frozen=True)
class Distances:
    """Rows by part of the model, and the tensors that could not be compared."""

    rows: Sequence[dict[str, Any]] = ()
    tensors: Sequence[dict[str, Any]] = ()
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """For each other model, the tensors that it lacks or has in another shape."""

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {"distances": list(self.rows), "tensors": list(self.tensors), "not_compared": self.left_out}


def open_against(saved: SavedModel, names: Sequence[str], seed: int) -> dict[str, Other]:
    """Weights by their name in results: "fresh", or a file's stem. Raises ArtifactError, OptionError."""
    from proctool.models.build import build_model
    from proctool.models.saved import open_model

    others: dict[str, Other] = {}
    for name in names:
        if name == FRESH:
            fresh = build_model(saved.config, int(saved.metadata.get("seed", seed)))
            label, other = FRESH, Other(dict(fresh.named_parameters()), None)
        else:
            found = open_model(user_path(name))
            label = Path(name).stem
            other = Other(found.weights(), found.content)
        if label in others:
            raise OptionError(f"against: two models have the name {label}; rename one of the files")
        others[label] = other
    return others


def compare_weights(saved: SavedModel, others: Mapping[str, Other]) -> Distances:
    """Distances per layer and component, and per tensor. Raises ModelError if nothing can be compared."""
    import torch

    from proctool.models.build import outline
    from proctool.models.components import anatomy

    if not others:
        return Distances()
    places = anatomy(outline(saved.config)).parameters
    own = {name: tensor for name, tensor in saved.weights().items() if name in places}
    fresh = others.get(FRESH)
    rows, tensors, left_out = [], [], {}
    with torch.no_grad():
        for label, other in others.items():
            shared = [name for name in own if name in other.weights and other.weights[name].shape == own[name].shape]
            left_out[label] = sorted(own.keys() - set(shared))
            if not any(places[name].layer is not None for name in shared):
                raise ModelError(
                    f"{saved.path}: no layer of {label} has weights of the same names and shapes; "
                    "compare models of one architecture"
                )
            groups: dict[Place, list[str]] = {}
            for name in shared:
                groups.setdefault(places[name], []).append(name)
            for place in sorted(groups, key=lambda each: (each.layer is None, each.layer or 0, each.component)):
                names = groups[place]
                row = {"against": label, "layer": place.layer, "component": place.component}
                rows.append({**row, **_distance(names, own, other, fresh if label != FRESH else None)})
                tensors += [{"against": label, "tensor": name, **_distance([name], own, other, None)} for name in names]
    return Distances(rows, tensors, left_out)


def _distance(
    names: Sequence[str], own: Mapping[str, Tensor], other: Other, fresh: Other | None
) -> dict[str, float | None]:
    import torch

    a = torch.cat([own[name].reshape(-1).double() for name in names])
    b = torch.cat([other.weights[name].reshape(-1).double() for name in names])
    spectral = [
        _over(_largest(own[name] - other.weights[name]), _largest(other.weights[name]))
        for name in names
        if own[name].dim() == 2
    ]
    known = [value for value in spectral if value is not None]
    found = {
        "relative": _over(float((a - b).norm()), float(b.norm())),
        "cosine": _over(float(a @ b), float(a.norm() * b.norm())),
        "spectral": sum(known) / len(known) if known else None,
    }
    if fresh is not None and all(
        name in fresh.weights and fresh.weights[name].shape == own[name].shape for name in names
    ):
        start = torch.cat([fresh.weights[name].reshape(-1).double() for name in names])
        way = b - start
        found["kept"] = _over(float((a - start) @ way), float(way @ way))
    return found


def _over(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator > 0 else None


def _largest(matrix: Tensor) -> float:
    """The largest singular value."""
    import torch

    return float(torch.linalg.matrix_norm(matrix.double(), 2))
