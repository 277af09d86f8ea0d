"""How many training tokens a corpus has: counted in its token store, or estimated from some of its documents.

Nothing is downloaded: a corpus of the hub is counted only if its token store is on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from proctool.corpora import compression, formats, kinds
from proctool.corpora.catalog import is_here, open_corpus
from proctool.corpora.documents import TRAIN, Corpus, Document, Part
from proctool.corpora.files import FilesPart, Span
from proctool.corpora.hub import HubPart, repositories
from proctool.corpora.layouts import LayoutPart
from proctool.corpora.mathematics import TreePart
from proctool.corpora.store import built_tokens
from proctool.corpora.subwords import load_tokenizer_here
from proctool.corpora.tables import holds_a_list
from proctool.corpora.tokenizers import Tokenizer
from proctool.units import format_count

_SAMPLES, _SAMPLE_BYTES = 64, 32 << 10
"""Places of a corpus that an estimate reads, and bytes of each."""
_LARGEST_WHOLE = 8 << 20
"""Bytes of a file that is read whole where it cannot be read in part."""


@dataclass(frozen=True)
class CorpusSize:
    """The training tokens of a corpus, or why they are unknown."""

    corpus: str
    tokenizer: str
    tokens: int | None
    is_counted: bool = False
    """Whether its token store has them all; otherwise they are an estimate."""
    unknown: str = ""
    """Why there is no number."""

    def words(self) -> str:
        """A line for people."""
        if self.tokens is None:
            return f"corpus {self.corpus}: its tokens are not known: {self.unknown}"
        how = "counted in its token store" if self.is_counted else "estimated from some of its documents"
        about = "" if self.is_counted else "about "
        return f"corpus {self.corpus}: {about}{format_count(self.tokens)} training tokens of {self.tokenizer} ({how})"


def corpus_size(
    name: str,
    tokenizer: str,
    *,
    text_field: str | None = None,
    validation: str | None = None,
    end_of_text: str | None = None,
    skip_bad: bool = False,
    cache_dir: Path | str | None = None,
) -> CorpusSize:
    """The training tokens of the corpus `name` with a tokenizer, without network access.

    Raises CorpusError for a local corpus or tokenizer that cannot be read.
    """

    def unknown(why: str) -> CorpusSize:
        return CorpusSize(name, tokenizer, None, unknown=why)

    for each in filter(None, (name, validation)):
        if not is_here(each, cache_dir):
            return unknown(f"{each} is on the hub and not in the cache")
    corpus = open_corpus(name, text_field=text_field, validation=validation, skip_bad=skip_bad, cache_dir=cache_dir)
    found = load_tokenizer_here(tokenizer, end_of_text)
    if found is None:
        return unknown(f"the tokenizer {tokenizer} is not a local file")
    if (built := built_tokens(corpus, found, cache_dir)) is not None:
        return CorpusSize(name, tokenizer, built, is_counted=True)
    if repositories(corpus):
        return unknown("it is on the hub and its token store is not built")
    estimate = estimated_tokens(corpus, found)
    if estimate is None:
        return unknown("its files cannot be read in part; `proctool corpus build` counts them")
    return CorpusSize(name, tokenizer, estimate)


def estimated_tokens(corpus: Corpus, tokenizer: Tokenizer) -> int | None:
    """Training tokens by the size of the corpus and the tokens per byte of some of its documents; None if unknown.

    Raises CorpusError.
    """
    parts = [part for part in corpus.parts if part.split in (None, TRAIN)]
    pieces = [piece for part in parts for piece in _pieces(part)]
    tokens = size = 0
    for part, span in pieces[:: -(-len(pieces) // _SAMPLES)] if pieces else ():
        if (sample := _of_part(part) if span is None else _of_file(part, span)) is None:
            return None
        texts = [each.content + (each.answer or b"") for each in sample.documents if not each.problem]
        tokens += sum(len(ids) + 1 for ids in tokenizer.encode_batch(texts))
        size += sum(map(len, texts)) if sample.size is None else sample.size
    if not size:
        return None
    train = sum((part.size or 0) * (1 if part.split else 1 - corpus.held_out) for part in parts)
    return round(train * tokens / size)


def _pieces(part: Part) -> list[tuple[Part, Span | None]]:
    return [(part, span) for span in part.spans] if isinstance(part, FilesPart) else [(part, None)]


class _Sample(NamedTuple):
    documents: Iterable[Document]
    size: int | None
    """The bytes that they take in the corpus's files; None: those of their text."""


def _of_part(part: Part) -> _Sample | None:
    """The first documents of a part, as many as are made in the time to tokenise a sample."""
    files = part.modules if isinstance(part, TreePart) else (part.file,) if isinstance(part, LayoutPart) else ()
    if isinstance(part, HubPart) or not part.size or any(compression.of(file.path) for file in files):
        return None
    return _Sample(_first(part.documents(), _SAMPLE_BYTES * part.size // (part.work or part.size)), None)


def _first(documents: Iterable[Document], wanted: int) -> Iterator[Document]:
    total = 0
    for document in documents:
        yield document
        total += document.size
        if total >= wanted:
            return


def _of_file(part: Part, span: Span) -> _Sample | None:
    """The beginning of a range of a file, or all of it where it cannot be divided and is small."""
    assert isinstance(part, FilesPart)
    file = span.file
    kind = part.reading or kinds.kind_of(file.path) or "text"
    divides = kind in ("text", "lines") and not compression.of(file.path) and not holds_a_list(file.path)
    whole = span.stop is None or kind == "parquet"
    end, stop = file.size if whole else min(span.stop or 0, file.size), span.stop
    if divides and span.start + _SAMPLE_BYTES < end:
        end = stop = span.start + _SAMPLE_BYTES
    if end - span.start > _LARGEST_WHOLE:
        return None
    return _Sample(formats.read(file.path, span.start, stop, part.text_field, part.reading), end - span.start)
