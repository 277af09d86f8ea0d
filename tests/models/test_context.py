"""One check, in one sentence, that samples fit a model's context."""

from __future__ import annotations

import pytest
from transformers import GPT2Config, Mamba2Config

from proctool.errors import ModelError
from proctool.models.build import require_context


def test_samples_fit_up_to_the_context() -> None:
    config = GPT2Config(n_positions=8)
    require_context(config, 8, "a sample")
    with pytest.raises(
        ModelError, match=r"^a sample of 9 tokens does not fit the model's context of 8 tokens; use sho"
    ):
        require_context(config, 9, "a sample")
    with pytest.raises(ModelError, match=r"^x: a window of 9 tokens .*; lower --context$"):
        require_context(config, 9, "x: a window", "lower --context")


def test_a_model_without_a_limit_takes_any_length() -> None:
    require_context(Mamba2Config(), 1 << 30, "a sample")
