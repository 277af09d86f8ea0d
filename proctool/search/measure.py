"""What a search measures besides its trials: the corpus's rows, the speed of the small models, the last losses."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proctool.errors import CorpusError
from proctool.models.shapes import Shape
from proctool.procedural.samples import Samples
from proctool.search.options import SearchOptions
from proctool.search.space import rate_at, target_of

if TYPE_CHECKING:
    from proctool.training.sources import CorpusSource, Source

EVAL_SAMPLES = 256
"""Most validation rows that choose, and as many that measure the winner."""
MOST_PASSES = 4
"""Most passes over the corpus in a trial: up to 4 are nearly as good as new text (Muennighoff et al., "Scaling
Data-Constrained Language Models", 2023, arXiv:2305.16264, section 5)."""


@dataclass(frozen=True)
class Text:
    """The corpus as rows."""

    train: CorpusSource
    validation: CorpusSource

    @property
    def eval_samples(self) -> int:
        """Validation rows that choose; the next as many measure the winner."""
        return min(EVAL_SAMPLES, self.validation.size // 2)

    def most_steps(self, batch_size: int) -> int:
        """Steps of at most MOST_PASSES passes."""
        return MOST_PASSES * self.train.size // batch_size


def open_text(options: SearchOptions, progress: Callable[..., None] | None = None) -> Text:
    """The corpus's rows; its token store is built if it is missing. Raises CorpusError where it is too small."""
    from proctool.corpora.catalog import open_corpus
    from proctool.corpora.store import open_store
    from proctool.corpora.subwords import load_tokenizer
    from proctool.training.sources import CorpusSource

    tokenizer = load_tokenizer(options.tokenizer, options.end_of_text)
    corpus = open_corpus(options.corpus, text_field=options.text_field, cache_dir=options.cache_dir)
    store = open_store(corpus, tokenizer, options.context, cache_dir=options.cache_dir, progress=progress)
    train, validation = (
        CorpusSource(store.split(split), tokenizer.vocab_size, 0, {}) for split in ("train", "validation")
    )
    if validation.size < 2:
        raise CorpusError(
            f"corpus {options.corpus}: its validation split has 1 row of {options.context} tokens, but a search needs "
            "2, one to choose and one to measure; give more text, or lower --context"
        )
    return Text(train, validation)


class _Later:
    """A source without its first samples."""

    def __init__(self, source: Source, first: int) -> None:
        self.source, self.first = source, first
        self.vocab_size, self.length = source.vocab_size, source.length

    def read(self, start: int, stop: int) -> Samples:
        """Samples start..stop - 1, counted from the first one that is not left out."""
        return self.source.read(self.first + start, self.first + stop)

    def metadata(self) -> dict[str, object]:
        """That of the source."""
        return self.source.metadata()


def last_loss(model: Path, text: Text, batch_size: int) -> float:
    """The loss of a saved model on validation rows that chose nothing, in nats per token."""
    import torch

    from proctool.models.saved import open_model
    from proctool.training.in_memory import score

    module = open_model(model).model()
    if (device := torch.accelerator.current_accelerator()) is not None and torch.accelerator.is_available():
        module.to(device)
    return score(module, _Later(text.validation, text.eval_samples), text.eval_samples, batch_size).loss


def seconds_per_step(options: SearchOptions, shape: Shape, text: Text) -> float:
    """Seconds of a pretraining step of a small model on this machine, measured on a few steps."""
    import torch

    from proctool.events import Event, TrainEvent
    from proctool.models.build import build_model, model_config
    from proctool.training.in_memory import train
    from proctool.training.options import TrainingOptions

    config = model_config(
        str(shape), vocab_size=text.train.vocab_size, context=options.context, family=target_of(options)[1]
    )
    module = build_model(config, 0)
    if (device := torch.accelerator.current_accelerator()) is not None and torch.accelerator.is_available():
        module.to(device)
    ends: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, TrainEvent):
            ends.append(time.monotonic())

    asked = TrainingOptions(
        steps=5, batch_size=options.batch_size, lr=rate_at(3e-3, shape.width), log_every=1, schedule="constant"
    )
    train(module, text.train, asked, listen)
    return min(after - before for before, after in itertools.pairwise(ends))
