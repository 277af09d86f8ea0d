"""Symbols as words of a tokenizer.

Token id i of a task is written as the i-th word of the tokenizer, in the order of its ids. A word is a token whose
text has only ASCII letters and digits, and to which the tokenizer encodes this text, alone and after another word.
Different tokens have different words, so a text determines its sample.

Words are separated in the first of these ways that gives enough words:

    a space before every word            GPT-2 and other byte-level tokenizers: " the of"
    a space between words                SentencePiece, WordPiece: "the of"
    nothing                              bytes and characters: "to"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from proctool.errors import OptionError

if TYPE_CHECKING:
    from proctool.corpora.tokenizers import Tokenizer

_FORMS = ((" ", " "), ("", " "), ("", ""))
"""The text before the first word, and before every other word."""


@dataclass(frozen=True)
class Words:
    """A tokenizer's words for the token ids 0..len(ids) - 1 of a task."""

    tokenizer: Tokenizer
    ids: tuple[int, ...]
    """The tokenizer's id of each word."""
    texts_of_ids: tuple[str, ...]
    before: str
    """The text before the first word."""
    between: str

    @property
    def metadata(self) -> dict[str, Any]:
        """Their metadata for the description of a file."""
        return {
            "tokenizer": self.tokenizer.fingerprint,
            "words": list(self.texts_of_ids),
            "token_ids": list(self.ids),
            "before": self.before,
            "between": self.between,
        }

    def texts(self, tokens: Any) -> list[str]:
        """The text of each sample. tokens (n, length). Raises OptionError if the tokenizer encodes it differently."""
        texts = [self.before + self.between.join(self.texts_of_ids[t] for t in row) for row in tokens.tolist()]
        wanted = np.array(self.ids)[tokens]
        for row, found in zip(wanted, self.tokenizer.encode_batch(texts), strict=True):
            if not np.array_equal(row, found):
                raise OptionError(
                    f"{self.tokenizer.spec}: encodes a text of its own words as other tokens, so samples cannot be "
                    "written as text; choose another --tokenizer"
                )
        return texts


def words_for(tokenizer: Tokenizer, vocab_size: int) -> Words:
    """Words for a task with `vocab_size` tokens. Raises OptionError if the tokenizer has too few."""
    most = 0
    for before, between in _FORMS:
        ids, words = _words(tokenizer, before, between, vocab_size)
        if len(ids) == vocab_size:
            return Words(tokenizer, tuple(ids), tuple(words), before, between)
        most = max(most, len(ids))
    raise OptionError(
        f"{tokenizer.spec}: has {most} usable words, but the task has {vocab_size} tokens; "
        "choose a task with fewer symbols or another --tokenizer"
    )


_AT_ONCE = 1 << 14


def _words(tokenizer: Tokenizer, before: str, between: str, wanted: int) -> tuple[list[int], list[str]]:
    """The first `wanted` words in the order of their ids, or fewer if there are no more."""
    ids: list[int] = []
    words: list[str] = []
    for first in range(0, tokenizer.vocab_size, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, tokenizer.vocab_size))
        candidates = [(each, _word(tokenizer, each, before)) for each in numbers]
        found = [(each, word) for each, word in candidates if word]
        alone = tokenizer.encode_batch([before + word for _, word in found])
        twice = tokenizer.encode_batch([before + word + between + word for _, word in found])
        for (each, word), one, two in zip(found, alone, twice, strict=True):
            if _is(one, [each]) and _is(two, [each, each]):
                ids.append(each)
                words.append(word)
                if len(ids) == wanted:
                    return ids, words
    return ids, words


def _word(tokenizer: Tokenizer, number: int, before: str) -> str:
    """The text of a token without the space before it; empty if it is not a word."""
    try:
        text = tokenizer.decode([number])
    except Exception:  # ids may have gaps, which libraries handle differently
        return ""
    word = text.removeprefix(before)
    return word if word.isascii() and word.isalnum() else ""


def _is(found: Sequence[int] | Any, wanted: list[int]) -> bool:
    return bool(np.array_equal(found, wanted))
