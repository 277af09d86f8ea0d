"""The tokenizer of a model, stored in the model's file, so that the file works on any machine.

It is in the artifact's metadata, so that the tensors of a model file are exactly its weights. GPT-2's 1.6 MB of JSON
take 0.6 MB there, compressed.
"""

from __future__ import annotations

import base64
import bz2
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from proctool.corpora.subwords import SubwordTokenizer, from_definition, from_files, load_tokenizer
from proctool.corpora.tokenizer_files import NAMES, TokenizerFiles
from proctool.corpora.tokenizers import Tokenizer
from proctool.errors import ArtifactError, CorpusError
from proctool.untrusted import parse_json

NAME, DEFINITION, BEGIN = "tokenizer", "tokenizer_json", "texts_begin"
"""Keys in a model's metadata: the tokenizer's name, its contents if it is not built in, and how texts begin if not
after end-of-text."""

AS_ITS_TOKENIZER = "as-its-tokenizer"
"""The value of BEGIN for a model that came with its tokenizer and begins texts like that tokenizer."""

LARGEST, LARGEST_PACKED = 96 << 20, 12 << 20
"""Size limits in bytes, of the JSON and compressed: about twice the largest vocabularies in use (256,000 ids)."""


def record(tokenizer: Tokenizer) -> dict[str, Any]:
    """The metadata of a model artifact about its tokenizer; equal tokenizers differ at most in their name.

    `bytes` and `characters` are stored by name. Any other tokenizer is stored completely: its files, its `tokenizers`
    JSON if the files do not give it, and its end-of-text token. Raises CorpusError if it is too large.
    """
    if not isinstance(tokenizer, SubwordTokenizer):
        return {NAME: tokenizer.spec}
    held: dict[str, Any] = {"end_of_text": tokenizer.eos_token}
    if tokenizer.files is not None:
        # Latin-1 keeps every byte: a tokenizer's files are text, except SentencePiece models.
        texts = {name: content.decode("latin-1") for name, content in sorted(tokenizer.files.contents.items())}
        held["files"] = _packed(json.dumps(texts, ensure_ascii=False), tokenizer.spec)
    if tokenizer.files is None or not _is_of_files(tokenizer, tokenizer.files):
        held |= _packed(tokenizer.definition, tokenizer.spec)
    return {NAME: tokenizer.spec, DEFINITION: held}


def _is_of_files(tokenizer: SubwordTokenizer, files: TokenizerFiles) -> bool:
    """Whether the files alone are enough to load this tokenizer."""
    return from_files(tokenizer.spec, files, tokenizer.eos_token, tokenizer.spec).definition == tokenizer.definition


def _packed(text: str, spec: str) -> dict[str, Any]:
    """A text as base64 of bzip2 (whose output has never changed). Raises CorpusError if it is too large."""
    content = text.encode()
    packed = base64.b64encode(bz2.compress(content)).decode()
    if len(content) > LARGEST or len(packed) > LARGEST_PACKED:
        raise CorpusError(
            f"{spec}: {len(content)} bytes of JSON are too large to store in a model; use a smaller tokenizer"
        )
    return {"bytes": len(content), "bz2": packed}


class OtherTokens(NamedTuple):
    """The number of ids that have different meanings in two tokenizers."""

    ordinary: int
    """Ids with different text."""
    special: int
    """Ids of special tokens, or ids that the other tokenizer does not have."""


def other_tokens(one: Tokenizer, other: Tokenizer) -> OtherTokens:
    """The ids of `one` that are another token in `other`."""
    if one.fingerprint == other.fingerprint:
        return OtherTokens(0, 0)
    import tokenizers

    backends = [tokenizers.Tokenizer.from_str(each.definition) for each in (one, other)]
    mine, theirs = ({number: token for token, number in each.get_vocab().items()} for each in backends)
    special = {
        number for each in backends for number, token in each.get_added_tokens_decoder().items() if token.special
    }
    differing = [number for number, token in mine.items() if theirs.get(number) != token]
    ordinary = sum(number in theirs and number not in special for number in differing)
    return OtherTokens(ordinary, len(differing) - ordinary)


def load_record(metadata: Mapping[str, Any], where: str, end_of_text: str | None = None) -> Tokenizer | None:
    """Read a tokenizer written by `record`; None if there is none. It never runs code.

    `end_of_text` is the token that ends a text (default: the recorded one).

    Raises ArtifactError naming `where` if it is damaged; CorpusError if an older file has only a name that cannot be
    loaded here.
    """
    name, packed = metadata.get(NAME), metadata.get(DEFINITION)
    if name is None and packed is None:
        return None
    if packed is None:
        try:
            return load_tokenizer(str(name), end_of_text)
        except CorpusError as error:
            raise CorpusError(f"{where}: has only the name of its tokenizer, which cannot be loaded: {error}") from None
    loaded = _loaded(str(name), packed, where)
    if end_of_text is None:
        return loaded
    return from_definition(loaded.spec, loaded.definition, end_of_text, loaded.files)


def _loaded(name: str, held: Any, where: str) -> SubwordTokenizer:
    try:
        end = held["end_of_text"]
        if not isinstance(end, str):
            raise ValueError("no end-of-text token")
        files = _files(held["files"], where) if "files" in held else None
        if "bz2" in held or files is None:
            return from_definition(name, _unpacked(held), end, files)
        return from_files(name, files, end, name)
    except (ValueError, TypeError, KeyError, OSError, CorpusError) as error:
        raise ArtifactError(f"{where}: the tokenizer in it is damaged ({error}); make the file again") from None


def _files(packed: Any, where: str) -> TokenizerFiles:
    texts = parse_json(_unpacked(packed))
    if not isinstance(texts, dict) or not set(texts) <= set(NAMES):  # export uses these names as file names
        raise ValueError("unknown tokenizer files")
    return TokenizerFiles({name: str.encode(text, "latin-1") for name, text in texts.items()}, where)


def _unpacked(packed: Any) -> str:
    """The inverse of `_packed`. Raises ValueError, TypeError, KeyError, OSError if the text is damaged."""
    size = packed["bytes"]
    if not (isinstance(size, int) and 0 < size <= LARGEST):
        raise ValueError("invalid sizes or types")
    unpacker = bz2.BZ2Decompressor()
    # Read at most one byte more than recorded: that detects a wrong length and stops decompression bombs.
    content = unpacker.decompress(base64.b64decode(packed["bz2"], validate=True), size + 1)
    if len(content) != size:
        raise ValueError("its length differs from the recorded length")
    return content.decode()
