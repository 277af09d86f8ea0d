"""What a recipe's stages will read is looked at before any of them trains, by `run` and by its dry run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_experiment import COMMAND, planned, values

from proctool.corpora import open_corpus
from proctool.corpora.preview import require_rows
from proctool.corpora.store import open_store
from proctool.corpora.tokenizers import ByteTokenizer
from proctool.errors import CorpusError
from proctool.experiment.inputs import check_inputs


@pytest.fixture
def run(proctool: Callable[..., Any], text: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`proctool run` with the stand-in for training, on the small text where the changes name no corpus."""
    monkeypatch.setattr("proctool.experiment.launch.PROCTOOL", COMMAND)

    def runs(changes: dict[str, Any], *words: str) -> Any:
        Path("r.yaml").write_text(yaml.safe_dump(values(**{"corpus": "text", "context": 24} | changes)))
        return proctool("run", "r.yaml", *words)

    return runs


def lines(path: str, count: int, size: int = 60, name: str = "text") -> str:
    Path(path).write_text("".join(json.dumps({name: f"{number} " + "x" * size}) + "\n" for number in range(count)))
    return path


@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--emit", "make"), ("--smoke", "--dry-run")])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpus": "none.jsonl"}, "corpus: none.jsonl: no such file or folder"),
        ({"corpus": "none/*.txt"}, "corpus: none/*.txt: no file matches this pattern"),
        ({"corpus": "c4:none"}, "corpus: none: no such file or folder"),
        ({"corpus": "mathematics:none"}, "corpus: none: has no train-easy"),
        ({"corpus": "l.jsonl", "pretrain": {"text_field": "body"}}, 'no field "body" (its fields: text)'),
        (
            {"corpus": "one.jsonl"},
            "its validation split is empty (its only document is in train); give a folder",
        ),
        ({"corpus": "two.jsonl"}, "(all of its 2 documents are in train); give a folder or more documents, or a valid"),
        ({"tokenizer": "./none"}, "tokenizer: ./none: no such file or folder"),
        ({"tokenizer": "text/none"}, "tokenizer: text/none: no such file or folder"),
        ({"tokenizer": "text"}, "no tokenizer in this folder"),
        ({"arms": {"a": {"init": "none.safetensors"}}}, "init: none.safetensors: no such file or folder"),
        ({"arms": {"a": {"init": "l.jsonl"}}}, "init: "),
        ({"finetune": {"f": {"corpus": "./none"}}}, "corpus: ./none: no such file or folder"),
    ],
)
def test_what_is_missing_is_said_before_anything_trains(
    run: Callable[..., Any], changes: dict[str, Any], said: str, words: tuple[str, ...]
) -> None:
    if "--smoke" in words and ("finetune" in changes or "none" in changes.get("corpus", "")):
        pytest.skip("a smoke form reads the Python that is installed")
    lines("l.jsonl", 200)
    lines("one.jsonl", 1)
    lines("two.jsonl", 2)
    ended = run(changes, *words)
    assert ended.code == 1, ended.out
    assert said in ended.line
    assert not Path("runs/tiny/calls").exists()


def test_a_name_of_the_hub_is_noted_in_a_dry_run(run: Callable[..., Any]) -> None:
    ended = run({"tokenizer": "some-tokenizer"}, "--dry-run")
    assert ended.code == 0, ended.err
    assert 'tokenizer "some-tokenizer" is not a local path' in ended.err
    ended = run({"tokenizer": "some-tokenizer"})
    assert ended.code == 1
    assert "some-tokenizer" in ended.line
    assert not Path("runs/tiny/calls").exists()


def test_what_is_done_needs_its_inputs_no_more(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = planned(root, corpus=lines("l.jsonl", 200), context=64)
    assert check_inputs(plan, quick=True) == []
    Path("l.jsonl").unlink()
    monkeypatch.setattr(type(plan), "missing", lambda self: [])
    assert check_inputs(plan, quick=False) == []


@pytest.mark.parametrize(
    ("count", "size", "context", "missing"),
    [(200, 60, 16, None), (1, 60, 16, "validation"), (200, 60, 4096, "validation"), (200, 60, 100_000, "train")],
)
def test_both_splits_need_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int, context: int, missing: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = open_corpus(lines("l.jsonl", count, size))
    if missing is None:
        require_rows(corpus, ByteTokenizer(), context)
        return
    with pytest.raises(CorpusError, match=f"its {missing} split"):
        require_rows(corpus, ByteTokenizer(), context)


def test_a_large_corpus_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line is none, and is never reached."""
    monkeypatch.chdir(tmp_path)
    path = Path(lines("l.jsonl", 3000))
    path.write_text(path.read_text() + "not JSON\n")
    require_rows(open_corpus(str(path)), ByteTokenizer(), 64)


@pytest.mark.parametrize("name", ["mathematics:200", "python"])
def test_corpora_by_name_have_rows(name: str) -> None:
    require_rows(open_corpus(name), ByteTokenizer(), 128)


@pytest.mark.parametrize(("context", "missing"), [(64, None), (4096, "validation"), (100_000, "train")])
def test_a_built_store_needs_a_row_of_this_context(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: int, missing: str | None
) -> None:
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))
    corpus = open_corpus(lines("l.jsonl", 200))
    open_store(corpus, ByteTokenizer(), 64, workers=1)
    monkeypatch.setattr("proctool.corpora.preview.require_rows", None)  # the corpus is not read again
    ended = run({"corpus": "l.jsonl", "context": context, "tokenizer": "bytes"}, "--dry-run")
    assert ended.code == (0 if missing is None else 1), ended.err
    if missing is not None:
        assert re.search(f"corpus: .*its {missing} split .* too few for one row of {context}", ended.line)
