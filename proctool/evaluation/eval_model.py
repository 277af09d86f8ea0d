"""A saved model under evaluation with its tokenizer, and the metadata that results record."""

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
    """A model on disk and its tokenizer."""

    saved: SavedModel
    tokenizer: Tokenizer
    beginning: Beginning
    """The tokens before every text: those that its own tokenizer adds, or end-of-text if proctool trained it."""

    @property
    def context(self) -> int | None:
        """The longest sequence that the model accepts; None without a limit."""
        return context_of(self.saved.config)

    def model(self) -> PreTrainedModel:
        """The model in float32 on this process's device, in evaluation mode."""
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
            f"{path}: the model has no tokenizer and cannot read text; give the tokenizer it was trained with "
            "(--tokenizer), or pretrain the model on a corpus first"
        )
    found.require_fit(saved.config.vocab_size, str(path))
    begin = found.beginning(saved.config.model_type) if saved.begins_as_tokenizer else Beginning((), (found.eos_id,))
    if max(begin.first) >= saved.config.vocab_size:
        raise ModelError(
            f"{path}: the tokenizer starts texts with token {max(begin.first)}, but the model's vocabulary has only "
            f"{saved.config.vocab_size} tokens; remove that token from tokenizer_config.json"
        )
    return EvalModel(saved, found, begin)
