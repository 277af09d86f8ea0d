"""Bits per byte: over the bytes of the documents as they are, and lossless by what is scored, the last document too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from proctool.corpora.catalog import open_corpus
from proctool.corpora.subwords import load_tokenizer
from proctool.evaluation.options import PerplexityOptions
from proctool.evaluation.perplexity import perplexity
from tests.conftest import Said
from tests.evaluation.speakers import save_speaker

NORMALIZERS = {
    "exact": None,
    "nfkc": tokenizers.normalizers.NFKC(),
    "nfd": tokenizers.normalizers.NFD(),
    "lowercase": tokenizers.normalizers.Lowercase(),
    "strip": tokenizers.normalizers.Strip(),
}
END = "<|endoftext|>"


def save_byte_level(folder: Path, name: str) -> Path:
    characters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({END: 0} | {c: n for n, c in enumerate(characters, 1)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    if NORMALIZERS[name] is not None:
        backend.normalizer = NORMALIZERS[name]
    return written(folder, backend)


def save_byte_fallback(folder: Path, *, fallback: bool) -> Path:
    vocabulary = {END: 0, "<unk>": 1} | {f"<0x{byte:02X}>": byte + 2 for byte in range(256)}
    vocabulary |= {character: 258 + number for number, character in enumerate("abcdefghijklmnop ")}
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=fallback, fuse_unk=False)
    )
    backend.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()])
    return written(folder, backend)


def written(folder: Path, backend: tokenizers.Tokenizer) -> Path:
    backend.add_special_tokens([tokenizers.AddedToken(END, special=True, normalized=False)])
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    return folder


def scored(tmp_path: Path, tokenizer: str | Path, texts: list[bytes]) -> dict[str, object]:
    """Documents byte for byte, as source files are read."""
    (tmp_path / "src").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "src" / f"{number:04}.py").write_bytes(text)
    loaded = load_tokenizer(str(tokenizer))
    model = save_speaker(tmp_path / "m.safetensors", tokenizer=loaded)
    return perplexity(model, PerplexityOptions(corpus=str(tmp_path / "src"), split="train"))


@pytest.mark.parametrize(
    ("name", "odd", "lossless"),
    [
        ("exact", "é – ∑ \N{FULLWIDTH LATIN SMALL LETTER F}", True),
        ("exact", "a\r\nb\rc\n", True),
        ("exact", "\N{ZERO WIDTH NO-BREAK SPACE}begins with a BOM", True),
        ("exact", "\N{REPLACEMENT CHARACTER} itself", True),
        ("exact", f"{END} spelled", True),
        ("nfkc", "\N{FULLWIDTH LATIN SMALL LETTER F}ull", False),
        ("nfkc", "plain", True),
        ("nfd", "é", False),
        ("lowercase", "Upper", False),
        ("lowercase", "lower", True),
        ("strip", " spaced ", False),
    ],
)
def test_lossless_is_whether_the_scored_documents_come_back(
    tmp_path: Path, name: str, odd: str, lossless: bool
) -> None:
    plain = [f"plain {number} text".encode() for number in range(250)]
    found = scored(
        tmp_path, save_byte_level(tmp_path / "tok", name), [*plain, *(f"{odd}{n}".encode() for n in range(8))]
    )
    documents = [each.content for each in open_corpus(str(tmp_path / "src")).documents("train")]
    assert found["lossless"] is lossless
    assert found["lossy"]["documents"] == (0 if lossless else sum(odd.encode() in each for each in documents))
    assert found["bytes"] == sum(map(len, documents))
    nats = found["loss"] * found["targets"]
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"])


@pytest.mark.parametrize(("fallback", "lossless"), [(True, True), (False, False)])
def test_unknown_characters_are_lost_but_for_byte_fallback(tmp_path: Path, fallback: bool, lossless: bool) -> None:
    found = scored(tmp_path, save_byte_fallback(tmp_path / "tok", fallback=fallback), ["a b é".encode()])
    assert found["lossless"] is lossless


def test_bytes_that_are_not_utf8_are_counted_as_they_are_and_named(
    proctool: Callable[..., Said], tmp_path: Path
) -> None:
    texts = [b"# -*- coding: latin-1 -*-\n# " + b"\xe9" * 30 + str(number).encode() for number in range(3)]
    save_byte_level(tmp_path / "tok", "exact")
    found = scored(tmp_path, tmp_path / "tok", texts)
    assert found["bytes"] == sum(map(len, texts))
    assert found["lossless"] is False
    assert found["lossy"] == {"documents": 3, "not_utf8": 3, "first": 1}
    said = proctool("eval", "perplexity", "m.safetensors", "--corpus", "src", "--split", "train")
    assert "3 of the 3 documents are not UTF-8" in said.err
    assert "not comparable" in said.err
    exact = perplexity(
        save_speaker(tmp_path / "b.safetensors"), PerplexityOptions(corpus=str(tmp_path / "src"), split="train")
    )
    assert exact["lossless"]
    assert exact["targets"] == exact["bytes"] + exact["documents"]


def test_of_questions_the_answers_alone_must_come_back(tmp_path: Path) -> None:
    for level in ("train-easy", "interpolate"):
        (tmp_path / "tree" / level).mkdir(parents=True)
        rows = "".join(f"What is Twice {number}?\n{2 * number}\n" for number in range(4, 12))
        (tmp_path / "tree" / level / "arithmetic__doubles.txt").write_text(rows)
    loaded = load_tokenizer(str(save_byte_level(tmp_path / "tok", "lowercase")))
    model = save_speaker(tmp_path / "m.safetensors", tokenizer=loaded)
    assert perplexity(model, PerplexityOptions(corpus=f"mathematics:{tmp_path / 'tree'}"))["lossless"]


def test_more_documents_asked_for_than_there_are_is_said(proctool: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(3)))
    save_speaker(tmp_path / "m.safetensors")
    command = ("eval", "perplexity", "m.safetensors", "--corpus", "c.jsonl", "--split", "train", "--documents")
    assert "the split has 3 documents, fewer than --documents 9" in proctool(*command, 9).err
    assert "fewer" not in proctool(*command, 3).err
