"""Exported folders: the tokenizer byte for byte, ids that agree, generation settings kept where they can be."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from proctool.export.folder import export
from proctool.models.saved import open_model
from tests.conftest import Said
from tests.evaluation.foreign import BOS, EOS, KINDS, PAD, VOCABULARY, save_llama

SAMPLING = {"temperature": 0.6, "top_p": 0.9, "top_k": 20}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    # name: (into generation_config.json, into config.json, settings that have to go)
    "sampling": ({"do_sample": True, **SAMPLING}, {}, ()),
    "sampling off": ({"do_sample": False, **SAMPLING}, {}, ("temperature", "top_k", "top_p")),
    "sampling not said": (SAMPLING, {}, ("temperature", "top_k", "top_p")),
    "min_p alone": ({"min_p": 0.1}, {}, ("min_p",)),
    "beams without beams": ({"early_stopping": True, "length_penalty": 0.5}, {}, ("early_stopping", "length_penalty")),
    "beams": ({"num_beams": 4, "early_stopping": True, "length_penalty": 0.5}, {}, ()),
    "several by sampling": ({"num_return_sequences": 3, "do_sample": True}, {}, ()),
    "lengths": ({"max_new_tokens": 5, "repetition_penalty": 1.2}, {}, ()),
    "in the configuration": ({}, {"do_sample": True, **SAMPLING}, ()),
    "in the configuration, off": ({}, {"temperature": 0.6}, ("temperature",)),
    "in both": ({"do_sample": True, "top_p": 0.9}, {"do_sample": True, "temperature": 0.6}, ()),
    "a pad that is none": ({"pad_token_id": -1, "do_sample": True}, {"pad_token_id": -1}, ()),
}


def with_values(path: Path, **values: Any) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**known, **values}))


@pytest.mark.parametrize("name", VARIANTS)
def test_generation_settings_never_stop_an_export(tmp_path: Path, name: str) -> None:
    generation, config, gone = VARIANTS[name]
    folder = save_llama(tmp_path / "hf")
    with_values(folder / "config.json", **config)
    if generation:
        with_values(folder / "generation_config.json", **generation)
    else:
        (folder / "generation_config.json").unlink()
    found = export(open_model(folder), tmp_path / "out")
    written = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    written.validate(strict=True)
    for key, value in generation.items() if generation else config.items():
        if key not in gone and not key.endswith("_token_id"):
            assert getattr(written, key) == value, key
    assert set(gone) <= set(found.left_out)
    assert (written.bos_token_id, written.eos_token_id, written.pad_token_id) == (BOS, EOS, PAD)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_settings_that_transformers_does_not_even_read_are_one_line(
    proctool: Callable[..., Said], tmp_path: Path
) -> None:
    with_values(save_llama(tmp_path / "hf") / "generation_config.json", num_return_sequences=3)
    said = proctool("export", "hf", "out")
    assert said.code == 1
    assert "num_return_sequences" in said.line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", KINDS)
def test_a_folders_tokenizer_is_exported_byte_for_byte(tmp_path: Path, name: str) -> None:
    folder = save_llama(tmp_path / "hf", KINDS[name])
    (folder / "special_tokens_map.json").write_text('{"eos_token":  "</s>"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    export(open_model(folder), tmp_path / "out")
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        assert (tmp_path / "out" / file).read_bytes() == (folder / file).read_bytes()
    came, left = (transformers.AutoTokenizer.from_pretrained(each) for each in (folder, tmp_path / "out"))
    assert came("<s>hi</s>")["input_ids"] == left("<s>hi</s>")["input_ids"]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({}, {}),
        ({"bos_token_id": 7, "eos_token_id": 9, "pad_token_id": None}, {}),
        ({"eos_token_id": [EOS, 9]}, {}),
        ({"bos_token_id": -1, "eos_token_id": 10**6}, {}),
        ({"bos_token_id": None}, {"bos_token": "</s>"}),
    ],
)
def test_configuration_generation_and_tokenizer_agree(
    tmp_path: Path, config: dict[str, Any], named: dict[str, str]
) -> None:
    folder = save_llama(tmp_path / "hf")
    with_values(folder / "config.json", **config)
    with_values(folder / "generation_config.json", **config)
    with_values(folder / "tokenizer_config.json", **named)
    export(open_model(folder), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for file in ("config.json", "generation_config.json"):
        values = json.loads((tmp_path / "out" / file).read_text())
        for name, number in ids.items():
            assert values[name] == (config[name] if isinstance(config.get(name), list) else number), (file, name)


def test_a_tokenizer_without_settings_is_exported_with_its_end(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "hf")
    (folder / "tokenizer_config.json").unlink()
    export(open_model(folder), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token_id == EOS
    assert tokenizer("x")["input_ids"] == [BOS, VOCABULARY["x"]]


@pytest.mark.parametrize("ends", [True, False])
def test_a_length_is_added_only_where_no_file_came(proctool: Callable[..., Said], tmp_path: Path, ends: bool) -> None:
    folder = save_llama(tmp_path / "hf")
    settings = folder / "tokenizer_config.json"
    with_values(settings, model_max_length=int(1e30))
    before = settings.read_bytes()
    assert "tokenizer_config.json is unchanged and sets no model_max_length; the model reads at most 64 tokens" in (
        proctool("export", "hf", "one").err
    )
    assert Path("one/tokenizer_config.json").read_bytes() == before
    settings.unlink()
    if ends:
        (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    assert "is unchanged" not in proctool("export", "hf", "two").err
    assert transformers.AutoTokenizer.from_pretrained("two").model_max_length == 64
    assert Path("two/tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes() or not ends


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_new_files_get(proctool: Callable[..., Said], tmp_path: Path, mask: int) -> None:
    save_llama(tmp_path / "hf")
    before = os.umask(mask)
    try:
        assert proctool("export", "hf", "out").code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize(("tokenizer", "end"), [("bytes", 256), ("bpe", 269)])
def test_a_model_that_proctool_made_says_how_much_it_reads(
    proctool: Callable[..., Said], tmp_path: Path, text: Path, tokenizer: str, end: int
) -> None:
    for command in (
        ("tokenizer", "train", "--corpus", text, "--vocab-size", 270, "-o", "bpe"),
        ("pretrain", "--corpus", text, "--tokenizer", tokenizer, "--model", "1x2x16", "--context", 16, "--steps", 1,
         "--batch-size", 2, "-o", "m"),
        ("export", "m", "hf"),
    ):  # fmt: skip
        said = proctool(*command)
        assert said.code == 0, said.err
    loaded = transformers.AutoTokenizer.from_pretrained("hf")
    assert loaded.model_max_length == 16
    assert loaded.bos_token_id == loaded.eos_token_id == end
    if tokenizer == "bpe":
        came, left = ((tmp_path / folder / "tokenizer.json").read_bytes() for folder in ("bpe", "hf"))
        assert came == left
