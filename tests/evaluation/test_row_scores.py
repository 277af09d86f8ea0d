"""`eval perplexity --rows`: the validation loss of training, to the last bit; and why the loss of documents differs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRAINED = ("--tokenizer", "bytes", "--model", "2x2x16", "--steps", 4, "--batch-size", 4, "--eval-every", 2)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    draw = random.Random(0)
    texts = ("".join(draw.choices("the cat sat. ", k=draw.randint(20, 300))) for _ in range(400))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "b.txt").write_text("A cat is a cat.\n\n" * 40)
    return tmp_path / "a.jsonl"


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        (("--context", 24), ()),
        (("--context", 24, "--precision", "bf16", "--budget", 9000, "--eval-split", "test"), ()),
        (("--context", 32, "--family", "llama", "--save", "best"), ()),
        (("--context", 24, "--validation", "b.txt"), ("--validation", "b.txt")),
    ],
)
def test_rows_give_the_loss_that_training_reported(
    proctool: Callable[..., Any], corpus: Path, flags: tuple[object, ...], same: tuple[object, ...]
) -> None:
    made = proctool("pretrain", "--corpus", corpus, *TRAINED, *flags, "--eval-samples", 20, "-o", "m.st", "--json")
    assert made.code == 0, made.err
    end = json.loads(made.out)
    said = proctool("eval", "perplexity", "m.st", "--corpus", corpus, *same)
    assert f"reported a validation loss of {end['loss']:.4f}, on the first 20 rows" in said.err
    rows = json.loads(proctool("eval", "perplexity", "m.st", "--corpus", corpus, *same, "--rows", 20, "--json").out)
    assert rows["as_in_training"]
    assert (rows["loss"], rows["accuracy"]) == (end["loss"], end["accuracy"])
    assert rows["loss_parts"]["bands"] == end["loss_parts"]["bands"] or "best" in flags
    assert rows["loss"] != json.loads(proctool("eval", "perplexity", "m.st", "--corpus", corpus, "--json").out)["loss"]


def test_other_rows_are_not_called_those_of_training(proctool: Callable[..., Any], corpus: Path) -> None:
    proctool("pretrain", "--corpus", corpus, *TRAINED, "--context", 24, "-o", "m.st")
    command = ("eval", "perplexity", "m.st", "--corpus")
    assert "validation loss" not in proctool(*command, corpus, "--split", "train").err
    assert "validation loss" not in proctool(*command, "b.txt").err
    for flags in ((corpus, "--context", 16), ("b.txt", "--split", "train")):
        said = proctool(*command, *flags, "--rows", 5000)
        assert "these are not the rows of its training" in said.err
        assert "fewer than --rows 5000" in said.err
    assert "--stride is for documents" in proctool(*command, corpus, "--rows", 5, "--stride", 2).line
