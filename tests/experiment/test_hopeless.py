"""`stop_hopeless`: later seeds of an arm that loses are left out, whatever the order in which stages end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from proctool.cli.dry_run import show_plan
from proctool.errors import OptionError, RunError
from proctool.experiment.execute import execute
from proctool.experiment.graph import Plan
from proctool.experiment.record import write_record
from proctool.recipe import build_recipe
from proctool.reporting.experiment import load_experiment
from proctool.reporting.report import build_report
from proctool.reporting.stopped import STOPPED
from tests.experiment.tiny_experiment import COMMAND, Silent, planned, values

RECIPE: dict[str, Any] = {
    "seeds": [0, 1, 5, 3],
    "arms": {
        "cold": {},
        "set": {"warmup": {"task": "set:inputs=8"}},
        "better": {"warmup": {"task": "identity:inputs=8"}},
    },
    "controls": {"which": ["embeddings", "longer"], "of": ["set"]},
    "stop_hopeless": True,
}
LEFT_OUT = {
    f"{name}-s{seed}"
    for name in ("warmup-set", "pretrain-set", "pretrain-set-embeddings", "pretrain-cold-longer")
    for seed in (5, 3)
}


def worked(plan: Plan, jobs: int = 3) -> Silent:
    plan.root.mkdir(parents=True, exist_ok=True)
    (plan.root / "worse-pretrain-set-s").touch()
    display = Silent()
    execute(plan, jobs=jobs, command=COMMAND, display=display, pause=lambda: time.sleep(0.005))  # type: ignore[arg-type]
    return display


def run(root: Path) -> list[str]:
    return [line.rpartition("-")[0] for line in (root / "calls").read_text().splitlines()]


def test_a_losing_arm_and_its_controls_stop_after_two_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(tmp_path / "three", **RECIPE)
    everything = {stage.name for stage in plan.stages}
    write_record(plan, "", "proctool run tiny")
    display = worked(plan)
    assert set(run(plan.root)) == everything - LEFT_OUT
    assert display.last is not None
    assert {stage.name for stage in display.last.stopped} == LEFT_OUT
    assert not display.last.waiting
    one = planned(tmp_path / "others" / "one", **RECIPE)
    worked(one, jobs=1)
    assert sorted(run(one.root)) == sorted(run(plan.root))

    report = build_report(load_experiment(plan.root))
    assert {each.arm: each.seeds for each in report.results} == {
        "cold": (0, 1, 3, 5), "set": (0, 1), "better": (0, 1, 3, 5), "set-embeddings": (0, 1), "cold-longer": (0, 1),
    }  # fmt: skip
    assert report.as_json()["missing"] == []
    said = [note for note in report.notes if "stop_hopeless" in note]
    assert said[0].startswith("set: seeds 5 and 3 were not run (stop_hopeless): over seeds 0 and 1 it ends 0.")
    assert said[0].endswith("nats per token worse than cold.")
    assert "because it is a control of set, which loses" in said[1]
    show_plan(plan, as_json=False)
    shown = capsys.readouterr().out
    assert shown.count("left out") == len(LEFT_OUT) + 1
    assert f"0 of {len(everything)} stages to run" in shown
    show_plan(planned(tmp_path / "another", **RECIPE), as_json=False)
    assert f"0 of {len(everything)} stages to run" in capsys.readouterr().out, "what is left out there is left out here"

    before = len(run(plan.root))
    worked(plan)
    assert len(run(plan.root)) == before
    written = (plan.root / STOPPED).read_text()
    for damaged in ("{}", written.replace('"over": [\n        0,\n        1\n      ]', '"over": []'), written[:-9]):
        assert damaged != written
        (plan.root / STOPPED).write_text(damaged)
        with pytest.raises(RunError, match=r"stopped.json: damaged; remove it and run the recipe again"):
            load_experiment(plan.root)
    without = planned(plan.root, **RECIPE | {"stop_hopeless": False})
    worked(without)
    assert set(run(plan.root)) == everything
    assert len(run(plan.root)) == len(everything)  # each stage once: its key does not depend on the rule
    assert not (plan.root / STOPPED).exists()


def test_no_arm_is_left_out_before_the_baseline_has_finished(tmp_path: Path) -> None:
    plan = planned(tmp_path, **RECIPE)
    tmp_path.joinpath("fail-pretrain-cold-s3").touch()
    display = worked(plan)
    assert display.last is not None
    assert {stage.name for stage in display.last.skipped} >= LEFT_OUT
    assert not display.last.stopped
    assert "pretrain-better-s5" not in run(tmp_path)
    tmp_path.joinpath("fail-pretrain-cold-s3").unlink()
    display = worked(plan)
    assert {stage.name for stage in plan.missing()} == LEFT_OUT


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0, 1]}, "give at least three seeds"),
        ({"setting": "substitutive", "budgets": [0.5, 1], "controls": None}, "compares losses at equal tokens"),
        ({"corpus": None, "diagnostics": {"sorting": {}}, "controls": None}, "give the recipe a corpus"),
    ],
)
def test_what_it_cannot_decide_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=f"^stop_hopeless: .*{said}"):
        build_recipe(values(**RECIPE | changes))


def test_a_losing_arm_keeps_its_diagnostics_and_their_repeats(tmp_path: Path) -> None:
    diagnosed = {"haystack": {"pairs": 4, "vocab": 32, "steps": 10, "batch_size": 4, "ramp_steps": 2}}
    plan = planned(tmp_path / "diagnosed", **RECIPE, diagnostics=diagnosed, repeats=2)
    write_record(plan, "", "proctool run tiny")
    worked(plan)
    ran = set(run(plan.root))
    assert "pretrain-set-s5" not in ran
    assert {f"haystack-set{part}-s{seed}" for part in ("", "-run2") for seed in RECIPE["seeds"]} <= ran
