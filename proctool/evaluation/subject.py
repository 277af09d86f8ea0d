"""A saved model under evaluation, with its tokenizer, and what a result records of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.artifact import versions
from proctool.corpora.tokenizers import Tokenizer, load_tokenizer
from proctool.errors import ModelError
from proctool.models.build import context_of
from proctool.models.saved import SavedModel, open_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Subject:
    """A model on disk and the tokenizer that makes its ids."""

    saved: SavedModel
    tokenizer: Tokenizer

    @property
    def context(self) -> int | None:
        """The longest sequence the model takes, where it has a limit."""
        return context_of(self.saved.config)

    def model(self) -> PreTrainedModel:
        """The model on the device at hand, in float32, not training."""
        from proctool.training.devices import start_process

        return self.saved.model().eval().to(start_process().device)

    def about(self) -> dict[str, Any]:
        """What a result records: the model by file, content and seed of its training, the tokenizer, the versions."""
        return {
            "model": str(self.saved.path),
            "content": self.saved.artifact.content if self.saved.artifact else None,
            "model_seed": self.saved.about.get("seed"),
            "tokenizer": self.tokenizer.spec,
            "tokenizer_sha256": self.tokenizer.fingerprint,
            "versions": versions(),
        }


def open_subject(path: Path, tokenizer: str | None) -> Subject:
    """A model and its own tokenizer, or the one named. Raises ArtifactError, CorpusError, ModelError."""
    saved = open_model(path)
    found = load_tokenizer(tokenizer) if tokenizer else saved.tokenizer()
    if found is None:
        raise ModelError(
            f"{path}: has no tokenizer, so it cannot read text; name the one it was trained with by --tokenizer, "
            "or pretrain it on a corpus first"
        )
    found.require_fit(saved.config.vocab_size, str(path))
    return Subject(saved, found)
