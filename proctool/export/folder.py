"""A model as a Hugging Face folder: weights, configuration, generation settings, tokenizer and model card.

A model that came with its tokenizer is exported with the same tokenizer, byte for byte. So is a model trained by
proctool, if the tokenizer begins and ends texts as in training: with end-of-text and nothing else. `model_max_length`
is added if the tokenizer's files do not have it, but never to a tokenizer_config.json that came with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.artifact import require_free, staged
from proctool.corpora.subwords import SubwordTokenizer
from proctool.corpora.tokenizer_files import SETTINGS, TokenizerFiles, added_by, beginning_of
from proctool.errors import ArtifactError
from proctool.export.card import write_card
from proctool.export.dtypes import Dtype, cast, torch_dtype
from proctool.export.front_matter import NOTHING, Stated
from proctool.models.build import context_of
from proctool.untrusted import parse_json

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

    from proctool.corpora.tokenizers import Tokenizer
    from proctool.models.saved import SavedModel

_FIRST = ("do_sample", "num_beams", "return_dict_in_generate", "use_cache")
"""Generation settings that other settings require."""
_METADATA = ("transformers_version", "_from_model_config")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_OF_THE_MODEL = {"use_cache", "output_attentions", "output_hidden_states", "return_dict_in_generate", *_METADATA}
"""Generation settings that are properties of the model in its configuration."""


@dataclass(frozen=True)
class Exported:
    """Remarks about an exported folder."""

    left_out: tuple[str, ...] = ()
    """Generation settings of the model that transformers refuses to save."""
    begins_with: str | None = None
    """The end-of-text token, if the tokenizer was changed to begin texts with it."""
    unsaid_length: int | None = None
    """The model's context in tokens, if tokenizer_config.json came without it and is unchanged."""


def export(saved: SavedModel, folder: Path, dtype: Dtype = "fp32", stated: Stated = NOTHING) -> Exported:
    """Write a Hugging Face folder (config, safetensors, generation config, tokenizer, model card) atomically.

    Raises ArtifactError if `folder` exists and is not empty, or its parent is missing; ModelError, CorpusError if the
    model or its tokenizer cannot be loaded; ModelError if a weight is too large for `dtype`.
    """
    folder = Path(folder)
    tokenizer = require_exportable(saved, folder)
    with staged(folder) as unfinished:
        model, written = saved.model(), None
        if tokenizer is not None:
            written = written_tokenizer(saved, tokenizer)
            written.files.write(unfinished) if written.files else written.hf.save_pretrained(unfinished)
        left_out = _settle(model, saved, written)
        if dtype != "fp32":
            _convert(model, dtype)
        model.save_pretrained(unfinished)
        write_card(unfinished, folder.absolute().name, saved, model, tokenizer, stated)
    if written is None:
        return Exported(left_out)
    unsaid = written.files is not None and not written.files.says_length()
    return Exported(left_out, written.begins_with, context_of(saved.config) if unsaid else None)


def require_exportable(saved: SavedModel, folder: Path) -> Tokenizer | None:
    """The model's tokenizer, after the checks of `export` that need no weights."""
    require_free(folder)
    tokenizer = saved.tokenizer()
    if tokenizer is not None:
        tokenizer.require_fit(saved.config.vocab_size, str(saved.path))
    return tokenizer


def _convert(model: PreTrainedModel, dtype: Dtype) -> None:
    """Convert parameters to `dtype` and record it in the configuration; buffers (rotary tables) are unchanged."""
    for name, parameter in model.named_parameters():
        parameter.data = cast(name, parameter.data, dtype)
    model.config.dtype = torch_dtype(dtype)


@dataclass(frozen=True)
class WrittenTokenizer:
    """A model's tokenizer in its exported folder."""

    hf: Any
    """The tokenizer as AutoTokenizer loads it."""
    files: TokenizerFiles | None = None
    """The tokenizer's files, if they are written unchanged."""
    begins_with: str | None = None
    """As in `Exported`."""


def written_tokenizer(saved: SavedModel, tokenizer: Tokenizer) -> WrittenTokenizer:
    """The tokenizer to write with a model: unchanged if it begins and ends texts as in the model's training."""
    files = tokenizer.files if isinstance(tokenizer, SubwordTokenizer) else None
    anew = tokenizer.to_hf(context_of(saved.config))
    if files is None:
        return WrittenTokenizer(anew)
    hf = files.in_transformers(saved.config.model_type)
    ends_alike = hf.eos_token_id == tokenizer.eos_id
    if saved.begins_as_tokenizer:
        length = context_of(saved.config)
        if not ends_alike:
            hf.eos_token = tokenizer.eos_token
            if length is not None and not files.says_length():
                hf.model_max_length = length
            return WrittenTokenizer(hf)
        return WrittenTokenizer(hf, files if SETTINGS in files.contents else files.with_length(length))
    begins_alike = added_by(hf) == ((), ()) and beginning_of(hf, tokenizer.eos_id).first == (tokenizer.eos_id,)
    if begins_alike and ends_alike:
        return WrittenTokenizer(hf, files.with_length(context_of(saved.config)))
    return WrittenTokenizer(anew, begins_with=None if begins_alike else tokenizer.eos_token)


def _settle(model: PreTrainedModel, saved: SavedModel, written: WrittenTokenizer | None) -> tuple[str, ...]:
    """Make configuration, generation settings and tokenizer agree; return the dropped generation settings."""
    config = model.config
    generation, left_out = saveable(_generation_of(saved))
    for name in _IDS:
        for settings in (config, generation):
            came = getattr(settings, name, None)
            if came is None and settings is generation:
                came = getattr(config, name, None)
                setattr(generation, name, came)
            ids = came if isinstance(came, list) else [came]
            known = getattr(written.hf, name) if written else None
            if known is not None and known < config.vocab_size and known not in ids:
                setattr(settings, name, known)
            elif came is not None and not all(isinstance(one, int) and 0 <= one < config.vocab_size for one in ids):
                setattr(settings, name, None)
    if written is not None and saved.artifact is not None:
        generation.do_sample = False
        if generation.pad_token_id is None:
            generation.pad_token_id = written.hf.eos_token_id
    model.generation_config = generation
    return left_out


def _generation_of(saved: SavedModel) -> dict[str, Any]:
    """The generation settings in a folder (older folders have them in config.json); none for an artifact."""
    from transformers import GenerationConfig

    if saved.artifact is not None:
        return {}
    path = saved.path / "generation_config.json"
    names = GenerationConfig().to_dict().keys() - _OF_THE_MODEL - set(_IDS) if not path.is_file() else None
    try:
        values = parse_json((path if names is None else saved.path / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: damaged ({error})") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{path}: not a JSON object")
    return {name: value for name, value in values.items() if names is None or name in names}


def saveable(asked: Mapping[str, Any]) -> tuple[GenerationConfig, tuple[str, ...]]:
    """The generation settings that transformers agrees to save, and the names of the others."""
    from transformers import GenerationConfig

    def accepted(values: Mapping[str, Any]) -> GenerationConfig | None:
        try:
            made = GenerationConfig(**values)
            made.validate(strict=True)
        except Exception:  # its checks raise different errors
            return None
        return made

    asked = {name: value for name, value in asked.items() if name not in _METADATA}
    if (whole := accepted(asked)) is not None:
        return whole, ()
    kept: dict[str, Any] = {}
    for name in sorted(asked, key=lambda name: name not in _FIRST):
        if accepted({**kept, name: asked[name]}) is not None:
            kept[name] = asked[name]
    return GenerationConfig(**kept), tuple(sorted(asked.keys() - kept.keys()))
