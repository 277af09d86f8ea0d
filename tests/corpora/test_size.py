"""The number of a corpus's tokens before it is read: counted in a store, else close, and never downloaded."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from proctool.corpora import load_tokenizer, open_corpus, open_store
from proctool.corpora.size import corpus_size


def words(number: int) -> str:
    draw = random.Random(number)
    return " ".join("".join(draw.choices("abcdefgh", k=draw.randint(1, 9))) for _ in range(draw.randint(5, 300)))


def write(folder: Path, form: str) -> Path:
    texts = [words(number) for number in range(400)]
    if form == "lines":
        records = (json.dumps({"text": text, "number": [1] * 50}) for text in texts)
        (folder / "a.jsonl").write_text("\n".join(records))
    elif form == "book":
        (folder / "a.txt").write_text("\n\n".join(texts * 4))
    elif form == "packed":
        (folder / "a.txt.gz").write_bytes(gzip.compress("\n\n".join(texts).encode()))
    else:
        for number, text in enumerate(texts):
            (folder / f"{number:03}.txt").write_text(text)
    return folder


@pytest.mark.parametrize("form", ["lines", "book", "packed", "files"])
def test_an_estimate_is_close_and_a_store_is_counted(form: str, tmp_path: Path) -> None:
    (folder := tmp_path / "texts").mkdir()
    name, cache = str(write(folder, form)), tmp_path / "cache"
    before = corpus_size(name, "bytes", cache_dir=cache)
    store = open_store(open_corpus(name), load_tokenizer("bytes"), 16, cache_dir=cache)
    counted = corpus_size(name, "bytes", cache_dir=cache)
    assert (counted.is_counted, counted.tokens) == (True, store.count("train"))
    assert not before.is_counted
    assert before.tokens == pytest.approx(counted.tokens, rel=0.1)
    open_store(open_corpus(name), load_tokenizer("bytes"), 16, budget=100, cache_dir=tmp_path / "other")
    assert corpus_size(name, "bytes", cache_dir=tmp_path / "other").tokens != 100


def test_the_hub_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctool.corpora.hub._ask_the_hub", None)
    for name in ("c4", "hub:someone/something"):
        assert "not in the cache" in corpus_size(name, "bytes", cache_dir=tmp_path).unknown
    listing = {split: {"revision": "a" * 40, "files": 2} for split in ("train", "validation")}
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "c4.json").write_text(json.dumps(listing))
    assert "token store is not built" in corpus_size("c4", "bytes", cache_dir=tmp_path).unknown
    assert "tokenizer gpt2" in corpus_size("python", "gpt2", cache_dir=tmp_path).unknown
