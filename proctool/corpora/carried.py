"""A model's tokenizer in the model's own file, so that no path of another machine is needed.

It stands in the artifact's metadata, among what the file says about itself: the tensors of a model file stay exactly
its weights, for every reader. GPT-2's 1.6 MB of JSON take 0.6 MB there, compressed.
"""

from __future__ import annotations

import base64
import bz2
from collections.abc import Mapping
from typing import Any, NamedTuple

from proctool.corpora.subwords import SubwordTokenizer, from_definition
from proctool.corpora.tokenizers import BUILT_IN, Tokenizer, load_tokenizer
from proctool.errors import ArtifactError, CorpusError

NAME, DEFINITION = "tokenizer", "tokenizer_json"
"""What a model's `about` calls the name, and the tokenizer itself where proctool does not bring it along."""

LARGEST, LARGEST_PACKED = 96 << 20, 12 << 20
"""Bytes accepted, of JSON and of it packed: about twice what the largest vocabularies in use take, of 256,000 ids."""


def record(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a model artifact says of its tokenizer; the same for the same tokenizer, on every machine but for its name.

    `bytes` and `characters` are known by their names. Any other is there whole: its `tokenizers` JSON (bzip2, whose
    output has never changed, in base64) and its end-of-text token. Raises CorpusError when it is too large for that.
    """
    if tokenizer.spec in BUILT_IN:
        return {NAME: tokenizer.spec}
    definition = tokenizer.definition.encode()
    packed = base64.b64encode(bz2.compress(definition)).decode()
    if len(definition) > LARGEST or len(packed) > LARGEST_PACKED:
        raise CorpusError(f"{tokenizer.spec}: {len(definition)} bytes of JSON are too large for a model to carry")
    return {
        NAME: tokenizer.spec,
        DEFINITION: {"end_of_text": tokenizer.eos_token, "bytes": len(definition), "bz2": packed},
    }


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


def load_record(about: Mapping[str, Any], where: str) -> Tokenizer | None:
    """The tokenizer that `record` wrote, None where there is none. Nothing in it is ever run as code.

    Raises ArtifactError in the name of `where` when it is damaged, CorpusError when an older file gives but a name and
    nothing of that name can be loaded here.
    """
    name, packed = about.get(NAME), about.get(DEFINITION)
    if name is None and packed is None:
        return None
    if packed is None:
        try:
            return load_tokenizer(str(name))
        except CorpusError as error:
            raise CorpusError(f"{where}: does not hold its tokenizer, only the name: {error}") from None
    return _unpacked(str(name), packed, where)


def _unpacked(name: str, packed: Any, where: str) -> SubwordTokenizer:
    try:
        end, size = packed["end_of_text"], packed["bytes"]
        if not (isinstance(end, str) and isinstance(size, int) and 0 < size <= LARGEST):
            raise ValueError("sizes or types that cannot be")
        unpacker = bz2.BZ2Decompressor()
        # One byte more than was said shows a longer one, and no bomb is ever unpacked.
        definition = unpacker.decompress(base64.b64decode(packed["bz2"], validate=True), size + 1)
        if len(definition) != size:
            raise ValueError("its length is not the recorded one")
        return from_definition(name, definition.decode(), end)
    except (ValueError, TypeError, KeyError, OSError, CorpusError) as error:
        raise ArtifactError(f"{where}: the tokenizer in it is damaged ({error}); make the file again") from None
