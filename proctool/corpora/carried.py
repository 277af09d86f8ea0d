"""A model's tokenizer in the model's own file, so that no path of another machine is needed.

It stands in the artifact's metadata, among what the file says about itself: the tensors of a model file stay exactly
its weights, for every reader. GPT-2's 1.6 MB of JSON take 0.6 MB there, compressed.
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
"""What a model's `about` calls the name, the tokenizer itself where proctool does not bring it along, and how texts
begin where that is not after end-of-text, as proctool trains."""

AS_ITS_TOKENIZER = "as-its-tokenizer"
"""The value of BEGIN in a model that came with its tokenizer and begins texts as that does."""

LARGEST, LARGEST_PACKED = 96 << 20, 12 << 20
"""Bytes accepted, of JSON and of it packed: about twice what the largest vocabularies in use take, of 256,000 ids."""


def record(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a model artifact says of its tokenizer; the same for the same tokenizer, on every machine but for its name.

    `bytes` and `characters` are known by their names. Any other is there whole: the files it came in, its `tokenizers`
    JSON where they do not say that, and its end-of-text token. Raises CorpusError when it is too large for that.
    """
    if not isinstance(tokenizer, SubwordTokenizer):
        return {NAME: tokenizer.spec}
    held: dict[str, Any] = {"end_of_text": tokenizer.eos_token}
    if tokenizer.files is not None:
        # Byte for byte: a tokenizer's files are text but for SentencePiece's; every byte has its Latin-1 character.
        texts = {name: content.decode("latin-1") for name, content in sorted(tokenizer.files.contents.items())}
        held["files"] = _packed(json.dumps(texts, ensure_ascii=False), tokenizer.spec)
    if tokenizer.files is None or not _is_of_files(tokenizer, tokenizer.files):
        held |= _packed(tokenizer.definition, tokenizer.spec)
    return {NAME: tokenizer.spec, DEFINITION: held}


def _is_of_files(tokenizer: SubwordTokenizer, files: TokenizerFiles) -> bool:
    """Whether the files alone give this tokenizer."""
    return from_files(tokenizer.spec, files, tokenizer.eos_token, tokenizer.spec).definition == tokenizer.definition


def _packed(text: str, spec: str) -> dict[str, Any]:
    """A text as bzip2, whose output has never changed, in base64. Raises CorpusError when it is too large."""
    content = text.encode()
    packed = base64.b64encode(bz2.compress(content)).decode()
    if len(content) > LARGEST or len(packed) > LARGEST_PACKED:
        raise CorpusError(f"{spec}: {len(content)} bytes of JSON are too large for a model to carry")
    return {"bytes": len(content), "bz2": packed}


class OtherTokens(NamedTuple):
    """How many ids of one tokenizer mean something else in another."""

    ordinary: int
    """Ids that stand for other text there."""
    special: int
    """Ids of special tokens, or of none at all there."""


def other_tokens(one: Tokenizer, other: Tokenizer) -> OtherTokens:
    """The ids of `one` that stand for another token in `other`."""
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
    """The tokenizer that `record` wrote, None where there is none. Nothing in it is ever run as code.

    `end_of_text` is the token that ends a text (default: the recorded one).

    Raises ArtifactError in the name of `where` when it is damaged, CorpusError when an older file gives but a name and
    nothing of that name can be loaded here.
    """
    name, packed = metadata.get(NAME), metadata.get(DEFINITION)
    if name is None and packed is None:
        return None
    if packed is None:
        try:
            return load_tokenizer(str(name), end_of_text)
        except CorpusError as error:
            raise CorpusError(f"{where}: does not hold its tokenizer, only the name: {error}") from None
    loaded = _loaded(str(name), packed, where)
    if end_of_text is None:
        return loaded
    return from_definition(loaded.spec, loaded.definition, end_of_text, loaded.files)


def _loaded(name: str, held: Any, where: str) -> SubwordTokenizer:
    try:
        end = held["end_of_text"]
        if not isinstance(end, str):
            raise ValueError("no name of an end-of-text token")
        files = _files(held["files"], where) if "files" in held else None
        if "bz2" in held or files is None:
            return from_definition(name, _unpacked(held), end, files)
        return from_files(name, files, end, name)
    except (ValueError, TypeError, KeyError, OSError, CorpusError) as error:
        raise ArtifactError(f"{where}: the tokenizer in it is damaged ({error}); make the file again") from None


def _files(packed: Any, where: str) -> TokenizerFiles:
    texts = parse_json(_unpacked(packed))
    if not isinstance(texts, dict) or not set(texts) <= set(NAMES):  # names are written as they are on export
        raise ValueError("files that no tokenizer has")
    return TokenizerFiles({name: str.encode(text, "latin-1") for name, text in texts.items()}, where)


def _unpacked(packed: Any) -> str:
    """The text that `_packed` was given. Raises ValueError, TypeError, KeyError, OSError when it is damaged."""
    size = packed["bytes"]
    if not (isinstance(size, int) and 0 < size <= LARGEST):
        raise ValueError("sizes or types that cannot be")
    unpacker = bz2.BZ2Decompressor()
    # One byte more than was said shows a longer one, and no bomb is ever unpacked.
    content = unpacker.decompress(base64.b64decode(packed["bz2"], validate=True), size + 1)
    if len(content) != size:
        raise ValueError("its length is not the recorded one")
    return content.decode()
