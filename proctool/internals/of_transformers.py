"""Private and undocumented parts of transformers. Tested with 5.24.

`models/attention.py` says what training relies on beyond names: who gets a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel


def attention_of(config: PretrainedConfig) -> str | None:
    """The name of the attention that a model of this configuration computes with: eager, sdpa, ..."""
    found: str | None = config._attn_implementation
    return found


def sdpa(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any) -> tuple[Tensor, None]:
    """The attention called "sdpa"."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, *more, **named)  # type: ignore[no-any-return]


def layer_classes(model: PreTrainedModel) -> Any:
    """The names of the classes of a model's layers, which FSDP wraps one by one."""
    return model._no_split_modules


def initialise(model: PreTrainedModel, module: nn.Module) -> None:
    """Run the family's initialiser on one of the model's modules."""
    model._init_weights(module)


def without_initialising() -> AbstractContextManager[None]:
    """In the block, new models keep the memory of their weights as it is."""
    from transformers.initialization import no_init_weights

    return no_init_weights()  # type: ignore[no-any-return]


def language_model_families() -> Mapping[str, Any]:
    """The families of causal language models, by `model_type`."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # type: ignore[no-any-return]


def common_names(family: str) -> dict[str, str]:
    """The usual name of a size by the family's own: {"n_layer": "num_hidden_layers", ...}."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return {own: name for name, own in getattr(CONFIG_MAPPING[family], "attribute_map", {}).items()}


def is_transposed_linear(module: nn.Module) -> bool:
    """Whether its weight is (inputs, outputs), as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def is_slow_gelu(module: nn.Module) -> bool:
    """Whether it is GPT-2's GELU written as several operations."""
    from transformers.activations import NewGELUActivation

    return isinstance(module, NewGELUActivation)
