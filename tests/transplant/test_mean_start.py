"""What a start with equal embedding rows can learn: an untied model tells its tokens apart, a tied one does not.

Tokens that are never predicted are told apart by the gradient of their input rows alone. In a tied model the same rows
are also pushed down by the head, all of them alike, and Adam divides by the larger of the two.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from proctool.errors import Notice
from proctool.models.build import build_model, model_config
from proctool.models.saved import open_model
from proctool.training.optimiser import make_optimiser
from proctool.transplantation import transplant_into
from tests.transplant.donors import save_donor

WORDS, STEPS = 16, 300


@pytest.mark.filterwarnings(f"ignore::{Notice.__module__}.{Notice.__name__}")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("tied", "start", "learns"), [(False, "mean", True), (True, "mean", False), (True, "scale", True)]
)
def test_equal_rows_come_apart_in_an_untied_model_alone(
    tmp_path: Path, tied: bool, start: str, learns: bool, seed: int
) -> None:
    right = learned_from_start(tmp_path, tied, start, seed)
    assert right >= 0.9 if learns else right <= 2 / WORDS


def learned_from_start(folder: Path, tied: bool, start: str, seed: int) -> float:
    """The share of questions 0 to 15 that get their own answers, 16 to 31, after a short training."""
    row = 0.7 * torch.randn(16, generator=torch.Generator().manual_seed(seed))
    save_donor(
        folder / "donor.safetensors", seed, model="1x2x16", vocab=2 * WORDS, context=4,
        change=lambda model: model.get_input_embeddings().weight.add_(row),
    )  # fmt: skip
    model = build_model(model_config("1x2x16", vocab_size=2 * WORDS, context=4, tie=tied), seed)
    transplant_into(model, open_model(folder / "donor.safetensors"), embeddings=start)
    optimiser = make_optimiser(model, lr=2e-3, weight_decay=1e-3, beta2=0.999)
    questions = torch.arange(WORDS)[:, None]
    answers = questions[:, 0] + WORDS
    for _ in range(STEPS):
        optimiser.zero_grad()
        cross_entropy(model(questions).logits[:, -1], answers).backward()
        optimiser.step()
    return float((model(questions).logits[:, -1].argmax(-1) == answers).float().mean())
