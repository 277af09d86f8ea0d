"""Loss and accuracy on a fixed set of validation samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from proctool.events import Evaluation
from proctool.loss_parts import LossParts
from proctool.procedural.samples import Samples
from proctool.training.batch import Batch, by_length
from proctool.training.engine import is_sharded
from proctool.training.loss import TargetLoss
from proctool.training.loss_sums import LossSums
from proctool.training.sources import Source

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Scores:
    """Means over a validation set."""

    loss: float
    """Nats per target token."""
    accuracy: float
    """Share of target tokens that have the highest logit."""
    exact_match: float
    """Share of samples in which every target token is right."""
    targets: int
    """Target tokens scored."""

    def measures(self) -> dict[str, float | None]:
        """Loss, accuracy and exact match for JSON, which cannot express a loss that is not finite; it becomes None."""
        loss = self.loss if math.isfinite(self.loss) else None
        return {"loss": loss, "accuracy": self.accuracy, "exact_match": self.exact_match}

    def at(self, step: int, tokens: int) -> Evaluation:
        """The scores as an evaluation of a run at `step`."""
        return Evaluation(
            step=step, tokens=tokens, loss=self.loss, accuracy=self.accuracy, exact_match=self.exact_match
        )


def evaluate(accelerator: Accelerator, module: TargetLoss, source: Source, samples: int, batch: int) -> Scores:
    """Score the first `samples` samples of `source`, divided over the processes, at most `batch` at a time."""
    totals = torch.zeros(4, dtype=torch.float64, device=accelerator.device)

    def take(read: Samples, part: Batch, losses: Tensor, right: Tensor) -> None:
        totals.add_(sums(part, losses, right))

    _score(accelerator, module, source, samples, batch, take)
    return means(accelerator.reduce(totals), samples)


def evaluate_parts(accelerator: Accelerator, module: TargetLoss, source: Source, samples: int, batch: int) -> LossParts:
    """The loss by position in the row and by repetition, on the samples of `evaluate`. It takes as long as that."""
    totals = LossSums(source.length)

    def take(read: Samples, part: Batch, losses: Tensor, right: Tensor) -> None:
        targets = read.targets.copy()
        targets[:, 0] = False
        totals.add(read.tokens, targets, losses.double().cpu().numpy())

    _score(accelerator, module, source, samples, batch, take)
    found = torch.from_numpy(totals.values).to(accelerator.device)
    totals.values = accelerator.reduce(found).cpu().numpy()
    return totals.parts()


def _score(
    accelerator: Accelerator,
    module: TargetLoss,
    source: Source,
    samples: int,
    batch: int,
    take: Callable[[Samples, Batch, Tensor, Tensor], None],
) -> None:
    """Call `take` with each part of this process: samples, batch, and per target the loss (T,) and if right (T,)."""
    module.eval()
    with torch.no_grad(), accelerator.autocast():
        for read, counts in _mine(accelerator, source, samples, batch, together=is_sharded(module)):
            part = Batch.of(read, accelerator.device)
            losses, right = module.scores(part.tokens, part.positions, part.labels)
            if counts:
                take(read, part, losses, right)
    module.train()


def sums(batch: Batch, losses: Tensor, right: Tensor) -> Tensor:
    """Sums over a batch: loss, right targets, samples with all targets right, targets. (T,), (T,) -> (4,) float64"""
    row = batch.positions // batch.tokens.shape[1]
    wrong = torch.zeros(len(batch.tokens), device=losses.device).index_add_(0, row, (~right).float())
    return torch.stack(
        [
            losses.double().sum(),
            right.double().sum(),
            (wrong == 0).double().sum(),
            batch.labels.new_tensor(len(right)).double(),
        ]
    )


def means(totals: Tensor, samples: int) -> Scores:
    """The scores of `samples` samples, from the total of their `sums`."""
    loss, right, whole, targets = totals.tolist()
    return Scores(loss / targets, right / targets, whole / samples, int(targets))


def _mine(
    accelerator: Accelerator, source: Source, samples: int, batch: int, together: bool
) -> Iterator[tuple[Samples, bool]]:
    """Yield this process's parts of the validation samples, and whether each part counts.

    All processes must run a sharded model equally often (`together`). A process without samples left repeats one, which
    does not count.
    """
    for first in range(0, samples, accelerator.num_processes * batch):
        start = first + accelerator.process_index * batch
        if start < samples:
            read = source.read(start, min(start + batch, samples))
            for part in [read] if together else by_length(read):
                yield part, True
        elif together:
            yield source.read(0, 1), False
