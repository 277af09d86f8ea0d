"""BLiMP: sums of log-probabilities as a plain loop computes them, whatever the batch, and a line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from proctool.evaluation.blimp import BlimpOptions, blimp, encode, log_probabilities, read_pairs
from proctool.evaluation.eval_model import open_subject
from proctool.models.saved import open_model
from tests.conftest import Said
from tests.evaluation.speakers import AGREEMENT, REFLEXIVES, save_speaker, write_pairs


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    folder.mkdir()
    write_pairs(folder / "b.jsonl", AGREEMENT, "verbs")
    write_pairs(folder / "a.jsonl", REFLEXIVES, "reflexives", "anaphora")
    write_pairs(folder / "c.jsonl", [(bad, good) for good, bad in AGREEMENT[:3]], "verbs_turned")
    return folder


def plain_score(model: torch.nn.Module, sentence: str) -> float:
    ids = torch.tensor([256, *f" {sentence}".encode()])
    with torch.no_grad():
        logits = model(ids[None, :-1]).logits[0].double()
    return float(sum(logits[place].log_softmax(-1)[token] for place, token in enumerate(ids[1:])))


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_sentences_score_as_in_a_plain_loop(tmp_path: Path, batch_size: int) -> None:
    subject = open_subject(save_speaker(tmp_path / "m.safetensors"), None)
    texts = [sentence for pair in AGREEMENT + REFLEXIVES for sentence in pair]
    model = subject.saved.model().eval()
    found = log_probabilities(model, encode(subject, texts, leading_space=True), batch_size)
    assert found.tolist() == pytest.approx([plain_score(model, text) for text in texts], rel=1e-5)


def test_accuracy_counts_the_more_likely_sentence_per_paradigm_and_phenomenon(tmp_path: Path, pairs: Path) -> None:
    path = save_speaker(tmp_path / "m.safetensors")
    model = open_model(path).model().eval()
    right = [plain_score(model, good) > plain_score(model, bad) for good, bad in AGREEMENT]
    results = [blimp(path, BlimpOptions(data=str(pairs), batch_size=size)) for size in (1, 7, 64)]
    assert results[0] == results[1] == results[2]
    paradigms, phenomena = results[0]["paradigms"], results[0]["phenomena"]
    assert paradigms["verbs"]["accuracy"] == pytest.approx(sum(right) / 7)
    assert paradigms["verbs_turned"]["accuracy"] == pytest.approx(1 - sum(right[:3]) / 3)
    assert phenomena["agreement"]["accuracy"] == pytest.approx((sum(right) + 3 - sum(right[:3])) / 10)
    assert phenomena["anaphora"]["pairs"] == 7
    assert results[0]["accuracy"] == pytest.approx(sum(each["accuracy"] for each in paradigms.values()) / 3)
    assert blimp(path, BlimpOptions(data=str(pairs), limit=2))["pairs"] == 6


def test_of_two_equal_scores_the_first_wins(tmp_path: Path) -> None:
    same = write_pairs(tmp_path / "same.jsonl", [("It is so.", "It is so.")] * 2, "same")
    assert blimp(save_speaker(tmp_path / "m.safetensors"), BlimpOptions(data=str(same)))["accuracy"] == 1


def test_the_command_prints_a_table_and_json_that_names_what_was_measured(
    proctool: Callable[..., Said], tmp_path: Path, pairs: Path
) -> None:
    save_speaker(tmp_path / "m.safetensors")
    said = proctool("eval", "blimp", "m.safetensors", "--data", pairs, "--json")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result["pairs"] == 17
    assert len(result["data_sha256"]) == len(result["content"]) == 64
    assert "reflexives" in said.err
    assert "BLiMP" in said.err


def lines(*rows: Any) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


WHOLE = {"sentence_good": "a", "sentence_bad": "b", "UID": "u", "linguistics_term": "t"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(WHOLE, {**WHOLE, "UID": None}), 'line 2: the field "UID" has no text'),
        (lines({key: value for key, value in WHOLE.items() if key != "sentence_bad"}), '"sentence_bad"'),
        (lines(WHOLE, "", "{"), "line 3: not JSON"),
        (lines([1]), "line 1: not a JSON object"),
        ("\n", "has no pairs"),
        (lines({**WHOLE, "sentence_bad": "long " * 20}), "does not fit the model's context of"),
    ],
)
def test_bad_data_is_one_line(proctool: Callable[..., Said], tmp_path: Path, content: str, message: str) -> None:
    save_speaker(tmp_path / "m.safetensors")
    (tmp_path / "bad.jsonl").write_text(content)
    said = proctool("eval", "blimp", "m.safetensors", "--data", "bad.jsonl")
    assert said.code == 1
    assert message in said.line


def test_what_cannot_be_asked_is_one_line(proctool: Callable[..., Said], tmp_path: Path, pairs: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    save_speaker(tmp_path / "warm.safetensors", metadata={"task": "set"})
    (tmp_path / "empty").mkdir()
    for model, data, message in [
        ("m.safetensors", "nowhere.jsonl", "no such file or folder"),
        ("m.safetensors", "empty", "no .jsonl files"),
        ("m.safetensors", "nyu-mll/blimp", "cannot be loaded from the hub"),
        ("warm.safetensors", pairs, "has no tokenizer"),
        ("gone.safetensors", pairs, "no such file"),
    ]:
        said = proctool("eval", "blimp", model, "--data", data)
        assert said.code == 1
        assert message in said.line


def test_a_single_file_is_read_as_its_folder_is(pairs: Path) -> None:
    assert [pair for name in "abc" for pair in read_pairs(str(pairs / f"{name}.jsonl"))] == read_pairs(str(pairs))
