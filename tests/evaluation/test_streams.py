"""Where results go: standard output holds them alone, in words or as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from proctool.cli.evaluate import _EVALUATIONS
from proctool.evaluation.options import DIAGNOSTICS
from tests.conftest import Said
from tests.evaluation.speakers import AGREEMENT, save_speaker, write_pairs

TINY = ("--steps", 1, "--batch-size", 2, "--eval-samples", 2, "--model", "1x2x16", "--ramp-steps", 0)
COMMANDS = {
    "perplexity": ("m.safetensors", "--corpus", "text", "--per-position", "at.csv"),
    "mathematics": ("m.safetensors", "--corpus", "mathematics:tree"),
    "blimp": ("m.safetensors", "--data", "pairs.jsonl"),
    "interpret": ("m.safetensors", "--length", 8),
    "finetune": ("wikitext", "--data", "text", "--tokenizer", "bytes", "--context", 16, *TINY),
    **dict.fromkeys(DIAGNOSTICS, TINY),
}
RESULT = {
    "perplexity": "nats per token", "mathematics": "accuracy", "blimp": "BLiMP", "interpret": "random tokens",
    "finetune": "perplexity", **dict.fromkeys(DIAGNOSTICS, "accuracy"),
}  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path, text: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    write_pairs(tmp_path / "pairs.jsonl", AGREEMENT, "verbs")
    for level in ("train-easy", "interpolate"):
        (tmp_path / "tree" / level).mkdir(parents=True)
        (tmp_path / "tree" / level / "arithmetic__doubles.txt").write_text("What is 2 plus 2?\n4\n")


def test_every_evaluation_is_looked_at() -> None:
    assert set(COMMANDS) | {"harness"} == set(_EVALUATIONS)  # the harness: test_harness.py


@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output_holds_results_alone(proctool: Callable[..., Said], inputs: None, name: str) -> None:
    said = proctool("eval", name, *COMMANDS[name])
    assert said.code == 0, said.err
    assert RESULT[name] in said.out
    assert RESULT[name] not in said.err
    assert "metrics in" not in said.out  # where files are is no result
    machine = proctool("eval", name, *COMMANDS[name], "--json")
    assert machine.code == 0, machine.err
    assert [json.loads(line)["event"] for line in machine.out.splitlines()]
    assert RESULT[name] in machine.err


def test_one_helper_keeps_words_and_json_apart(capsys: pytest.CaptureFixture[str]) -> None:
    from proctool.cli.display import Results

    for as_json in (False, True):
        results = Results(json=as_json)
        results.line("words")
        results.table({"head": "left"}, [["cell"]])
        results.emit({"event": "a"}, {"event": "b"})
        said = capsys.readouterr()
        words, other = (said.err, said.out) if as_json else (said.out, said.err)
        assert "words" in words
        assert "cell" in words
        assert [json.loads(line)["event"] for line in other.splitlines()] == (["a", "b"] if as_json else [])
