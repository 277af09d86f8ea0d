"""Any transformers causal language model from a shape or a configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import config as strict
from proctool.errors import ModelError, notice
from proctool.internals.of_transformers import language_model_families
from proctool.models.shapes import Shape, parse_model, start_of, written_sizes
from proctool.untrusted import parse_json, require_shallow
from proctool.untrusted.models import require_memory, require_sane

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_MOST_BYTES = 1 << 20
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "embedding_dropout")


def model_config(
    spec: str,
    *,
    vocab_size: int,
    context: int,
    family: str = "gpt2",
    dropout: float = 0.0,
    eos_id: int | None = None,
    padded: bool = True,
    init_std: float | None = None,
    tie: bool | None = None,
) -> PretrainedConfig:
    """The configuration of `spec` (see `parse_model`) for a vocabulary and a context (in tokens).

    A configuration file gives its own family and shape; `family` applies to shapes and presets. If `padded`, a larger
    vocabulary of the file stays as padding. A `Notice` names other settings that are not used. For a folder with
    weights, the weights decide whether the head is tied. `init_std` (standard deviation of fresh weights) and `tie`
    (the head shares the token embedding) replace those of the configuration, or of `start_of` a shape. Raises
    ModelError, ArtifactError.
    """
    found = parse_model(spec)
    values: dict[str, Any]
    if (start := start_of(spec)) is not None:
        init_std = start.init_std if init_std is None else init_std
        tie = start.tied if tie is None else tie
    if isinstance(found, Path):
        values = read_config(found)
        family = values.pop("model_type")
        vocab_size = _vocabulary(found, values.get("vocab_size"), vocab_size, padded)
        positions = written_sizes(spec).context
        if positions not in (None, context):
            notice(
                f"{found}: max_position_embeddings is {positions}, but the model uses {context}, the length of its "
                "samples"
            )
        if tie is None and _has_own_head(Path(spec), family, values):
            tie = False
    else:
        values = _family_values(found, family)
    values |= {"vocab_size": vocab_size, "bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": None}
    values["n_positions" if family == "gpt2" else "max_position_embeddings"] = context
    made = config_of(family, values)
    set_dropout(made, dropout)
    if init_std is not None:
        set_init_std(made, init_std)
    return made if tie is None else with_head(made, tied=tie)


def _vocabulary(path: Path, written: Any, needed: int, padded: bool) -> int:
    """Embedding rows of a model whose configuration file has `written` rows and whose data has `needed` tokens."""
    if written in (None, needed):
        return needed
    if not padded:
        notice(f"{path}: vocab_size is {written}, but the model uses {needed}, the vocabulary of its data")
        return needed
    if written < needed:
        raise ModelError(
            f"{path}: vocab_size is {written} but the tokenizer has {needed} tokens; "
            f"set vocab_size to {needed} or leave it out"
        )
    notice(f"{path}: vocab_size is {written} and the tokenizer has {needed} tokens; the model keeps {written} rows")
    return int(written)


def _has_own_head(folder: Path, family: str, values: Mapping[str, Any]) -> bool:
    """Whether a folder's weights have a separate head although its configuration ties it to the embeddings."""
    from proctool.models.fit import own_head
    from proctool.models.folder import has_weights, read_folder

    if not folder.is_dir() or not has_weights(folder):
        return False
    weights = read_folder(folder)
    config = config_of(family, values)
    return bool(own_head(config, weights.tensors, lambda name: weights.hashes[name], weights.read, str(folder)))


def with_head(config: PretrainedConfig, *, tied: bool) -> PretrainedConfig:
    """A copy of `config` with a head that shares the token embedding, or has its own tensor."""
    made = copy.deepcopy(config)
    for each in (made, made.get_text_config()):
        each.tie_word_embeddings = tied
    return made


_INIT_STDS = ("initializer_range", "init_std")
"""Names of the standard deviation of fresh weights in transformers' families."""


def set_init_std(config: PretrainedConfig, init_std: float) -> None:
    """Set the standard deviation of fresh weights. Raises ModelError for a family without such a setting."""
    text = config.get_text_config()
    for name in _INIT_STDS:
        if hasattr(text, name):
            setattr(text, name, init_std)
            return
    raise ModelError(
        f"{config.model_type}: has no setting for the standard deviation of fresh weights; leave out init_std"
    )


