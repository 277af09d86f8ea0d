"""Tokenizers by name: from files, from the hub, and GPT-2's from either of its published pairs of files."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from proctool.corpora.tokenizer_files import (
    DEFINITION,
    NAMES,
    SPECIAL_NAMES,
    Beginning,
    TokenizerFiles,
    beginning_of,
)
from proctool.corpora.tokenizers import BUILT_IN, END_OF_TEXT, Ids, Tokenizer, _as_text
from proctool.errors import CorpusError, first_line
from proctool.paths import is_path, user_path
from proctool.untrusted import parse_json

_END_NAMES = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]", "[EOS]", "<end_of_text>")
MOST_IDS = 10**7
"""Largest vocabulary: the libraries reserve memory for every id, and the largest published ones have 10**6."""
_KEPT = {"chat_template": str, "padding_side": str, "model_max_length": int, "split_special_tokens": bool}
"""Settings of a tokenizer that do not change how it encodes, and their types."""
_GPT2_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


class SubwordTokenizer(Tokenizer):
    """A `tokenizers.Tokenizer`, its end-of-text token, and its files if it was loaded from files."""

    def __init__(self, spec: str, backend: Any, eos_token: str, files: TokenizerFiles | None = None) -> None:
        self.spec = spec
        self.files = files
        self._backend = backend
        self._eos = eos_token
        self._vocab_size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        if self._vocab_size > MOST_IDS:
            raise CorpusError(
                f"{spec}: ids up to {self._vocab_size} exceed the limit of {MOST_IDS}; use another tokenizer"
            )
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        backend.post_processor = None  # the code that scores texts adds special tokens (BERT's, Llama's)

    def __reduce__(self) -> tuple[Any, ...]:
        # For sending it to workers: the backend's own pickle loses encode_special_tokens.
        return from_definition, (self.spec, self.definition, self._eos)

    @property
    def vocab_size(self) -> int:
        """The highest id plus one, including added tokens (ids may have gaps)."""
        return self._vocab_size

    @property
    def eos_id(self) -> int:
        """The id of `eos_token`."""
        return int(self._backend.token_to_id(self._eos))

    @property
    def eos_token(self) -> str:
        """The text of the end-of-text token."""
        return self._eos

    @property
    def definition(self) -> str:
        """The tokenizer.json."""
        return str(self._backend.to_str())

    def encode_batch(self, texts: Sequence[bytes | str]) -> list[Ids]:
        """The ids of each text without special tokens; invalid UTF-8 becomes U+FFFD. Raises CorpusError."""
        strings = [_as_text(text) for text in texts]
        try:
            encodings = self._backend.encode_batch_fast(strings, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # see `_parsed`; a vocabulary without unknown token fails only here
            raise CorpusError(f"{self.spec}: cannot encode the text ({first_line(error)})") from None
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """The text of the ids without special tokens."""
        return str(self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=True))

    def beginning(self, model_type: str | None = None) -> Beginning:
        """How a text begins according to its files, for a model of `model_type`."""
        if self.files is None:
            return super().beginning(model_type)
        return beginning_of(self.files.in_transformers(model_type), self.eos_id)

    def _settings(self) -> dict[str, Any]:
        """Its special tokens and settings; bos becomes end-of-text, which begins texts in training."""
        if self.files is None:
            return super()._settings()
        named = {name: token for name in SPECIAL_NAMES if (token := self.files.special(name)) is not None}
        known = {name: token for name, token in named.items() if self._backend.token_to_id(token) is not None}
        kept = {name: value for name, kind in _KEPT.items() if type(value := self.files.setting(name)) is kind}
        if (template := self.files.contents.get("chat_template.jinja")) is not None:
            kept["chat_template"] = template.decode("utf-8", "replace")
        if not self.files.says_length():
            kept.pop("model_max_length", None)
        return {**known, **kept, "bos_token": self._eos, "eos_token": self._eos}


def from_definition(
    spec: str, definition: str, eos_token: str, files: TokenizerFiles | None = None
) -> SubwordTokenizer:
    """Build a tokenizer from its `definition` and its end-of-text token. Raises CorpusError."""
    import tokenizers

    backend = _parsed(lambda: tokenizers.Tokenizer.from_str(definition), spec)
    if backend.token_to_id(eos_token) is None:
        raise CorpusError(f'{spec}: no end-of-text token "{eos_token}"')
    return SubwordTokenizer(spec, backend, eos_token, files)


def _parsed(parse: Callable[[], Any], path: Path | str) -> Any:
    """Load a file with `tokenizers`. The library panics on unexpected contents."""
    try:
        return parse()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a bare Exception, or a panic, which is a BaseException
        raise CorpusError(f"{path}: not a tokenizers JSON file ({first_line(error)})") from None


def holds_tokenizer(folder: Path) -> bool:
    """Whether a folder has the files of a tokenizer."""
    pairs = ((DEFINITION,), *_GPT2_PAIRS)
    return any(all((folder / name).is_file() for name in names) for names in pairs)


def load_tokenizer(spec: str, end_of_text: str | None = None) -> Tokenizer:
    """Load the tokenizer `spec`.

    `spec` is `bytes`, `characters`, a tokenizer.json, a folder (tokenizer.json; vocab.json and merges.txt; encoder.json
    and vocab.bpe; or other files that transformers reads), or a name on the hub such as `gpt2`. `end_of_text` is the
    token that ends a text (default: the one in its files). Raises CorpusError if it cannot be loaded.
    """
    if spec in BUILT_IN:
        if end_of_text not in (None, END_OF_TEXT):
            raise CorpusError(f"{spec}: always ends texts with {END_OF_TEXT}; leave out --end-of-text")
        return BUILT_IN[spec]()
    return load_subwords(spec, end_of_text)


def load_tokenizer_here(spec: str, end_of_text: str | None = None) -> Tokenizer | None:
    """`load_tokenizer` without network access: None for a name on the hub. Raises CorpusError."""
    return load_tokenizer(spec, end_of_text) if spec in BUILT_IN or is_path(spec) else None


def load_subwords(spec: str, end_of_text: str | None = None) -> SubwordTokenizer:
    """Load a tokenizer from a file, a folder or the hub; `end_of_text` replaces its token. Raises CorpusError."""
    path = user_path(spec)
    if path.is_file():
        return _from_json(spec, path, end_of_text)
    if not path.is_dir():
        if is_path(spec) or path.suffix == ".json":
            raise CorpusError(f"{spec}: no such file or folder")
        return _from_transformers(spec, end_of_text)
    if (path / DEFINITION).is_file():
        return _from_json(spec, path / DEFINITION, end_of_text)
    for vocab, merges in _GPT2_PAIRS:
        if (path / vocab).is_file() and (path / merges).is_file():
            return _gpt2(spec, path / vocab, path / merges, end_of_text)
    return _from_transformers(spec, end_of_text, path)


def _from_json(spec: str, path: Path, end_of_text: str | None) -> SubwordTokenizer:
    beside = TokenizerFiles.of_folder(path.parent)
    files = TokenizerFiles({**beside.contents, DEFINITION: path.read_bytes()}, str(path.parent))
    return from_files(spec, files, end_of_text, path)


def from_files(spec: str, files: TokenizerFiles, end_of_text: str | None, path: Path | str) -> SubwordTokenizer:
    """Load a tokenizer from its files; `path` is its tokenizer.json. Raises CorpusError."""
    import tokenizers

    backend = _parsed(lambda: tokenizers.Tokenizer.from_buffer(files.contents[DEFINITION]), path)
    end = end_of_text or end_token(path, backend, files)
    if backend.token_to_id(end) is None and end == files.special("eos_token"):
        backend = files.in_transformers().backend_tokenizer  # adds tokens that only tokenizer_config.json names
    _require_token(path, backend, end)
    return SubwordTokenizer(spec, backend, end, files)


def end_token(path: Path | str, backend: Any, files: TokenizerFiles) -> str:
    """The end-of-text token in its files, or the only common one in its vocabulary.

    Raises CorpusError listing the candidates if there are several or none.
    """
    if (said := files.special("eos_token")) is not None:
        return said
    if (said := _by_the_model(Path(files.where), backend)) is not None:
        return said
    found = [name for name in _END_NAMES if backend.token_to_id(name) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise CorpusError(
            f"{path}: {_listed(found)} could each be its end-of-text token; choose one with --end-of-text"
        )
    raise CorpusError(f"{path}: no end-of-text token ({_special_tokens(backend)}); choose one with --end-of-text")


def _by_the_model(folder: Path, backend: Any) -> str | None:
    """The end-of-text token in a model's configuration in the same folder."""
    for name in ("generation_config.json", "config.json"):
        try:
            said = parse_json((folder / name).read_bytes()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue  # missing, or damaged: reading the model raises the error
        number = said[0] if isinstance(said, list) and said else said
        if isinstance(number, int) and 0 <= number < MOST_IDS and (token := backend.id_to_token(number)) is not None:
            return str(token)
    return None


def _require_token(path: Path | str, backend: Any, token: str) -> None:
    if backend.token_to_id(token) is None:
        raise CorpusError(f'{path}: has no token "{token}" ({_special_tokens(backend)}); choose another --end-of-text')


def _special_tokens(backend: Any) -> str:
    found = [token.content for _, token in sorted(backend.get_added_tokens_decoder().items()) if token.special]
    return f"its special tokens: {_listed(found)}" if found else "it has no special tokens"


def _listed(tokens: Sequence[str]) -> str:
    shown = ", ".join(f'"{token}"' for token in tokens[:12])
    return shown if len(tokens) <= 12 else f"{shown} and {len(tokens) - 12} more"


def _gpt2(spec: str, vocab_file: Path, merges_file: Path, end_of_text: str | None) -> SubwordTokenizer:
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
    except Exception as error:  # tokenizers raises a bare Exception
        raise CorpusError(f"{vocab_file} and {merges_file.name}: not GPT-2's files ({first_line(error)})") from None
    if END_OF_TEXT not in vocab:
        raise CorpusError(f"{vocab_file}: has no {END_OF_TEXT}")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)])
    _require_token(vocab_file, backend, end_of_text or END_OF_TEXT)
    return SubwordTokenizer(spec, backend, end_of_text or END_OF_TEXT)


