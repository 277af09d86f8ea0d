"""The harness on an artifact gives what it gives on the exported folder, and what our own BLiMP gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Said
from tests.evaluation.speakers import AGREEMENT, REFLEXIVES, save_speaker, write_pairs

pytest.importorskip("lm_eval")

TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {data_files: {train: FILE}}
output_type: multiple_choice
validation_split: train
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{[sentence_good, sentence_bad]}}"
metric_list: [{metric: acc}]
"""


@pytest.mark.slow
def test_artifact_exported_folder_and_our_blimp_agree(
    proctool: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    save_speaker(tmp_path / "m.safetensors")
    (tmp_path / "pairs").mkdir()
    (tmp_path / "tasks").mkdir()
    file = write_pairs(tmp_path / "pairs" / "causative.jsonl", AGREEMENT + REFLEXIVES, "causative")
    (tmp_path / "tasks" / "mine.yaml").write_text(TASK.replace("FILE", str(file)))
    said = proctool("eval", "harness", "m.safetensors", "--tasks", "blimp_causative", "--data", "pairs", "--json")
    assert said.code == 0, said.err
    builtin = json.loads(said.out)["results"]["blimp_causative"]
    said = proctool("eval", "harness", "m.safetensors", "--tasks", "mine", "--include-path", "tasks", "--json")
    own = json.loads(said.out)["results"]["mine"]
    said = proctool("eval", "blimp", "m.safetensors", "--data", "pairs", "--json")
    ours = json.loads(said.out)["paradigms"]["causative"]
    assert proctool("export", "m.safetensors", "hf").code == 0
    exported = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": "hf"}, device="cpu", tasks=["mine"],
        task_manager=TaskManager(include_path="tasks", include_defaults=False),
    )["results"]["mine"]  # fmt: skip
    assert builtin["acc"] == own["acc"] == ours["accuracy"] == exported["acc,none"]
    assert 0 < own["acc"] < 1
    assert ours["standard_error"] == pytest.approx(exported["acc_stderr,none"])


@pytest.mark.slow
def test_mistakes_are_one_line(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_speaker(tmp_path / "m.safetensors")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "t.yaml").write_text(TASK + "process_docs: !function utils.process\n")
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (("--tasks", "blimp_causativ"), "did you mean blimp_causative"),
        (("--tasks", "blimp_causative", "--data", "gone"), "gone: no such folder"),
        (("--tasks", "blimp_causative", "--data", "empty"), "no blimp_causative.jsonl or causative.jsonl"),
        (("--tasks", "mine", "--include-path", "code"), "runs code (!function)"),
        ((), "tasks: none given"),
    ]:
        said = proctool("eval", "harness", "m.safetensors", *arguments)
        assert said.code == 1, arguments
        assert message in said.line
