"""What every evaluation records: which model, which data, which seed, which versions; and the same again."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool import artifact
from proctool.cli.evaluate import _EVALUATIONS
from proctool.evaluation.options import DIAGNOSTICS
from tests.conftest import Said
from tests.evaluation.speakers import AGREEMENT, save_speaker, write_pairs
from tests.evaluation.test_finetune import write_cola

FAST = ("--steps", 2, "--batch-size", 4, "--eval-every", 2, "--eval-samples", 8, "--ramp-steps", 0)
TINY = ("--model", "1x2x16", *FAST)
COMMANDS: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(DIAGNOSTICS, (*TINY, "--init", "warm.safetensors")),
    "perplexity": ("m.safetensors", "--corpus", "text"),
    "mathematics": ("m.safetensors", "--corpus", "mathematics:tree", "--split", "both"),
    "blimp": ("m.safetensors", "--data", "pairs"),
    "harness": ("m.safetensors", "--tasks", "blimp_causative", "--data", "pairs"),
    "interpret": ("m.safetensors", "--against", "fresh", "--samples", 2, "--length", 4),
    "finetune": ("cola", "--init", "m.safetensors", "--data", "CoLA", *FAST),
}
SEVERAL = {f"{name} over seeds": (*COMMANDS[name], "--init", "none", "--seeds", "0,1") for name in DIAGNOSTICS}
INCIDENTAL = ("seconds", "artifact", "run_dir")


def strictly(line: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    found = json.loads(line, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def materials(proctool: Callable[..., Said], tmp_path: Path, text: Path) -> Path:
    assert proctool("warmup", "--task", "set:inputs=4", *TINY, "-o", "warm.safetensors").code == 0
    save_speaker(tmp_path / "m.safetensors", metadata={"tokenizer": "bytes", "seed": 3})
    (tmp_path / "pairs").mkdir()
    write_pairs(tmp_path / "pairs" / "causative.jsonl", AGREEMENT, "causative")
    for level in ("train-easy", "interpolate", "extrapolate"):
        (tmp_path / "tree" / level).mkdir(parents=True)
        (tmp_path / "tree" / level / "sums.txt").write_text("1 + 1?\n2\n2 + 2?\n4\n")
    write_cola(tmp_path / "CoLA")
    return tmp_path


def test_every_evaluation_is_here() -> None:
    assert COMMANDS.keys() == _EVALUATIONS.keys()


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow) if case in (*list(SEVERAL)[1:], "harness") else case
        for case in (*COMMANDS, *SEVERAL)
    ],
)
def test_a_result_says_what_was_measured_on_what(
    proctool: Callable[..., Said], in_process: None, materials: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    name = case.split()[0]
    if name == "harness":
        if importlib.util.find_spec("lm_eval") is None:
            pytest.skip("needs the extra [eval]")
        monkeypatch.setenv("HF_DATASETS_CACHE", str(materials / "datasets"))
    command = ("eval", name, *(COMMANDS | SEVERAL)[case], "--json")
    trains = name in DIAGNOSTICS or name == "finetune"
    lines = []
    for run in ("first", "again"):
        placed = (*command, "--run-dir", f"runs/{run}") if trains else command
        said = proctool(*placed, *(("-o", f"{run}.safetensors") if name == "finetune" else ()))
        assert said.code == 0, said.err
        lines.append([strictly(line) for line in said.out.splitlines()])
    first, again = ([{key: line[key] for key in line if key not in INCIDENTAL} for line in run] for run in lines)
    assert first == again

    warm = artifact.read_header(materials / ("m.safetensors" if name == "finetune" else "warm.safetensors")).content
    for line in lines[0]:
        assert line["event"] in (name, "mathematics-module", "diagnostic", "summary")
        assert line["versions"] == artifact.versions()
        if trains:
            assert line["init_content"] == (None if line.get("init") == "none" else warm)
            assert line["held_out"]["split"] == "validation"
            assert len(line["held_out"]["sha256"]) == 64
            if line["event"] == "summary":
                assert line["seeds"] == [0, 1]
                continue
            assert line["seed"] in (0, 1)
            assert line["content"] == artifact.read_header(materials / line["artifact"]).content
            continue
        assert line["content"] == artifact.read_header(materials / "m.safetensors").content
        assert line["model_seed"] == 3
        if name == "interpret":
            assert line["seed"] == 0
            continue
        assert line["tokenizer"] == "bytes"
        assert len(line["tokenizer_sha256"]) == 64
        if name == "harness":
            assert (line["seed"], line["task_versions"].keys()) == (1234, {"blimp_causative"})
            continue
        assert any(len(line.get(data, "")) == 64 for data in ("text_sha256", "questions_sha256", "data_sha256"))
        assert name == "blimp" or line["split"] in ("validation", "interpolate", "extrapolate")
