"""What a model loses without single attention heads, and without an increasing number of them.

The output of a head, before the output projection, is replaced by zeros or by its mean over all positions of the
samples. Then heads are removed one after another: lowest entropy first, highest entropy first, and in random orders as
the control. If heads with focused attention do the work, accuracy falls sooner in the first order than in the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.evaluation.finetune.metrics import spearman
from proctool.models.heads import head_count, output_projections

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from proctool.evaluation.interpret.options import InterpretOptions
    from proctool.models.head_scores import Heads
    from proctool.models.probes import Probe

Head = tuple[int, int]
"""A layer and a head."""

_BATCH = 32
_POINTS = 24
"""Maximum number of points of a curve."""


@dataclass(frozen=True)
class Without:
    """The model's scores on the samples without some heads."""

    removed: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Removal:
    """Heads removed one after another."""

    order: str
    """"lowest entropy", "highest entropy" or "random"."""
    seed: int | None
    curve: tuple[Without, ...]
    """From no heads removed to all of them."""

    @property
    def mean_accuracy(self) -> float:
        """Over the curve: low if the important heads are removed first."""
        return float(np.mean([each.accuracy for each in self.curve]))

    @property
    def mean_loss(self) -> float:
        """Over the curve."""
        return float(np.mean([each.loss for each in self.curve]))


@dataclass(frozen=True)
class Ablation:
    """The effect of removing each head, and its correlation with the head's entropy."""

    by: str
    whole: Without
    single: dict[Head, Without]
    removals: tuple[Removal, ...]
    correlation: float | None
    """Spearman's correlation over heads of entropy and rise in loss without the head; None if either is constant."""

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "by": self.by,
            "loss": self.whole.loss,
            "accuracy": self.whole.accuracy,
            "heads": [
                {"layer": layer, "head": head, "loss": each.loss, "accuracy": each.accuracy}
                for (layer, head), each in self.single.items()
            ],
            "entropy_and_rise_of_loss": self.correlation,
            "orders": [
                {
                    "order": each.order,
                    "seed": each.seed,
                    "mean_loss": each.mean_loss,
                    "mean_accuracy": each.mean_accuracy,
                    "curve": [vars(point) for point in each.curve],
                }
                for each in self.removals
            ],
        }


def ablate(model: PreTrainedModel, probe: Probe, heads: Heads, options: InterpretOptions) -> Ablation:
    """Remove heads of a model in memory, then restore it. `heads` are its scores on the same samples.

    Raises ModelError if proctool does not know the output projection of a family.
    """
    means = _mean_outputs(model, probe) if options.ablate == "mean" else {}

    def without(removed: Sequence[Head]) -> Without:
        with removing(model, removed, means):
            return Without(len(removed), *_score(model, probe))

    entropy = {
        (layer, head): float(heads.entropy[row, head])
        for row, layer in enumerate(heads.layers)
        for head in range(heads.entropy.shape[1])
    }
    single = {head: without([head]) for head in entropy}
    rising = sorted(entropy, key=lambda head: entropy[head])
    orders: list[tuple[str, int | None, list[Head]]] = [("lowest entropy", None, rising)]
    orders.append(("highest entropy", None, rising[::-1]))
    for seed in range(options.seed, options.seed + options.orders):
        drawn = np.random.default_rng(seed).permutation(len(rising))
        orders.append(("random", seed, [rising[index] for index in drawn]))
    counts = np.unique(np.linspace(0, len(rising), min(len(rising) + 1, _POINTS)).round().astype(int))
    removals = [Removal(name, seed, tuple(without(order[:count]) for count in counts)) for name, seed, order in orders]
    whole = removals[0].curve[0]
    rises = np.array([each.loss - whole.loss for each in single.values()])
    values = np.array(list(entropy.values()))
    tells = len(values) > 2 and np.ptp(values) > 0 and np.ptp(rises) > 0
    return Ablation(str(options.ablate), whole, single, tuple(removals), spearman(values, rises) if tells else None)


@contextmanager
def removing(
    model: PreTrainedModel, removed: Sequence[Head], means: dict[int, torch.Tensor] | None = None
) -> Iterator[None]:
    """Run the block with the heads `removed`: their outputs are zeros, or the given `means`.

    means  by layer: (heads * size,)
    """
    heads, hooks = head_count(model), []
    for layer, projection in output_projections(model).items():
        here = [head for at, head in removed if at == layer]
        if not here:
            continue

        def replace(
            module: Any, given: tuple[torch.Tensor, ...], layer: int = layer, here: list[int] = here
        ) -> tuple[torch.Tensor, ...]:
            joined = given[0].clone()  # (..., heads * size)
            parts = joined.view(*joined.shape[:-1], heads, -1)
            parts[..., here, :] = means[layer].view(heads, -1)[here].to(joined.dtype) if means else 0.0
            return (joined, *given[1:])

        hooks.append(projection.register_forward_pre_hook(replace))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mean_outputs(model: PreTrainedModel, probe: Probe) -> dict[int, torch.Tensor]:
    """Means of the concatenated head outputs over all positions that predictions use, by layer: (heads * size,)"""
    sums: dict[int, torch.Tensor] = {}
    count = 0
    hooks = []
    for layer, projection in output_projections(model).items():

        def note(module: Any, given: tuple[torch.Tensor, ...], layer: int = layer) -> None:
            total = given[0].detach().double().flatten(0, -2).sum(0)
            sums[layer] = sums[layer] + total if layer in sums else total

        hooks.append(projection.register_forward_pre_hook(note))
    try:
        for tokens, _ in probe.rows():
            count += len(tokens)
            _forward(model, tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: total / count for layer, total in sums.items()}


def _forward(model: PreTrainedModel, tokens: NDArray[np.int64]) -> None:
    import torch

    was_training = model.training
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.from_numpy(tokens)[None].to(model.device), use_cache=False)
    model.train(was_training)


def _score(model: PreTrainedModel, probe: Probe) -> tuple[float, float]:
    """Loss and accuracy on the targets of the samples."""
    from proctool.training.in_memory import score

    found = score(model, _Source(probe), len(probe.samples), _BATCH)
    return found.loss, found.accuracy


class _Source:
    """A probe as a source of samples."""

    def __init__(self, probe: Probe) -> None:
        self.samples, self.length = probe.samples, probe.samples.tokens.shape[1]
        self.vocab_size = int(probe.samples.tokens.max()) + 1

    def read(self, start: int, stop: int) -> Any:
        return type(self.samples)(self.samples.tokens[start:stop], self.samples.targets[start:stop])

    def metadata(self) -> dict[str, Any]:
        return {}
