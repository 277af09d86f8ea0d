"""Training a byte-level BPE tokenizer on a corpus."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from proctool.artifact import require_free, staged
from proctool.corpora.documents import TRAIN, VALIDATION, Corpus
from proctool.corpora.subwords import MOST_IDS, SubwordTokenizer
from proctool.corpora.tokenizers import END_OF_TEXT
from proctool.errors import CorpusError

SAMPLE = 1 << 30
"""Default size in bytes of the training text; more text changes the vocabulary little."""

SMALLEST_VOCABULARY = 257
"""The 256 bytes and end-of-text."""

_PIECE = 1 << 20


def require_size(vocab_size: int) -> None:
    """Raise CorpusError if no tokenizer can have a vocabulary of this size."""
    if not SMALLEST_VOCABULARY <= vocab_size <= MOST_IDS:
        raise CorpusError(
            f"vocab_size = {vocab_size}: must be at least {SMALLEST_VOCABULARY} (256 bytes and end-of-text) and at "
            f"most {MOST_IDS}"
        )


def train_bpe(
    corpus: Corpus,
    vocab_size: int,
    folder: Path,
    *,
    sample: int = SAMPLE,
    listen: Callable[[int], None] | None = None,
) -> SubwordTokenizer:
    """Train GPT-2's kind of tokenizer (Radford et al. 2019) on the first `sample` bytes of the train split.

    Writes a tokenizer for AutoTokenizer to the new `folder`: the 256 bytes, merges, and <|endoftext|> as the last id.
    `listen` is called with the number of bytes read so far. Raises CorpusError if the vocabulary is too small for the
    bytes or too large or the corpus has no text, ArtifactError if the folder has files or its parent is missing.
    """
    import tokenizers

    require_size(vocab_size)
    require_free(folder)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(corpus, sample, listen), trainer)
    if backend.get_vocab_size() == 256:
        raise CorpusError(
            f"corpus {corpus.name}: its train split has no text to train a tokenizer; give more documents"
        )
    if backend.get_vocab_size() < vocab_size - 1:
        raise CorpusError(
            f"corpus {corpus.name}: too little text for a vocabulary of {vocab_size}; lower it to "
            f"{backend.get_vocab_size() + 1}, or give more text"
        )
    backend.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    trained = SubwordTokenizer(str(folder), backend, END_OF_TEXT)
    with staged(folder) as unfinished:
        trained.to_hf().save_pretrained(str(unfinished))
    return trained


def _texts(corpus: Corpus, sample: int, listen: Callable[[int], None] | None) -> Iterator[str]:
    read = 0
    for document in corpus.documents(TRAIN):
        text = (document.content + (document.answer or b"")).decode("utf-8", "replace")
        # The trainer buffers its input before it counts, so long documents are split.
        yield from (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
        read += document.size
        if listen:
            listen(read)
        if read >= sample:
            return


def compression(tokenizer: SubwordTokenizer, corpus: Corpus, documents: int = 200) -> float:
    """Bytes per token on the first documents of the validation split (of any split if that is empty)."""
    found = list(itertools.islice(corpus.documents(VALIDATION), documents))
    found = found or list(itertools.islice(corpus.documents(), documents))
    texts = [document.content + (document.answer or b"") for document in found]
    return sum(map(len, texts)) / max(1, sum(map(len, tokenizer.encode_batch(texts))))
