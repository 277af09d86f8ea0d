"""Every arm's tokens, operations and resets, as its runs and the recipe say."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from proctool.reporting.costs import Reset
from proctool.reporting.experiment import load_experiment
from proctool.reporting.page import page
from proctool.reporting.render import markdown, terminal_tables
from proctool.reporting.report import Report, build_report
from tests.reporting.made import Made, training

BODY = ("attention", "mlp", "norms")


def origins(kept: tuple[str, ...], embeddings: str = "scale", part: str | None = None) -> list[dict[str, Any]]:
    """What a run records of its weights: `kept` from a donor, the rest fresh; `part` is from both."""
    rows = [{"component": "embeddings", "source": embeddings, "donors": ["w"]}]
    for name in (*BODY, "positions"):
        rows += [{"component": name, "source": "carried", "donors": ["w"]}] if name in kept else []
        rows += (
            [{"component": name, "source": "fresh", "why": "not-carried"}] if name not in kept or name == part else []
        )
    return [row | {"tensors": 1, "parameters": 1} for row in rows]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    made = Made(tmp_path / "costs")
    ways: dict[str, dict[str, Any]] = {
        "set": {"carried": origins(BODY)},
        "some-layers": {"carried": origins((*BODY, "positions"), "mean", part="mlp")},
        "mixed": {"carried": origins(BODY)},
        "set-scale": {"carried": origins(BODY)},
        "set-text": {"carried": origins(("attention",), "sample")},
        "set-text-continued": {"carried": origins((*BODY, "positions"), "copy")},
    }
    about = {"cold": {"made_from": "cold", "control": None, "of": []}}
    for seed in (0, 1):
        made.measured("cold", seed, made.stage(f"cold{seed}", None, training(flops=600)), {})
        for arm, start in ways.items():
            on = {"command": "pretrain", "corpus": "c4"} if "text" in arm else {"command": "warmup", "task": "set"}
            steps = 20 + 10 * seed
            warm = made.stage(f"warm-{arm}{seed}", None, training(steps=steps, flops=100, **on))
            made.measured(arm, seed, made.stage(f"{arm}{seed}", warm, training(flops=600, **start)), {})
            kind = arm.partition("-")[2] if arm.startswith("set-") else None
            about[arm] = {
                "made_from": arm.partition("-")[0] if kind else arm,
                "control": kind,
                "of": ["set"] * bool(kind),
            }
    recipe = {"arms": {"mixed": {"donors": {"attention": {"task": "set"}, "mlp": {"task": "set"}}}}}
    return build_report(load_experiment(made.write(about=about, recipe=recipe)))


def test_costs_are_what_was_spent_and_reset(report: Report) -> None:
    found = {each.arm: each for each in report.costs}
    spent = {arm: (each.procedural_tokens, each.natural_tokens, each.flops) for arm, each in found.items()}
    assert spent["cold"] == (0, 100_000, 600)
    assert spent["set"] == (25_000, 100_000, 700)
    assert spent["set-text"] == spent["set-text-continued"] == (0, 125_000, 700)
    assert (found["set-text"].text_tokens, found["set-text"].corpus_tokens) == (25_000, 100_000)
    resets = {arm: None if each.resets is None else {(one.what, one.keeps) for one in each.resets}
              for arm, each in found.items()}  # fmt: skip
    assert resets["cold"] is None
    assert resets["set-text-continued"] == {("optimiser", None)}
    assert resets["set"] == {("optimiser", None), ("positions", None), ("embeddings", "scale")}
    assert resets["some-layers"] == {("optimiser", None), ("mlp", "part"), ("embeddings", "mean")}
    assert resets["mixed"] == resets["set"] | {("norms", None)}
    assert resets["set-scale"] == resets["set"] | {(name, "scale") for name in BODY}
    assert resets["set-text"] == {
        ("optimiser", None), ("mlp", None), ("norms", None), ("positions", None), ("embeddings", "sample"),
    }  # fmt: skip
    assert not any("text" in point.arm for curve in report.substitutions for point in curve.points)
    assert found["set"].resets is not None
    assert found["set"].resets[0] == Reset("optimiser")


def test_every_form_of_the_report_shows_them(report: Report) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    for table in terminal_tables(report, 80):
        console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 80
    assert "not shown" not in shown
    row = "| set-scale | optimiser, positions; attention, mlp, norms, embeddings (scale kept) | 25k | 100k | 7.0e+02 |"
    assert row in markdown(report)
    assert "optimiser, positions; attention, mlp, norms, embeddings (scale kept)" in page(report)
    for words in ("optimiser, positions;", "25k", "125k", "7.0e+02"):
        assert words in shown
    assert json.loads(json.dumps(report.as_json()))["costs"][1]["resets"][0] == {"what": "optimiser", "keeps": None}