def set_dropout(config: PretrainedConfig, dropout: float) -> None:
    """Set every dropout rate of the family."""
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, dropout)


def _family_values(shape: Shape, family: str) -> dict[str, Any]:
    if family == "gpt2":
        return {"n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.width}
    return {
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "head_dim": shape.width // shape.heads,
    }


def read_config(path: Path) -> dict[str, Any]:
    """A transformers config.json as a mapping. Raises ModelError if it is not one, or if it needs remote code."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        values = parse_json(path.read_bytes())
        require_shallow(values, 50)
    except ValueError:
        raise ModelError(f"{path}: not valid JSON; give a transformers config.json") from None
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise ModelError(f"{path}: not a transformers configuration: it has no model_type; add it")
    try:
        _require_known(values["model_type"])
        require_sane(values["model_type"], values)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    for noise in ("transformers_version", "_name_or_path", "architectures"):
        values.pop(noise, None)
    return values


def config_of(family: str, values: Mapping[str, Any]) -> PretrainedConfig:
    """The transformers configuration class of `family` filled with `values`. Raises ModelError."""
    from transformers import AutoConfig

    _require_known(family)
    require_sane(family, values)
    try:
        return AutoConfig.for_model(family, **_with_infinities(values))
    except Exception as error:  # checks in transformers raise many kinds of errors
        raise ModelError(f"{family}: transformers rejects this configuration: {error}") from None


def _require_known(family: str) -> None:
    families = language_model_families()
    if family not in families:
        known = strict.suggestion(family, families)
        raise ModelError(f'"{family}" is not a causal language model family in transformers{known}')


def _with_infinities(value: Any) -> Any:
    """Decode numbers that JSON cannot express; transformers writes them as {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {key: _with_infinities(each) for key, each in value.items()}
    return [_with_infinities(each) for each in value] if isinstance(value, list) else value


def build_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A model in float32 with weights initialised from `seed`. The caller's random state does not change."""
    import torch
    from transformers import AutoModelForCausalLM

    require_memory(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ModelError(f"{config.model_type}: cannot build this configuration: {error}") from None


def with_rows(config: PretrainedConfig, rows: int) -> PretrainedConfig:
    """A copy of `config` with `rows` rows of embeddings."""
    made = copy.deepcopy(config)
    for each in (made, made.get_text_config()):
        each.vocab_size = rows
    return made


def build_grown(config: PretrainedConfig, seed: int, *, rows: int) -> PreTrainedModel:
    """As `build_model`, but embedding rows beyond `rows` are drawn last.

    All other weights then equal those of a model without these rows, so arms with and without them start alike.
    """
    import torch

    if config.get_text_config().vocab_size == rows:
        return build_model(config, seed)
    model = build_model(with_rows(config, rows), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.resize_token_embeddings(config.get_text_config().vocab_size, mean_resizing=False)
    return model


def outline(
    config: PretrainedConfig, build: Callable[[PretrainedConfig, int], PreTrainedModel] | None = None
) -> PreTrainedModel:
    """The causal model of `config`, or what `build` makes of it and a seed, on torch's meta device: without memory for
    its weights. Raises ModelError."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            if build is not None:
                return build(config, 0)
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{config.model_type}: cannot build this configuration: {error}") from None


def context_of(config: PretrainedConfig) -> int | None:
    """The longest sequence that the model accepts; None if its configuration has no limit."""
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if found else None


def require_context(config: PretrainedConfig, tokens: int, what: str, advice: str = "") -> None:
    """Raise ModelError unless the model accepts a sequence of `tokens` tokens; `what` names it in the message."""
    limit = context_of(config)
    if limit is not None and tokens > limit:
        advice = advice or "use shorter samples, or a model with a longer context"
        raise ModelError(f"{what} of {tokens} tokens does not fit the model's context of {limit} tokens; {advice}")


def parameter_count(model: PreTrainedModel) -> int:
    """The number of distinct parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())
