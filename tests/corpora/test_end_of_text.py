"""Which token ends a text: what the files say, what the option says, and never a guess among several."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from proctool.corpora import load_tokenizer, open_corpus
from proctool.corpora.carried import load_record, record
from proctool.corpora.store import open_store
from proctool.errors import CorpusError

TWO = ("<|endoftext|>", "<|im_end|>")


def save(folder: Path, special: tuple[str, ...], **files: object) -> str:
    characters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({c: n for n, c in enumerate(characters)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": "<|im_end|>"}},
        {"tokenizer_config": {"eos_token": {"content": "<|im_end|>", "lstrip": False}}},
        {"special_tokens_map": {"eos_token": "<|im_end|>"}},
        {"special_tokens_map": {"eos_token": {"content": "<|im_end|>"}}, "tokenizer_config": {"eos_token": None}},
        {"tokenizer_config": {"eos_token": "<|im_end|>"}, "special_tokens_map": {"eos_token": "<|endoftext|>"}},
        {"config": {"model_type": "gpt2", "eos_token_id": 257}},
        {"config": {"eos_token_id": 256}, "generation_config": {"eos_token_id": [257, 256]}},
    ],
)
def test_the_files_say_it(tmp_path: Path, files: dict[str, object]) -> None:
    assert load_tokenizer(save(tmp_path / "t", TWO, **files)).eos_token == "<|im_end|>"


def test_a_token_that_the_settings_alone_have_gets_the_id_that_transformers_gives_it(tmp_path: Path) -> None:
    import transformers

    spec = save(tmp_path / "t", ("<pad>",), tokenizer_config={"eos_token": "<end>", "pad_token": "<pad>"})
    loaded = load_tokenizer(spec)
    theirs = transformers.AutoTokenizer.from_pretrained(spec)
    assert (loaded.eos_token, loaded.eos_id) == ("<end>", theirs.eos_token_id)
    assert load_record(record(loaded), "m").fingerprint == loaded.fingerprint


def test_one_usual_name_is_taken_and_of_several_none_is(tmp_path: Path) -> None:
    assert load_tokenizer(save(tmp_path / "one", ("</s>", "<s>"))).eos_token == "</s>"
    with pytest.raises(CorpusError, match=r'"<\|endoftext\|>", "<\|im_end\|>" could each be .*--end-of-text'):
        load_tokenizer(save(tmp_path / "two", TWO))
    with pytest.raises(CorpusError, match=r'no end-of-text token \(its special tokens: "<stop>"\).*--end-of-text'):
        load_tokenizer(save(tmp_path / "none", ("<stop>",)))


@pytest.mark.parametrize("end", TWO)
def test_the_option_decides_and_stores_are_told_apart_by_it(tmp_path: Path, end: str) -> None:
    spec = save(tmp_path / "t", TWO, tokenizer_config={"eos_token": "<|im_end|>"})
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(40)))
    chosen = load_tokenizer(spec, end)
    assert chosen.eos_token == end
    store = open_store(open_corpus(str(tmp_path / "c.jsonl")), chosen, 8, cache_dir=tmp_path / "cache")
    assert chosen.eos_id in store.split().read(np.arange(4)).tokens
    other = open_store(
        open_corpus(str(tmp_path / "c.jsonl")),
        load_tokenizer(spec, TWO[end == TWO[0]]),
        8,
        cache_dir=tmp_path / "cache",
    )
    assert store.folder != other.folder
    assert store.content != other.content
    assert load_record(record(chosen), "m").fingerprint == chosen.fingerprint


def test_a_token_that_is_none_is_one_line(tmp_path: Path) -> None:
    spec = save(tmp_path / "t", TWO)
    with pytest.raises(CorpusError, match=r'has no token "</s>" \(its special tokens: "<\|endoftext'):
        load_tokenizer(spec, "</s>")
    with pytest.raises(CorpusError, match="bytes: always ends texts with"):
        load_tokenizer("bytes", "</s>")
