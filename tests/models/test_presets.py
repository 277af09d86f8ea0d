"""Presets of published models have as many parameters as their makers' models, with their vocabularies."""

from __future__ import annotations

import pytest

from proctool.models.build import model_config, outline, parameter_count
from proctool.models.shapes import CONFIGURATIONS, PRESETS

# Parameters of the published checkpoints (model.safetensors of each repository), a tied head counted once.
PUBLISHED = {
    "gpt2": (50257, 124_439_808), "gpt2-medium": (50257, 354_823_168), "gpt2-large": (50257, 774_030_080),
    "gpt2-xl": (50257, 1_557_611_200), "smollm2-135m": (49152, 134_515_008), "smollm2-360m": (49152, 361_821_120),
    "smollm2-1.7b": (49152, 1_711_376_384), "llama-3.2-1b": (128256, 1_235_814_400),
    "llama-3.2-3b": (128256, 3_212_749_824), "qwen3-0.6b": (151936, 596_049_920), "qwen3-1.7b": (151936, 1_720_574_976),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_size(name: str) -> None:
    vocabulary, parameters = PUBLISHED[name]
    assert parameter_count(outline(model_config(name, vocab_size=vocabulary, context=1024))) == parameters


def test_every_configuration_is_held_to_a_published_size() -> None:
    assert set(CONFIGURATIONS) <= set(PUBLISHED)
    assert not set(CONFIGURATIONS) & set(PRESETS)
