"""What a configuration file of --model says is obeyed, or a line before training says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from proctool.corpora.carried import other_tokens
from proctool.corpora.subwords import from_definition, load_subwords
from proctool.corpora.tokenizers import ByteTokenizer
from proctool.evaluation.mathematics import greedy
from proctool.models.saved import open_model
from proctool.models.shapes import LONGEST_DEFAULT_CONTEXT, default_context
from proctool.training.options import PretrainOptions
from tests.conftest import Said
from tests.models.folders import write_folder
from tests.models.tiny import tiny

Run = Callable[..., Said]
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip


def configuration(**values: Any) -> Path:
    path = Path("llama.json")
    path.write_text(json.dumps(LLAMA | values))
    return path


def pretrain(proctool: Run, text: Path, *more: object) -> Said:
    return proctool(
        "pretrain", "--corpus", text, "--steps", 1, "--batch-size", 2, "--eval-samples", 4, "-o", "m", *more
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "said"), [(257, None), (300, "keeps 300 rows"), (None, None)])
def test_a_larger_vocabulary_is_kept_as_padding(rows: int | None, said: str | None, proctool: Run, text: Path) -> None:
    given = {} if rows is None else {"vocab_size": rows}
    told = pretrain(proctool, text, "--model", configuration(**given), "--context", 8)
    assert told.code == 0, told.err
    assert open_model(Path("m")).config.vocab_size == (rows or 257)
    assert ("vocab_size" in told.err) == (said is not None)
    assert (
        said is None or f"llama.json: vocab_size is 300 and the tokenizer has 257 tokens; the model {said}" in told.err
    )


def test_a_smaller_vocabulary_is_an_error(proctool: Run, text: Path) -> None:
    told = pretrain(proctool, text, "--model", configuration(vocab_size=100))
    assert told.code == 1
    assert told.line.endswith(
        "vocab_size is 100 but the tokenizer has 257 tokens; set vocab_size to 257 or leave it out"
    )


def test_what_a_warmup_does_not_obey_is_said(proctool: Run) -> None:
    path = configuration(vocab_size=300, max_position_embeddings=64)
    told = proctool("warmup", "--task", "set:inputs=2,symbols=4", "--model", path, "--steps", 1, "--eval-samples", 4)
    assert told.code == 0, told.err
    assert "vocab_size is 300, but the model uses" in told.err
    assert "max_position_embeddings is 64, but the model uses" in told.err


@pytest.mark.parametrize(
    ("written", "expected"),
    [({"max_position_embeddings": 24}, 24), ({}, 128), ({"max_position_embeddings": 1 << 17}, LONGEST_DEFAULT_CONTEXT)],
)
def test_the_context_is_the_configurations(written: dict[str, int], expected: int, proctool: Run) -> None:
    path = configuration(**written)
    assert PretrainOptions(model=str(path)).context == expected
    assert PretrainOptions(model=str(path), context=8).context == 8
    assert default_context("2x2x16") == PretrainOptions().context == 128


def test_another_context_is_said_and_the_same_is_not(proctool: Run, text: Path) -> None:
    path = configuration(max_position_embeddings=12)
    told = pretrain(proctool, text, "--model", path)
    assert told.code == 0, told.err
    assert "max_position_embeddings" not in told.err
    assert open_model(Path("m")).config.max_position_embeddings == 12
    told = pretrain(proctool, text, "--model", path, "--context", 8, "--resume", "never")
    assert "llama.json: max_position_embeddings is 12, but the model uses 8" in told.err


# -- padded vocabularies and copied rows --


@pytest.fixture
def tokenizers(proctool: Run, text: Path) -> list[Path]:
    """Two of one size, of different text."""
    (text.parent / "other").mkdir()
    for number in range(60):
        (text.parent / "other" / f"{number}.txt").write_text(
            "".join(f"{chr(97 + (number + n) % 26)}w uv xyz " for n in range(40))
        )
    for name, corpus in (("one", text), ("two", text.parent / "other")):
        made = proctool("tokenizer", "train", "--corpus", corpus, "--vocab-size", 280, "-o", name)
        assert made.code == 0, made.err
    return [Path("one"), Path("two")]


@pytest.mark.parametrize("model", ["hf", "2x2x16"])
def test_a_donor_with_more_rows_than_tokens_is_trained_scored_and_exported_whole(
    model: str, proctool: Run, text: Path, tokenizers: list[Path], tmp_path: Path
) -> None:
    weights = write_folder(tmp_path / "hf", vocab_size=320)
    for path in tokenizers[0].iterdir() if tokenizers[0].is_dir() else [tokenizers[0]]:
        (tmp_path / "hf" / path.name).write_bytes(path.read_bytes())
    told = pretrain(
        proctool, text, "--model", model, "--family", "llama", "--tokenizer", tokenizers[0], "--init", "hf",
        "--embeddings", "copy", "--context", 8, "--lr", "1e-12",
    )  # fmt: skip
    assert told.code == 0, told.err
    rows = open_model(Path("m")).weights()["model.embed_tokens.weight"]
    torch.testing.assert_close(rows, weights["model.embed_tokens.weight"], atol=1e-6, rtol=0)
    assert proctool("export", "m", "out").code == 0
    scores = [
        json.loads(proctool("eval", "perplexity", each, "--corpus", text, "--json").out)["loss"]
        for each in ("m", "out")
    ]
    assert scores[0] == pytest.approx(scores[1])
    assert open_model(Path("out")).config.vocab_size == 320
    assert proctool("transplant", "--base", "hf", "--attention", "m", "--embeddings", "copy", "-o", "t").code == 0
    assert open_model(Path("t")).config.vocab_size == 320


def test_rows_of_another_tokenizer_of_one_size_are_not_copied(
    proctool: Run, text: Path, tokenizers: list[Path]
) -> None:
    shape = ("--model", "1x2x16", "--context", 8)
    assert pretrain(proctool, text, *shape, "--tokenizer", tokenizers[0]).code == 0
    again = (*shape, "--init", "m", "--embeddings", "copy", "-o", "n")
    refused = pretrain(proctool, text, *again, "--tokenizer", tokenizers[1])
    assert refused.code == 1
    assert "differ in the tokenizer of m, so its rows cannot be copied" in refused.line
    assert pretrain(proctool, text, *again, "--tokenizer", tokenizers[0]).code == 0


def test_tokenizers_are_compared_by_what_their_ids_stand_for(tokenizers: list[Path]) -> None:
    one, two = (load_subwords(str(path)) for path in tokenizers)
    assert other_tokens(one, from_definition("renamed", one.definition, one.eos_token)) == (0, 0)
    assert 0 < other_tokens(one, two).ordinary < one.vocab_size
    renamed = from_definition("renamed", one.definition.replace(one.eos_token, "<end>"), "<end>")
    assert other_tokens(one, renamed) == (0, 1)
    assert other_tokens(ByteTokenizer(), one).ordinary > 200
    assert other_tokens(one, ByteTokenizer()).special > 0  # ids that it does not have


def test_rows_that_pad_the_embeddings_are_never_chosen() -> None:
    import numpy as np

    model = tiny("gpt2", 1)
    with torch.no_grad():
        model.get_output_embeddings().weight[20:] *= 1000
    prompts, most = np.array([[1, 2, 3]], np.uint16), np.array([4])
    assert max(greedy(model, prompts, most, 0)[0]) >= 20
    assert max(greedy(model, prompts, most, 0, 20)[0]) < 20
