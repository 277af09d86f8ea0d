"""Tokenizers from files and from the hub, and GPT-2's from either of its published pairs of files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from proctool.corpora.tokenizers import END_OF_TEXT, Ids, Tokenizer, _as_text
from proctool.errors import CorpusError
from proctool.paths import is_path, user_path

_END_NAMES = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]", "[EOS]", "<end_of_text>")
_MOST_IDS = 10**7
_GPT2_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


class SubwordTokenizer(Tokenizer):
    """A `tokenizers.Tokenizer` and its end-of-text token."""

    def __init__(self, spec: str, backend: Any, eos_token: str) -> None:
        self.spec = spec
        self._backend = backend
        self._eos = eos_token
        self._vocab_size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        if self._vocab_size > _MOST_IDS:
            raise CorpusError(f"{spec}: ids up to {self._vocab_size}; at most {_MOST_IDS} make a vocabulary")
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        backend.post_processor = None  # would add tokens (BERT's, Llama's) where the model was trained without

    def __reduce__(self) -> tuple[Any, ...]:
        # How workers receive it; the backend's own pickle would forget encode_special_tokens.
        return from_definition, (self.spec, self.definition, self._eos)

    @property
    def vocab_size(self) -> int:
        """Highest id and one, added tokens included (ids may have gaps)."""
        return self._vocab_size

    @property
    def eos_id(self) -> int:
        """The id of `eos_token`."""
        return int(self._backend.token_to_id(self._eos))

    @property
    def eos_token(self) -> str:
        """How end-of-text is written."""
        return self._eos

    @property
    def definition(self) -> str:
        """The tokenizer.json."""
        return str(self._backend.to_str())

    def encode_batch(self, texts: Sequence[bytes | str]) -> list[Ids]:
        """Ids without special tokens; bytes that are not UTF-8 are read as U+FFFD. Raises CorpusError."""
        strings = [_as_text(text) for text in texts]
        try:
            encodings = self._backend.encode_batch_fast(strings, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # see `_parsed`; a vocabulary without an id for the unknown comes out here only
            raise CorpusError(f"{self.spec}: cannot encode the text ({_first_line(error)})") from None
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text, special tokens left out."""
        return str(self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=True))


def from_definition(spec: str, definition: str, eos_token: str) -> SubwordTokenizer:
    """A tokenizer from its `definition` and its end-of-text token. Raises CorpusError."""
    import tokenizers

    backend = _parsed(lambda: tokenizers.Tokenizer.from_str(definition), spec)
    if backend.token_to_id(eos_token) is None:
        raise CorpusError(f'{spec}: no end-of-text token "{eos_token}"')
    return SubwordTokenizer(spec, backend, eos_token)


def _parsed(parse: Callable[[], Any], path: Path | str) -> Any:
    """What `tokenizers` makes of a file. Where the library meets what it did not expect it panics."""
    try:
        return parse()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # bare Exception, or a panic, which is none
        raise CorpusError(f"{path}: not a tokenizers JSON file ({_first_line(error)})") from None


def holds_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's files."""
    pairs = (("tokenizer.json",), *_GPT2_PAIRS)
    return any(all((folder / name).is_file() for name in names) for names in pairs)


def load_subwords(spec: str) -> SubwordTokenizer:
    """A tokenizer from a file, a folder or the hub. Raises CorpusError."""
    path = user_path(spec)
    if path.is_file():
        return _from_json(spec, path)
    if not path.is_dir():
        if is_path(spec) or path.suffix == ".json":
            raise CorpusError(f"{spec}: no such file or folder")
        return _from_transformers(spec)
    for vocab, merges in _GPT2_PAIRS:
        if (path / vocab).is_file() and (path / merges).is_file() and not (path / "tokenizer.json").is_file():
            return _gpt2(spec, path / vocab, path / merges)
    if (path / "tokenizer.json").is_file():
        return _from_json(spec, path / "tokenizer.json")
    return _from_transformers(spec, path)


def _from_json(spec: str, path: Path) -> SubwordTokenizer:
    import tokenizers

    backend = _parsed(lambda: tokenizers.Tokenizer.from_file(str(path)), path)
    return SubwordTokenizer(spec, backend, _end_token(path, backend))


def _end_token(path: Path, backend: Any) -> str:
    """What tokenizer_config.json beside the file says, or the first of the usual names that the vocabulary has."""
    settings = path.parent / "tokenizer_config.json"
    if settings.is_file():
        try:
            said = json.loads(settings.read_text(encoding="utf-8")).get("eos_token")
        except (ValueError, AttributeError, RecursionError) as error:
            raise CorpusError(f"{settings}: damaged ({_first_line(error)})") from None
        name = said.get("content") if isinstance(said, dict) else said
        if isinstance(name, str) and backend.token_to_id(name) is not None:
            return name
    found = next((name for name in _END_NAMES if backend.token_to_id(name) is not None), None)
    if found is None:
        raise CorpusError(f"{path}: no end-of-text token (looked for {', '.join(_END_NAMES)}); add one to it")
    return found


def _gpt2(spec: str, vocab_file: Path, merges_file: Path) -> SubwordTokenizer:
    import tokenizers

    try:
        vocab = json.loads(vocab_file.read_text(encoding="utf-8"))
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        merges = [
            (line.split(" ")[0], line.split(" ")[1])
            for line in lines
            if line.strip() and not line.startswith("#version")
        ]
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    except Exception as error:  # tokenizers raises bare Exception
        raise CorpusError(f"{vocab_file} and {merges_file.name}: not GPT-2's files ({_first_line(error)})") from None
    if END_OF_TEXT not in vocab:
        raise CorpusError(f"{vocab_file}: has no {END_OF_TEXT}")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return SubwordTokenizer(spec, backend, END_OF_TEXT)


def _from_transformers(spec: str, folder: Path | None = None) -> SubwordTokenizer:
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        hf = transformers.AutoTokenizer.from_pretrained(
            folder or spec, trust_remote_code=False, local_files_only=folder is not None
        )
    except Exception as error:  # whatever the hub client, the network or a foreign file raises
        if folder is not None:
            raise CorpusError(f"tokenizer {spec}: no tokenizer in this folder ({_first_line(error)})") from None
        where = "offline mode is on" if os.environ.get("HF_HUB_OFFLINE") else "no network, or no such name"
        raise CorpusError(
            f'tokenizer "{spec}": not a local path, and the hub could not give it ({where}: {_first_line(error)}); '
            "use bytes, characters, a folder, or `proctool tokenizer train`"
        ) from None
    if not getattr(hf, "is_fast", False):
        raise CorpusError(f'tokenizer "{spec}": only exists in slow Python form, which we do not read')
    eos = hf.eos_token or hf.sep_token
    if eos is None:
        raise CorpusError(f'tokenizer "{spec}": has no end-of-text token')
    return SubwordTokenizer(spec, hf.backend_tokenizer, str(eos))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
