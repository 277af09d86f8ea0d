from __future__ import annotations

import shutil
import time
from pathlib import Path

from tiny_experiment import COMMAND, Silent, planned

from proctool.experiment.execute import execute
from proctool.experiment.graph import Plan
from proctool.experiment.record import write_record


def work(plan: Plan) -> Silent:
    display = Silent()
    write_record(plan, "", "")
    assert execute(plan, jobs=2, command=COMMAND, display=display, pause=lambda: time.sleep(0.005)) == []
    return display


def adopted(plan: Plan) -> list[str]:
    """The names of the stages that running `plan` takes from other experiments."""
    display = work(plan)
    assert display.last is not None
    return sorted(stage.name for stage in display.last.adopted)


def test_what_another_experiment_has_done_is_taken_over(root: Path) -> None:
    first, second = planned(root), planned(root.with_name("second"), pretrain={"steps": 50, "batch_size": 4})
    work(first)
    assert adopted(second) == ["warmup-set-s0"]
    calls = [line.rpartition("-")[0] for line in (second.root / "calls").read_text().splitlines()]
    assert sorted(calls) == ["pretrain-cold-s0", "pretrain-set-s0"]
    # Either folder can go.
    shutil.rmtree(first.root)
    assert second.missing() == []


def test_what_a_recipe_no_longer_has_is_taken_all_the_same(root: Path) -> None:
    first, second = planned(root, seeds=[0, 1]), planned(root.with_name("second"), seeds=[0, 1])
    work(first)
    write_record(planned(root, seeds=[0]), "", "")
    assert len(adopted(second)) == len(second.stages)


def test_what_is_damaged_elsewhere_is_made_here(root: Path) -> None:
    first, second = planned(root), planned(root.with_name("second"))
    work(first)
    (metrics,) = root.glob("pretrain-cold-s0-*/metrics.jsonl")
    metrics.write_text('{"event": "eval", "step": "x", "loss": 1}\n' + metrics.read_text())
    assert adopted(second) == ["pretrain-set-s0", "warmup-set-s0"]


def test_a_plan_alone_does_not_hide_what_another_has_done(root: Path) -> None:
    planner, worker, last = (planned(root.with_name(name)) for name in ("a", "b", "c"))
    write_record(planner, "", "")
    work(worker)
    shutil.rmtree(planner.root)
    write_record(planner, "", "")  # earlier by name, and nothing of it done
    assert len(adopted(last)) == len(last.stages)


def test_what_is_not_done_there_is_not_taken(root: Path) -> None:
    first, second = planned(root), planned(root.with_name("second"))
    work(first)
    artifact = first.arms["set"][0].pretrain.donor.artifact(root)  # type: ignore[union-attr]
    assert artifact is not None
    artifact.unlink()
    for name, text in (("broken", "{"), ("deep", "[" * 100_000), ("other", '{"stages": 3}')):
        root.with_name(name).mkdir()
        (root.with_name(name) / "experiment.json").write_text(text)
    assert adopted(second) == ["pretrain-cold-s0", "pretrain-set-s0"]
