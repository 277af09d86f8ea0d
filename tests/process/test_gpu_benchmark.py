"""`python -m benchmarks.gpu`: its gates, what a measure that fails leaves, and one measure in miniature on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

gpu = pytest.importorskip("benchmarks.gpu", reason="benchmarks are not part of a source distribution")
ROOT = Path(__file__).parents[2]


def results(**changes: Any) -> dict[str, dict[str, Any]]:
    """What a card that meets every gate would give."""
    speeds = {
        f"{model} {loop}, compiled": {"tokens_per_second": 100_000, "mfu": 0.5}
        for model in ("gpt2", "350M", "1.3B")
        for loop in ("proctool", "plain loop")
    }
    return {
        **speeds,
        "haystack proctool": {"samples_per_second": 10_000},
        "haystack Trainer": {"samples_per_second": 1000},
        "exact bf16, deterministic": {"resumed_exact": True},
        "tests": {"code": 0},
        **{name.replace("_", " "): value for name, value in changes.items()},
    }


def statuses(found: dict[str, dict[str, Any]]) -> list[str]:
    return [gate.status(found)[1] for gate in gpu.GATES]


def test_gates_are_met_where_every_number_is_reached() -> None:
    assert set(statuses(results())) == {"met"}
    assert set(statuses({})) == {"not measured"}


@pytest.mark.parametrize(
    ("name", "found", "status"),
    [
        ("gpt2 proctool, compiled", {"tokens_per_second": 99_999}, "not met"),
        ("350M proctool, compiled", {"tokens_per_second": 99_999}, "not met"),
        ("haystack proctool", {"samples_per_second": 9999}, "not met"),
        ("exact bf16, deterministic", {"resumed_exact": False}, "not met"),
        ("tests", {"code": 1}, "not met"),
        ("tests", {"failed": "took longer than 200 s"}, "not measured"),
        ("gpt2 plain loop, compiled", {"failed": "out of memory"}, "not measured"),
    ],
)
def test_one_number_decides_one_gate(name: str, found: dict[str, Any], status: str) -> None:
    changed = statuses({**results(), name: found})
    assert sorted(set(changed)) == sorted({"met", status})
    assert changed.count(status) == 1


def test_the_mfu_of_a_cpu_is_not_measured() -> None:
    found = results() | {"1.3B proctool, compiled": {"tokens_per_second": 100_000, "mfu": None}}
    assert sorted(set(statuses(found))) == ["met", "not measured"]


def test_the_table_says_what_every_measure_found() -> None:
    found = {
        "tests": {"seconds": 3.0, "code": 0},
        "gpt2 proctool": {"seconds": 9.0, "tokens_per_second": 1234567, "mfu": 0.41, "peak_bytes": 3 << 30},
        "1.3B proctool": {"seconds": 9.0, "failed": "CUDA out\nof memory"},
    }
    text = "\n".join(gpu.table(found))
    for part in ("3 s, exit code 0", "1,234,567 tokens/s, 41.0% MFU, 3.0 GiB", "failed: CUDA out of memory"):
        assert part in text
    assert text.count("not measured") == len(gpu.GATES) - 1


@pytest.mark.parametrize("tiny", [True, False])
def test_every_measure_names_a_function_and_gates_name_measures(tiny: bool, tmp_path: Path) -> None:
    measures = [each for part in ("first", "second") for each in gpu.measures(part, tiny, tmp_path)]
    names = {each.name for each in measures}
    assert len(names) == len(measures)
    assert set(results()) <= names
    sources = "".join((ROOT / "benchmarks" / f"gpu_{name}.py").read_text() for name in ("measures", "profile"))
    for each in measures:
        assert f"def {each.function}(" in sources
        json.dumps(each.arguments)


@pytest.mark.slow
def test_a_measure_that_fails_is_reported_with_its_error() -> None:
    found = gpu.measured(gpu.Measure("none", "no_such_function", {}, 60), 60)
    assert "no_such_function" in found["failed"]


@pytest.mark.slow
def test_a_measure_runs_in_miniature_and_one_past_its_limit_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "first", "--tiny", "--out", str(tmp_path), "--only"]
    done = subprocess.run([*command, "exact bf16, deterministic"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu-first.json").read_text())["exact bf16, deterministic"]
    assert found["second_exact"] is found["resumed_exact"] is True
    assert found["largest_difference"] == {"second": 0, "killed": 0}
    assert "| resumed bit for bit, --deterministic | 1 | 1 | met |" in (tmp_path / "gpu.md").read_text()
    done = subprocess.run([*command, "gpt2 plain loop, compiled", "--limit", "0.001"], cwd=ROOT, capture_output=True)
    assert done.returncode == 1
    found = json.loads((tmp_path / "gpu-first.json").read_text())["gpt2 plain loop, compiled"]
    assert "took longer than 0 s" in found["failed"]
    assert found["seconds"] < 60
