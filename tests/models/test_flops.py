"""The count of floating-point operations, against counts made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from proctool.models.build import config_of, model_config, outline
from proctool.models.flops import active_parameters, training_flops
from tests.models.tiny import EACH_FAMILY, tiny


def _of(family: str, **values: Any) -> Any:
    return outline(config_of(family, {"pad_token_id": None, **values}))


def test_gpt2_small() -> None:
    model = outline(model_config("gpt2", vocab_size=50_257, context=1024))
    matrices = 12 * 12 * 768**2  # a layer: 3 and 1 in attention, 4 and 4 in the MLP
    head = 50_257 * 768  # tied: a look-up at the entrance, a product at the exit; positions are a look-up
    assert active_parameters(model) == matrices + head == 123_532_032
    per_token = 6 * (matrices + head) + 12 * 12 * 768 * 1024
    assert training_flops(model, 1000, 1024) == 1000 * per_token == 854_438_400_000


def test_llama_with_fewer_keys_than_queries() -> None:
    model = _of(
        "llama", vocab_size=32_000, hidden_size=64, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2,
        intermediate_size=160, tie_word_embeddings=False, max_position_embeddings=128,
    )  # fmt: skip
    layer = 2 * 64 * 64 + 2 * 64 * 16 + 3 * 64 * 160  # queries and output; keys and values; gate, up, down
    assert active_parameters(model) == 3 * layer + 32_000 * 64
    # Every query head meets every position, however many heads share its keys.
    assert training_flops(model, 1, 128) - 6 * active_parameters(model) == 3 * 12 * 64 * 128


def test_of_experts_the_chosen_ones_count() -> None:
    shape = {
        "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 48, "max_position_embeddings": 16,
    }  # fmt: skip
    for chosen in (1, 2, 8):
        model = _of("mixtral", num_local_experts=8, num_experts_per_tok=chosen, **shape)
        layer = 4 * 32 * 32 + 8 * 32 + chosen * 3 * 32 * 48  # attention, router, experts
        assert active_parameters(model) == 2 * layer + 100 * 32


def test_a_window_bounds_attention() -> None:
    shape = {
        "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64,
    }  # fmt: skip
    whole, windowed = (_of("mistral", sliding_window=size, **shape) for size in (None, 8))
    assert training_flops(whole, 1, 64) - training_flops(windowed, 1, 64) == 2 * 12 * 16 * (64 - 8)
    assert training_flops(whole, 1, 8) == training_flops(windowed, 1, 8)


def test_attention_of_a_hybrid_is_that_of_its_attention_layers() -> None:
    model = tiny("lfm2")  # one layer of two attends
    assert training_flops(model, 1, 12) - 6 * active_parameters(model) == 12 * 16 * 12


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_every_family_has_a_count_that_grows_with_tokens_and_length(family: str) -> None:
    model = tiny(family)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total / 4 < active_parameters(model) <= total + model.get_input_embeddings().weight.numel()
    assert training_flops(model, 20, 12) == 2 * training_flops(model, 10, 12)
    assert training_flops(model, 10, 12) >= training_flops(model, 10, 6)


def test_a_family_whose_parts_are_unknown_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from proctool.errors import ModelError
    from proctool.models import components

    model = tiny("gpt2")
    known = training_flops(model, 5, 12)

    def refuse(_: Any) -> Any:
        raise ModelError("unknown parts")

    monkeypatch.setattr(components, "components", refuse)
    assert training_flops(model, 5, 12) == known
