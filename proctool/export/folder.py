"""A model as a Hugging Face folder: weights, configuration, generation settings, tokenizer and model card.

A model that came with its tokenizer gives it back byte for byte. So does a model that proctool trained, where the
tokenizer begins and ends texts as training did: with end-of-text, and nothing added. `model_max_length` is added where
the tokenizer's files do not say it, unless the model came with a tokenizer_config.json: that file is the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.corpora.subwords import SubwordTokenizer
from proctool.corpora.tokenizer_files import SETTINGS, TokenizerFiles, added_by, beginning_of
from proctool.errors import ArtifactError
from proctool.export.card import write_card
from proctool.export.front_matter import NOTHING, Stated
from proctool.export.staging import Dtype, cast, require_free, staged, torch_dtype
from proctool.models.build import context_of
from proctool.untrusted import parse_json

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

    from proctool.corpora.tokenizers import Tokenizer
    from proctool.models.saved import SavedModel

_FIRST = ("do_sample", "num_beams", "return_dict_in_generate", "use_cache")
"""Generation settings that others need beside them."""
_METADATA = ("transformers_version", "_from_model_config")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_OF_THE_MODEL = {"use_cache", "output_attentions", "output_hidden_states", "return_dict_in_generate", *_METADATA}
"""What configurations say of a model under the names of generation settings."""


@dataclass(frozen=True)
class Exported:
    """What is worth saying of an exported folder."""

    left_out: tuple[str, ...] = ()
    """Generation settings that came with the model and that transformers refuses to save."""
    begins_with: str | None = None
    """The end-of-text token, where the tokenizer that came begins texts otherwise and was changed."""
    unsaid_length: int | None = None
    """The tokens that the model reads, where tokenizer_config.json came without them and stays as it came."""


def export(saved: SavedModel, folder: Path, dtype: Dtype = "fp32", stated: Stated = NOTHING) -> Exported:
    """Write a Hugging Face folder (config, safetensors, generation config, tokenizer, model card), all or nothing.

    Raises ArtifactError when `folder` exists and is not empty, or its parent is missing; ModelError, CorpusError when
    the model or its tokenizer cannot be loaded; ModelError where a weight is too large for `dtype`.
    """
    folder = Path(folder)
    require_free(folder)
    tokenizer = saved.tokenizer()
    if tokenizer is not None:
        tokenizer.require_fit(saved.config.vocab_size, str(saved.path))
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


def _convert(model: PreTrainedModel, dtype: Dtype) -> None:
    """Parameters in `dtype`, the configuration saying so; buffers, such as rotary tables, stay as they are."""
    for name, parameter in model.named_parameters():
        parameter.data = cast(name, parameter.data, dtype)
    model.config.dtype = torch_dtype(dtype)


@dataclass(frozen=True)
class WrittenTokenizer:
    """A model's tokenizer as its exported folder holds it."""

    hf: Any
    """What AutoTokenizer makes of it."""
    files: TokenizerFiles | None = None
    """The files that it came in, where they are written as they are."""
    begins_with: str | None = None
    """See Exported."""


def written_tokenizer(saved: SavedModel, tokenizer: Tokenizer) -> WrittenTokenizer:
    """The tokenizer to write beside a model: as it came wherever that begins and ends texts as the model knows them."""
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
    """Make configuration, generation settings and tokenizer agree; the generation settings that had to go."""
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
    """The generation settings in a folder, which older ones have in config.json; none for an artifact."""
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
    """Generation settings as far as transformers agrees to save them, and the names of those that it does not."""
    from transformers import GenerationConfig

    def accepted(values: Mapping[str, Any]) -> GenerationConfig | None:
        try:
            made = GenerationConfig(**values)
            made.validate(strict=True)
        except Exception:  # whatever its checks run into
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
