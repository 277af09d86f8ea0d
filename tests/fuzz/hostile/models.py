"""Model files with configurations and weights to beware of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.hostile.artifacts import sealed
from tests.fuzz.hostile.cases import CASES, Make, case
from tests.fuzz.hostile.folders import model_folder
from tests.fuzz.hostile.tiny import TINY, tiny_weights


def model_file(folder: Path, config: Any, weights: Mapping[str, Any] | None = None) -> list[str]:
    import torch

    kinds = {"torch.float32": "F32", "torch.int8": "I8", "torch.float8_e4m3fn": "F8_E4M3"}
    tensors = {
        name: (kinds[str(tensor.dtype)], list(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes())
        for name, tensor in (weights or {}).items()
    }
    path = sealed(folder / "a.safetensors", tensors, metadata={"config": config})
    return ["export", str(path), str(folder / "out")]


@case
def a_configuration_that_is_a_list(folder: Path) -> list[str]:
    return model_file(folder, [1, 2])


@case
def a_family_that_is_a_number(folder: Path) -> list[str]:
    return model_file(folder, {"model_type": 3})


@case
def weights_with_a_nan(folder: Path) -> list[str]:
    return model_file(folder, TINY, tiny_weights(float("nan")))


@case
def weights_with_an_infinity(folder: Path) -> list[str]:
    return model_file(folder, TINY, tiny_weights(float("inf")))


@case
def weights_that_are_whole_numbers(folder: Path) -> list[str]:
    import torch

    weights = tiny_weights()
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"].to(torch.int8)
    return model_file(folder, TINY, weights)


@case
def weights_in_eight_bit_floats(folder: Path) -> list[str]:
    import torch

    weights = tiny_weights()
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"].to(torch.float8_e4m3fn)
    return model_file(folder, TINY, weights)


_ABSURD: dict[str, dict[str, Any]] = {
    "a_trillion_layers": {**TINY, "n_layer": 10**12},
    "a_trillion_layers_of_llama": {"model_type": "llama", "num_hidden_layers": 10**12},
    "a_trillion_layers_of_qwen": {"model_type": "qwen2", "num_hidden_layers": 10**12},
    "layers_in_floating_point": {**TINY, "n_layer": 1e300},
    "fewer_than_no_layers": {**TINY, "n_layer": -4},
    "a_vocabulary_of_a_trillion": {**TINY, "vocab_size": 10**12},
    "a_width_of_a_billion": {**TINY, "n_embd": 10**9},
    "positions_beyond_counting": {**TINY, "n_positions": 10**15},
    "a_thousand_layers_of_a_hundred_thousand": {**TINY, "n_layer": 1000, "n_embd": 100_000, "n_head": 1000},
    "a_million_experts": {"model_type": "mixtral", "num_local_experts": 10**9},
    "layers_that_are_text": {**TINY, "n_layer": "many"},
    "code_of_its_own": {**TINY, "auto_map": {"AutoModelForCausalLM": "evil.Evil"}},
    "code_of_its_own_below": {**TINY, "text_config": {"auto_map": {"AutoConfig": "evil.Evil"}}},
    "attention_from_the_hub": {**TINY, "attn_implementation": "evil/kernel"},
    "attention_from_the_hub_in_private": {**TINY, "_attn_implementation": "evil/kernel"},
    "quantised_by_something": {**TINY, "quantization_config": {"quant_method": "gptq", "bits": 4}},
}


def _absurd_artifact(values: dict[str, Any]) -> Make:
    return lambda folder: model_file(folder, values)


def _absurd_folder(values: dict[str, Any]) -> Make:
    return lambda folder: model_folder(folder, values)


def _absurd_shape(values: dict[str, Any]) -> Make:
    def make(folder: Path) -> list[str]:
        # Sizes that the task decides are left out: lines that say so are no part of the refusal.
        named = {key: value for key, value in values.items() if key not in ("vocab_size", "n_positions")}
        (folder / "config.json").write_text(json.dumps(named))
        return ["warmup", "--task", "set:inputs=2", "--model", str(folder / "config.json"), "--steps", "1"]

    return make


for _name, _values in _ABSURD.items():
    CASES[_name] = _absurd_artifact(_values)
    CASES[f"{_name}_in_a_folder"] = _absurd_folder(_values)
    # A configuration as --model takes its vocabulary and context from the command.
    if not {"vocab_size", "n_positions"} & {key for key, value in _values.items() if TINY.get(key, value) != value}:
        CASES[f"{_name}_as_a_shape"] = _absurd_shape(_values)
