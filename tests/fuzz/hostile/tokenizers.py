"""Tokenizer files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fuzz.hostile.cases import RUN_ME, case
from tests.fuzz.hostile.tiny import TINY


def _tokenizer(folder: Path, **files: Any) -> list[str]:
    where = folder / "tokenizer"
    where.mkdir()
    for name, contents in files.items():
        written = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
        (where / name.replace("__", ".")).write_bytes(written)
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("some text\n" * 50)
    return [
        *("corpus", "build", "--corpus", str(folder / "text"), "--tokenizer", str(where), "--context", "8"),
        *("--cache-dir", str(folder / "cache")),
    ]


def _bpe(vocab: Any) -> dict[str, Any]:
    return {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": []}}


@case
def a_tokenizer_with_code_of_its_own(folder: Path) -> list[str]:
    asked = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    return _tokenizer(folder, tokenizer_config__json=asked, evil__py=RUN_ME.encode(), config__json=TINY)


@case
def a_tokenizer_of_an_odd_class(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer_config__json={"tokenizer_class": "os.system"}, config__json=TINY)


@case
def a_tokenizer_of_four_billion_ids(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer__json=_bpe({"a": 0, "<|endoftext|>": 4_294_967_295}))


@case
def a_tokenizer_without_a_vocabulary(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer__json=_bpe({}))


@case
def a_tokenizer_of_nested_lists(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer__json=b"[" * 200_000)


@case
def a_tokenizer_whose_end_is_a_list(folder: Path) -> list[str]:
    asked = {"eos_token": ["x"]}
    return _tokenizer(folder, tokenizer__json=_bpe({"a": 0, "</s": 1}), tokenizer_config__json=asked)


@case
def tokenizer_settings_nested_beyond_reason(folder: Path) -> list[str]:
    vocab = _bpe({"a": 0, "<|endoftext|>": 1})
    return _tokenizer(folder, tokenizer__json=vocab, tokenizer_config__json=b"[" * 200_000)
