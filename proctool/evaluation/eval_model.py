"""A saved model under evaluation, with its tokenizer, and what a result records of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.artifact import versions
from proctool.corpora.subwords import load_tokenizer
from proctool.corpora.tokenizer_files import Beginning
from proctool.corpora.tokenizers import Tokenizer
from proctool.errors import ModelError
from proctool.models.build import context_of
from proctool.models.saved import SavedModel, open_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class EvalModel:
    """A model on disk and the tokenizer that makes its ids."""

    saved: SavedModel
    tokenizer: Tokenizer
    beginning: Beginning
    """What its texts are read after: as its own tokenizer begins them, or end-of-text where proctool trained it."""

    @property
    def context(self) -> int | None:
        """The longest sequence the model takes, where it has a limit."""
        return context_of(self.saved.config)

    def model(self) -> PreTrainedModel:
        """The model on the device at hand, in float32, not training."""
        from proctool.training.devices import start_process

        return self.saved.model().eval().to(start_process().device)

    def metadata(self) -> dict[str, Any]:
        """What a result records: the model by file, content and seed of its training, the tokenizer, the versions."""
        return {
            "model": str(self.saved.repository or self.saved.path),
            "content": self.saved.content,
            **self.saved.oddities(),
            "model_seed": self.saved.metadata.get("seed"),
            "tokenizer": self.tokenizer.spec,
            "tokenizer_sha256": self.tokenizer.fingerprint,
            "texts_begin": list(self.beginning.first),
            "versions": versions(),
        }


def open_subject(path: Path, tokenizer: str | None, end_of_text: str | None = None) -> EvalModel:
    """A model and its own tokenizer, or the one named. Raises ArtifactError, CorpusError, ModelError."""
    saved = open_model(path)
    found = load_tokenizer(tokenizer, end_of_text) if tokenizer else saved.tokenizer(end_of_text)
    if found is None:
        raise ModelError(
            f"{path}: has no tokenizer, so it cannot read text; name the one it was trained with by --tokenizer, "
            "or pretrain it on a corpus first"
        )
    found.require_fit(saved.config.vocab_size, str(path))
    begin = found.beginning(saved.config.model_type) if saved.begins_as_tokenizer else Beginning((), (found.eos_id,))
    if max(begin.first) >= saved.config.vocab_size:
        raise ModelError(
            f"{path}: its tokenizer begins a text with token {max(begin.first)}, but the model's vocabulary has "
            f"{saved.config.vocab_size} tokens; take that token out of tokenizer_config.json"
        )
    return EvalModel(saved, found, begin)
