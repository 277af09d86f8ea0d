"""Tokenizers: bytes, characters, and any of the `tokenizers` and `transformers` libraries.

Every one gives the same ids here as its `to_hf()` does after `AutoTokenizer` has loaded it back. Text that spells a
special token ("<|endoftext|>" in a document about tokenizers) is encoded as the text it is: a document cannot end
itself.
"""

from __future__ import annotations

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool.corpora.tokenizer_files import Beginning
from proctool.errors import CorpusError

END_OF_TEXT = "<|endoftext|>"

Ids = NDArray[np.unsignedinteger[Any]]


class Tokenizer(ABC):
    """Text to ids and back."""

    spec: str
    """The specification for `load_tokenizer`."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Ids are 0..vocab_size - 1."""

    @property
    @abstractmethod
    def eos_id(self) -> int:
        """The id of end-of-text, which follows every document."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[bytes | str]) -> list[Ids]:
        """One array of ids per text, without added tokens. Bytes are UTF-8 text."""

    @abstractmethod
    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of the ids without special tokens."""

    @property
    @abstractmethod
    def definition(self) -> str:
        """The whole tokenizer as a `tokenizers` JSON document."""

    @property
    def eos_token(self) -> str:
        """The text of the end-of-text token."""
        return END_OF_TEXT

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smaller of uint16 and uint32 that holds the vocabulary."""
        return np.uint16 if self.vocab_size <= 1 << 16 else np.uint32

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides how it encodes."""
        # Without the post-processor, which transformers adds on saving: nothing here adds special tokens.
        idle = {"post_processor", "padding", "truncation"}
        decisive = {key: value for key, value in json.loads(self.definition).items() if key not in idle}
        written = json.dumps([decisive, self.eos_id, self.vocab_size], sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()

    def beginning(self, model_type: str | None = None) -> Beginning:
        """How a text begins for a model not trained by proctool (in proctool's training, after end-of-text)."""
        return Beginning((), (self.eos_id,))

    def gives_back(self, content: bytes, ids: Ids) -> bool:
        """Whether decoding the ids of a text gives the same bytes."""
        try:
            return self.decode(ids) == content.decode()
        except UnicodeDecodeError:
            return False  # encoding replaced bytes by U+FFFD

    def to_hf(self, context: int | None = None) -> Any:
        """A transformers PreTrainedTokenizerFast for `save_pretrained`, for a model with this context in tokens.

        Its bos and eos are end-of-text, and it adds no tokens to a text, as in training.
        """
        import tokenizers
        import transformers

        length = {} if context is None else {"model_max_length": context}
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(self.definition),
            clean_up_tokenization_spaces=False,
            **{**length, **self._settings()},
        )

    def _settings(self) -> dict[str, Any]:
        """The settings for `to_hf`."""
        return {"bos_token": self.eos_token, "eos_token": self.eos_token, "split_special_tokens": True}

    def require_fit(self, model_vocab: int, model: str) -> None:
        """Raise CorpusError if a model's vocabulary is too small for the ids."""
        if self.vocab_size > model_vocab:
            raise CorpusError(
                f"{model}: its vocabulary of {model_vocab} is too small for the tokenizer {self.spec}, which has "
                f"{self.vocab_size}; use the model's own tokenizer, or train a model with this one"
            )


class ByteTokenizer(Tokenizer):
    """One token per byte: the id of byte b is b, end-of-text is 256."""

    spec = "bytes"
    vocab_size = 257
    eos_id = 256

    def encode_batch(self, texts: Sequence[bytes | str]) -> list[Ids]:
        """One id per byte."""
        return [np.frombuffer(_as_bytes(text), np.uint8).astype(np.uint16) for text in texts]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The bytes as UTF-8 text, with U+FFFD for invalid bytes."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def gives_back(self, content: bytes, ids: Ids) -> bool:
        """Always, for any bytes."""
        return self.decode_bytes(ids) == content

    def decode_bytes(self, ids: Sequence[int] | Ids) -> bytes:
        """The bytes themselves."""
        numbers = np.asarray(ids, np.int64)
        return numbers[numbers < 256].astype(np.uint8).tobytes()

    @property
    def definition(self) -> str:
        """Byte-level BPE without merges, its alphabet numbered by byte instead of by sorting."""
        import tokenizers

        vocab = {character: byte for byte, character in enumerate(byte_alphabet())}
        built = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
        built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        built.decoder = tokenizers.decoders.ByteLevel()
        built.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
        return str(built.to_str())


class CharacterTokenizer(Tokenizer):
    """One token per character: printable ASCII (95) and newline, which is all that DeepMind Mathematics uses.

    Ids 0..94 are " " to "~", 95 is newline, 96 any other character, 97 end-of-text.
    """

    spec = "characters"
    alphabet = (*map(chr, range(32, 127)), "\n")
    unknown = "\N{REPLACEMENT CHARACTER}"
    vocab_size = 98
    eos_id = 97

    def encode_batch(self, texts: Sequence[bytes | str]) -> list[Ids]:
        """One id per character."""
        return [_CHARACTER_IDS[np.minimum(_code_points(_as_text(text)), 127)] for text in texts]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The characters."""
        letters = (*self.alphabet, self.unknown)
        return "".join(letters[number] for number in np.asarray(ids).tolist() if number < len(letters))

    @property
    def definition(self) -> str:
        """BPE over characters without merges."""
        import tokenizers

        vocab = {character: number for number, character in enumerate((*self.alphabet, self.unknown))}
        built = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], unk_token=self.unknown))
        built.decoder = tokenizers.decoders.Fuse()
        built.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
        return str(built.to_str())


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint32)


_CHARACTER_IDS = np.full(128, 96, np.uint16)
_CHARACTER_IDS[32:127] = np.arange(95)
_CHARACTER_IDS[10] = 95
_CHARACTER_IDS[127] = 96


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (Radford et al. 2019, GPT-2's encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    stand_in = {byte: chr(256 + rank) for rank, byte in enumerate(others)}
    return [stand_in.get(byte) or chr(byte) for byte in range(256)]


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _as_text(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


BUILT_IN: dict[str, type[Tokenizer]] = {each.spec: each for each in (ByteTokenizer, CharacterTokenizer)}
"""The built-in tokenizers by name."""
