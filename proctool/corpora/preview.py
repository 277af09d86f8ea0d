"""Check the first documents of a corpus: whether training and validation will have at least one row."""

from __future__ import annotations

from proctool.corpora.documents import TRAIN, VALIDATION, Corpus, bad_documents, no_validation, split_of
from proctool.corpora.tokenizers import Tokenizer
from proctool.errors import CorpusError
from proctool.units import counted

_MOST_BYTES = 64 << 20
"""Bytes of text after which the check ends without a result: far more than one row of each split needs."""


def require_rows(corpus: Corpus, tokenizer: Tokenizer | None, context: int, *, skip_bad: bool = False) -> None:
    """Read documents until train and validation have a row of `context` tokens, usually about a hundred documents.

    Without a tokenizer one document per split is enough. Raises CorpusError for a bad document or too little text.
    """
    documents = dict.fromkeys((TRAIN, VALIDATION), 0)
    tokens = dict.fromkeys((TRAIN, VALIDATION), 0)
    rows = dict.fromkeys((TRAIN, VALIDATION), False)
    seen = bad = 0
    for part in corpus.parts:
        if part.split is not None and rows.get(part.split, True):
            continue
        for document in part.documents():
            if document.problem and not skip_bad:
                raise CorpusError(document.problem)
            bad += document.problem is not None
            split = part.split or split_of(document.digest, corpus.held_out)
            if document.problem or split not in rows:
                continue
            documents[split] += 1
            length = context if tokenizer is None else _length(document.content + (document.answer or b""), tokenizer)
            tokens[split] += length
            # Documents that are kept whole fill rows one by one; others are concatenated.
            rows[split] |= length <= context if corpus.whole else tokens[split] >= context
            seen += document.size
            if rows[part.split or TRAIN] and (part.split is not None or all(rows.values())):
                break
            if seen > _MOST_BYTES:
                return
    for split, enough in rows.items():
        if not enough:
            by_hash = split == VALIDATION and None in {part.split for part in corpus.parts}
            if by_hash and documents[TRAIN] and not (bad or documents[VALIDATION]):
                raise CorpusError(no_validation(corpus.name, documents[TRAIN]))
            raise CorpusError(
                f"corpus {corpus.name}: its {split} split has {counted(documents[split], 'document', exact=True)} with "
                f"{counted(tokens[split], 'token', exact=True)}, too few for one row of {context}; add documents"
                + (f" ({corpus.held_out:.0%} of them go to it)" if by_hash else "")
                + (f"; {bad_documents(bad)} skipped" if bad else "")
            )


def _length(text: bytes, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode_batch([text])[0]) + 1
