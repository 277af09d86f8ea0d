"""The original files of a tokenizer, and how transformers loads them.

Training encodes text with the `tokenizers` JSON only (subwords.py). These files also set the tokens that begin, end and
pad a text, and the tokens added before and after every text. transformers interprets them, so that our scores begin
texts like the harness, and an exported folder has the same bytes.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool.errors import CorpusError
from proctool.untrusted import parse_json

DEFINITION, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
NAMES = (
    DEFINITION, SETTINGS, SPECIAL, "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model",
    "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""The files of a tokenizer; no other files are read, stored or written."""

_NO_LENGTH = 10**12
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """The contents of a tokenizer's files by name (see NAMES)."""

    contents: Mapping[str, bytes]
    where: str
    """Its name in errors."""

    @classmethod
    def of_folder(cls, folder: Path) -> TokenizerFiles:
        """Read the files of a folder. Raises CorpusError if one cannot be read."""
        try:
            held = {name: (folder / name).read_bytes() for name in NAMES if (folder / name).is_file()}
        except OSError as error:
            raise CorpusError(f"{folder}: {error.strerror or error}") from None
        return cls(held, str(folder))

    def write(self, folder: Path) -> None:
        """Write them into `folder`, byte for byte."""
        for name, content in self.contents.items():
            (folder / name).write_bytes(content)

    def special(self, name: str) -> str | None:
        """The token `name` (eos_token, ...) in tokenizer_config.json, else in special_tokens_map.json.

        Raises CorpusError if one of them is damaged.
        """
        for file in (SETTINGS, SPECIAL):
            said = self._values(file).get(name)
            if isinstance(token := said.get("content") if isinstance(said, dict) else said, str):
                return token
        return None

    def setting(self, name: str) -> Any:
        """An entry of tokenizer_config.json; None if it is missing. Raises CorpusError if the file is damaged."""
        return self._values(SETTINGS).get(name)

    def says_length(self) -> bool:
        """Whether they give the model's context; transformers writes a very large number if it is unknown."""
        length = self.setting("model_max_length")
        return isinstance(length, int | float) and 0 < length < _NO_LENGTH

    def with_length(self, tokens: int | None) -> TokenizerFiles:
        """The same files, with the context `tokens` added if they do not give one."""
        if tokens is None or self.says_length():
            return self
        settings = json.dumps({**self._values(SETTINGS), "model_max_length": tokens}, indent=2, ensure_ascii=False)
        return TokenizerFiles({**self.contents, SETTINGS: settings.encode()}, self.where)

    def _values(self, file: str) -> dict[str, Any]:
        try:
            values = parse_json(self.contents.get(file, b"{}"))
        except ValueError as error:
            raise CorpusError(f"{self.where}/{file}: damaged ({str(error).partition(chr(10))[0][:200]})") from None
        if not isinstance(values, dict):
            raise CorpusError(f"{self.where}/{file}: damaged (not a JSON object)")
        return values

    def in_transformers(self, model_type: str | None = None) -> Any:
        """The tokenizer that AutoTokenizer loads from these files, for a model of `model_type`."""
        import transformers

        logging.getLogger("transformers").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self.write(folder)
            if model_type is not None:
                (folder / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
            try:
                return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            except Exception:  # transformers has no common error; without a model it may find no class
                named = {name: token for name in SPECIAL_NAMES if (token := self.special(name)) is not None}
                return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / DEFINITION), **named)


@dataclass(frozen=True)
class Beginning:
    """The tokens before a text."""

    added: tuple[int, ...]
    """Ids that the tokenizer adds before every text."""
    first: tuple[int, ...]
    """Ids that predict the first token of a text: `added`, else bos, else end-of-text."""


def beginning_of(hf: Any, eos_id: int) -> Beginning:
    """How a text begins with a transformers tokenizer; the same as in lm-evaluation-harness."""
    added = added_by(hf)[0]
    first = added or ((int(hf.bos_token_id),) if hf.bos_token_id is not None else (eos_id,))
    return Beginning(added, first)


def added_by(hf: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a transformers tokenizer adds before and after every text."""
    for text in ("a", "0", "."):  # the tokenizer likely knows one of them
        plain = hf(text, add_special_tokens=False)["input_ids"]
        whole = hf(text)["input_ids"]
        for start in range(len(whole) - len(plain) + 1 if plain else 0):
            if whole[start : start + len(plain)] == plain:
                return tuple(whole[:start]), tuple(whole[start + len(plain) :])
    return (), ()
