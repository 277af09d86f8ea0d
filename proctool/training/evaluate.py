"""Loss and accuracy on a fixed set of held-out samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from proctool.training.loss import Batch, TargetLoss
from proctool.training.sources import Source

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Scores:
    """Means over a held-out set."""

    loss: float
    """Nats per target token."""
    accuracy: float
    """Share of target tokens that have the highest logit."""
    exact_match: float
    """Share of samples with every target token right."""
    targets: int
    """Target tokens scored."""


def evaluate(accelerator: Accelerator, module: TargetLoss, source: Source, samples: int, batch: int) -> Scores:
    """Score the first `samples` samples of `source`, `batch` at a time, shared out over the processes."""
    module.eval()
    totals = torch.zeros(4, dtype=torch.float64, device=accelerator.device)
    share = range(accelerator.process_index * batch, samples, accelerator.num_processes * batch)
    with torch.no_grad(), accelerator.autocast():
        for start in share:
            read = source.read(start, min(start + batch, samples))
            part = Batch.of(read, accelerator.device)
            losses, right = module.scores(part.tokens, part.positions, part.labels)
            row = part.positions // read.tokens.shape[1]
            wrong = torch.zeros(len(read), device=accelerator.device).index_add_(0, row, (~right).float())
            totals += torch.stack(
                [
                    losses.double().sum(),
                    right.double().sum(),
                    (wrong == 0).double().sum(),
                    part.labels.new_tensor(len(right)).double(),
                ]
            )
    module.train()
    loss, right_count, whole, targets = accelerator.reduce(totals).tolist()
    return Scores(loss / targets, right_count / targets, whole / samples, int(targets))
