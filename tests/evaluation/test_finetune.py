"""Fine-tuning: official files in, metrics as their definitions say, and a line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from proctool import evaluate
from proctool.corpora.tokenizers import ByteTokenizer
from proctool.errors import OptionError
from proctool.evaluation.finetune import glue
from proctool.evaluation.finetune.code import read_programs
from proctool.evaluation.finetune.metrics import METRICS
from tests.conftest import Said
from tests.evaluation.speakers import save_speaker

RECORDS = Path(glue.__file__).parents[2] / "recipe" / "smoke_glue"
FAST = ("--steps", 3, "--batch-size", 4, "--eval-every", 3, "--eval-samples", 8, "--ramp-steps", 0)


def write_cola(folder: Path) -> Path:
    folder.mkdir()
    rows = [f"gj04\t{n % 2}\t{'' if n % 2 else '*'}\t{'good' if n % 2 else 'bad'} {n}." for n in range(24)]
    for name in ("in_domain_train.tsv", "in_domain_dev.tsv"):
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


def test_metrics_are_their_definitions() -> None:
    found, true = np.array([1, 1, 0, 0, 1.0]), np.array([1, 0, 0, 1, 1.0])
    assert METRICS["accuracy"](found, true) == pytest.approx(0.6)
    assert METRICS["f1"](found, true) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert METRICS["matthews"](found, true) == pytest.approx((2 * 1 - 1 * 1) / (3 * 2 * 3 * 2) ** 0.5)
    assert METRICS["matthews"](np.ones(5), true) == 0
    grades = np.array([1.0, 2.0, 2.0, 9.0])
    assert METRICS["spearman"](grades, grades**3) == pytest.approx(1)
    assert METRICS["pearson"](grades, -grades) == pytest.approx(-1)
    assert METRICS["spearman"](np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)


def test_a_sample_ends_in_its_class_and_keeps_to_the_context(tmp_path: Path) -> None:
    examples = glue.Examples([("ab", "c" * 40), ("d", "e")], [1, 0])
    samples = glue.encode(examples, ByteTokenizer(), 12)
    assert samples.tokens.shape[1] == 12
    assert samples.tokens[0].tolist() == [97, 98, 256, *[99] * 7, 256, 1]
    assert samples.tokens[1, :5].tolist() == [100, 256, 101, 256, 0]
    assert samples.targets.sum(1).tolist() == [1, 1]
    assert samples.targets[1, 4]


def test_glue_from_official_files_learns_and_repeats(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    data = write_cola(tmp_path / "CoLA")
    command = ("eval", "finetune", "cola", "--init", "m.safetensors", "--data", data, "--json", *FAST, "--lr", "1e-2")
    said = proctool(*command, "--steps", 60, "--eval-every", 60)
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result["metrics"]["matthews"] > 0.9  # "good" or "bad" decides
    metrics = tmp_path / "finetuned.run" / "metrics.jsonl"
    *lines, end = metrics.read_text().splitlines()
    earlier = json.loads(end)
    assert earlier.pop("scores") == result["metrics"]
    for last in (end, json.dumps(earlier)):  # earlier versions recorded no scores
        metrics.write_text("\n".join([*lines, last, ""]))
        again = json.loads(proctool(*command, "--steps", 60, "--eval-every", 60).out)  # finds the run complete
        assert (again["content"], again["metrics"]) == (result["content"], result["metrics"])
    assert json.loads(proctool(*command, "--dry-run").out)["steps"] == 3


@pytest.mark.parametrize("option", ["--lr-of", "--train"])
def test_the_class_head_is_a_component_though_the_model_is_tied(
    proctool: Callable[..., Said], tmp_path: Path, option: str
) -> None:
    save_speaker(tmp_path / "m.safetensors")
    data = write_cola(tmp_path / "CoLA")
    command = ("eval", "finetune", "cola", "--init", "m.safetensors", "--data", data, "--json", *FAST, "--steps", 3)
    usual = json.loads(proctool(*command).out)
    said = proctool(*command, option, "head=9" if option == "--lr-of" else "head", "-o", "other.safetensors")
    assert said.code == 0, said.err
    assert json.loads(said.out)["content"] != usual["content"]


def test_files_of_the_hub_are_the_official_files_in_another_form(tmp_path: Path) -> None:
    texts, labels = [("a\tb".replace("\t", " "), "c"), ("d", "e")], [1, 0]
    rows = [
        dict(zip(("sentence1", "sentence2"), each, strict=True), label=n) for each, n in zip(texts, labels, strict=True)
    ]
    official = [
        "sentence1\tsentence2\tlabel",
        *(f"{a}\t{b}\t{('entailment', 'not_entailment')[n]}" for (a, b), n in zip(texts, labels, strict=True)),
    ]
    for name in ("lines", "columns", "glue/RTE"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "glue/RTE/dev.tsv").write_text("\n".join(official))
    (tmp_path / "lines/validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "columns/validation-00000-of-00001.parquet")
    for name in ("glue", "glue/RTE", "lines", "columns"):
        assert glue.read_examples("rte", str(tmp_path / name), held_out=True) == glue.Examples(texts, labels)


def test_grades_may_be_beyond_the_vocabulary_and_no_model_is_kept(
    proctool: Callable[..., Said], tmp_path: Path
) -> None:
    save_speaker(tmp_path / "m.safetensors")
    said = proctool(
        "eval", "finetune", "stsb", "--init", "m.safetensors", "--data", RECORDS, "--json", *FAST, "--run-dir", "run",
        "-o", "none",
    )  # fmt: skip
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert result.keys() & {"artifact", "content"} == set()
    assert -1 <= result["metrics"]["pearson"] <= 1
    assert not list(tmp_path.rglob("finetuned*"))
    assert not list((tmp_path / "run").glob("**/model*"))


def test_python_gives_the_metrics_of_the_command(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    data = write_cola(tmp_path / "CoLA")
    said = proctool("eval", "finetune", "cola", "--init", "m.safetensors", "--data", data, "--json", *FAST)
    before = sorted(tmp_path.rglob("*"))
    options = {"steps": 3, "batch_size": 4, "eval_every": 3, "eval_samples": 8, "ramp_steps": 0}
    found = evaluate("m.safetensors", "finetune", task="cola", data=str(data), **options)
    assert found.scores == json.loads(said.out)["metrics"]
    assert found.records[0]["held_out"] == json.loads(said.out)["held_out"]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(OptionError, match='task: give the task to fine-tune on, such as task="cola"'):
        evaluate("m.safetensors", "finetune")


def test_code_tokens_are_counted_whole(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("<s> import os <EOL> x = 1 <EOL> </s>\n" * 4)
    programs = read_programs(tmp_path, "train", ByteTokenizer(), 20)
    text = bytes(int(token) for token in programs.tokens.reshape(-1) if token < 256).decode()
    assert text.startswith("import os\nx = 1\n")
    first = programs.owner.reshape(-1)[:16].tolist()
    assert first == [0] * 6 + [1] * 3 + [-1, 2, 3, 3, 4, 4, -1]


def test_text_tasks_report_their_measures(proctool: Callable[..., Said], tmp_path: Path, text: Path) -> None:
    save_speaker(tmp_path / "m.safetensors", context=16)
    (tmp_path / "py").mkdir()
    for name in ("train.txt", "test.txt"):
        (tmp_path / "py" / name).write_text("<s> import os <EOL> x = 1 <EOL> </s>\n" * 20)
    for task, data, measure in (("wikitext", text, "perplexity"), ("py150", "py", "token_accuracy")):
        output = f"{task}.safetensors"
        said = proctool(
            "eval", "finetune", task, "--init", "m.safetensors", "--data", data, "--json", *FAST, "-o", output
        )
        assert said.code == 0, said.err
        assert json.loads(said.out)["metrics"][measure] >= 0


def test_mistakes_are_one_line(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    data = write_cola(tmp_path / "CoLA")
    bad = write_cola(tmp_path / "bad")
    (bad / "in_domain_train.tsv").write_text("gj04\t7\t\tWhat?\n")
    short = write_cola(tmp_path / "short")
    (short / "in_domain_train.tsv").write_text("gj04\t1\n")
    records = write_cola(tmp_path / "records")
    (records / "train.jsonl").write_text('{"sentence": "Yes.", "label": 1}\n{"text": "No.", "label": 0}\n')
    for arguments, message in [
        (("colo", "--init", "m.safetensors"), 'did you mean "cola"?'),
        (("cola", "--init", "m.safetensors", "--data", bad), '"7" is not one of the classes 0, 1'),
        (("cola", "--init", "m.safetensors", "--data", short), "line 1: has 2 columns, but needs 4"),
        (("cola", "--init", "m.safetensors", "--data", records), 'train.jsonl line 2: has no text "sentence"'),
        (("mrpc", "--init", "m.safetensors", "--data", data), "no train.tsv or msr_paraphrase_train.txt"),
        (("rte", "--init", "m.safetensors"), "cannot be loaded from the hub"),
        (("py150", "--init", "m.safetensors"), "py150 needs CodeXGLUE"),
        (("cola", "--data", data), "give one with --tokenizer"),
        (
            ("cola", "--init", "m.safetensors", "--data", data, "--context", 99),
            "of 99 tokens does not fit the model's context of 48",
        ),
    ]:
        said = proctool("eval", "finetune", *arguments)
        assert said.code == 1, arguments
        assert message in said.line