def _from_transformers(spec: str, end_of_text: str | None, folder: Path | None = None) -> SubwordTokenizer:
    import huggingface_hub
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        # Without this check, transformers requests each file and retries for a minute without network.
        files_in = folder or Path(
            huggingface_hub.snapshot_download(spec, allow_patterns=[*NAMES, "config.json"], ignore_patterns=["*/*"])
        )
        hf = transformers.AutoTokenizer.from_pretrained(files_in, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the hub client, the network and the file raise different errors
        if folder is not None:
            raise CorpusError(f"tokenizer {spec}: no tokenizer in this folder ({first_line(error)})") from None
        where = "offline mode is on" if os.environ.get("HF_HUB_OFFLINE") else "no network, or no such name"
        raise CorpusError(
            f'tokenizer "{spec}": not a local path, and the hub could not give it ({where}: {first_line(error)}); '
            "use bytes, characters, a folder, or `proctool tokenizer train`"
        ) from None
    if not getattr(hf, "is_fast", False):
        raise CorpusError(
            f'tokenizer "{spec}": has only a slow Python version, which is not supported; use a fast tokenizer'
        )
    eos = end_of_text or hf.eos_token or hf.sep_token
    with tempfile.TemporaryDirectory() as temporary:
        hf.save_pretrained(temporary)
        saved = TokenizerFiles.of_folder(Path(temporary)).contents
    came = TokenizerFiles.of_folder(files_in).contents if folder is None else {}
    files = TokenizerFiles({**saved, **came}, spec)
    backend = hf.backend_tokenizer
    eos = eos or end_token(spec, backend, files)
    _require_token(spec, backend, str(eos))
    return SubwordTokenizer(spec, backend, str(eos), files)
