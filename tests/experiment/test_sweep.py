"""Sweeps: trials, the choice among them, and the stages that read it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_experiment import planned, values

from proctool import artifact, config
from proctool.corpora import open_corpus
from proctool.corpora.halves import RowRange, evaluation_rows
from proctool.corpora.store import open_store
from proctool.corpora.subwords import load_tokenizer
from proctool.errors import OptionError
from proctool.experiment import emit, selection
from proctool.experiment.choose import choose
from proctool.experiment.graph import Plan, plan
from proctool.experiment.record import record, write_record
from proctool.procedural.samples import Samples
from proctool.recipe import build_recipe
from proctool.reporting.experiment import load_experiment
from proctool.reporting.figures import figure_paths
from proctool.reporting.record import read_record
from proctool.reporting.render import tidy_csv
from proctool.reporting.report import build_report
from proctool.reporting.sheets import sheets
from proctool.reporting.sweep_figures import dose_curves
from tests.reporting.made import training, write_events

WARM = {"warmup": {"task": "set:inputs=8"}}
SWEEP = {"lr": [0.001, 0.01], "init_std": [0.02, 0.1], "dose": ["1k", "4k"]}


def swept(root: Path, **changes: Any) -> Plan:
    given = {"sweep": SWEEP, "arms": {"cold": {}, "set": WARM | {"embeddings": "scale"}}, "seeds": [0, 1]}
    return planned(root, **given | changes)


def names(plan: Plan, kind: str) -> list[str]:
    return [stage.name for stage in plan.stages if stage.label.kind == kind]


def test_each_arm_tries_what_applies_to_it(root: Path) -> None:
    plan = swept(root, controls=["longer", "shuffled", "embeddings", "text", "text-continued", "mimetic"])
    tried = {
        arm: [cell.values for cell in choice.groups[arm]]
        for arm, choice in plan.choices.items()
        if arm in choice.groups
    }
    assert {arm: len(cells) for arm, cells in tried.items()} == {
        "cold": 4, "set": 4, "set-shuffled": 4, "set-embeddings": 8, "set-text": 4, "set-text-continued": 4,
        "cold-mimetic": 4,
    }  # fmt: skip
    assert tried["cold"][1] == {"lr": 0.001, "init_std": 0.1}
    assert tried["set"][1] == {"lr": 0.001, "dose": 4000}
    for stage in plan.stages:
        if stage.label.kind == "trial":
            assert (stage.label.seed, stage.options.eval_split) == (1000, "selection")  # type: ignore[union-attr]
        elif stage.label.kind == "pretrain":
            assert stage.options.eval_split == "test"  # type: ignore[union-attr]
            words = stage.argv(root)
            assert not {"--lr", "--init-std"} & set(words)
            assert "--config" in words


def test_later_stages_read_what_was_chosen_and_no_option_twice(root: Path) -> None:
    plan = swept(root, controls=["longer"])
    choices = {name: choice.files.contents for name, choice in plan.choices.items()}
    assert choices["cold"] == {
        "pretrain.yaml": [{"init_std": std, "lr": lr} for lr in (0.001, 0.01) for std in (0.02, 0.1)]
    }
    assert choices["set"]["warmup.yaml"] == [{"steps": 15}, {"steps": 59}] * 2
    # The baseline with more corpus: its own best rate, and the tokens of the arm's best dose.
    more = [each["steps"] for each in choices["cold-longer"]["pretrain.yaml"]]
    assert more[:4] == [44, 56, 44, 56]
    assert plan.choices["cold-longer"].groups.keys() == {"cold", "set"}
    warmup = next(stage for stage in plan.stages if stage.name == "warmup-set-s0")
    assert warmup.chosen is not None
    assert warmup.chosen.names == {"steps"}
    assert "--steps" not in warmup.argv(root)
    assert warmup.steps == 59  # the largest, for estimates


def test_a_text_warmup_takes_the_chosen_dose(root: Path) -> None:
    """As many tokens as the procedural warm-up that was chosen."""
    plan = swept(root, controls=["text"])
    contents = plan.choices["set-text"].files.contents
    (file,) = (name for name in contents if name.startswith("warmup"))
    doses = [cell.dose for cell in plan.choices["set-text"].groups["set-text"]]
    steps = {dose: each["steps"] for dose, each in zip(doses, contents[file], strict=True)}
    assert steps[4000] == pytest.approx(4 * steps[1000], rel=0.1)
    (stage,) = (stage for stage in plan.stages if stage.name == "warmup-text-s0")
    assert stage.chosen is not None
    assert "steps" in stage.chosen.names


def test_trials_are_no_warmups_of_what_they_decide(root: Path) -> None:
    """Their tokens are not those of an arm, and its weights do not come from them."""
    plan = swept(root)
    told = record(plan, "", "")
    for arm, tokens in (("cold", 0), ("set", 59 * 4 * 17)):
        stages = plan.arms[arm][0]
        assert stages.pretrain is not None
        names = [told.stages[key].name for key in told.stages[stages.pretrain.key].donors]
        assert names == (["warmup-set-s0"] if tokens else [])
        assert told.about[arm].procedural_tokens == tokens


def test_a_trial_is_an_ordinary_stage(root: Path) -> None:
    """A recipe that runs one cell by itself shares its stage."""
    plan = swept(root)
    pretrain = {"steps": 40, "batch_size": 4, "eval_every": 10, "lr": 0.01, "init_std": 0.1, "eval_split": "selection"}
    alone = planned(root, seeds=[1000], arms={"cold": {}}, pretrain=pretrain)
    assert {stage.key for stage in alone.stages} <= {stage.key for stage in plan.stages}


def test_what_changes_the_keys(root: Path) -> None:
    def keys(plan: Plan, kind: str) -> set[str]:
        return {stage.key for stage in plan.stages if stage.label.kind == kind and "cold" in stage.name}

    first = swept(root)
    renamed = swept(root, arms={"cold-start": {}, "set": WARM | {"embeddings": "scale"}})
    longer = swept(root, sweep=SWEEP | {"lr": [0.001, 0.01, 0.1]})
    for kind in ("trial", "choose", "pretrain"):
        assert keys(renamed, kind) == keys(first, kind)
    assert keys(first, "trial") < keys(longer, "trial")
    assert not keys(first, "pretrain") & keys(longer, "pretrain")


def made(root: Path, losses: dict[str, float | None], **changes: Any) -> Plan:
    """A sweep whose trials have ended with these losses by the name of the cell; None for a diverged one."""
    plan = swept(root, **{"arms": {"cold": {}}, "sweep": {"lr": [0.001, 0.01, 0.1]}} | changes)
    write_record(plan, "", "")
    for cell, trials in plan.choices["cold"].groups["cold"].items():
        for stage in trials.values():
            events = training(content=None, steps=40)
            events[-2]["loss"] = losses[str(cell)]
            events[-1] |= {"loss": losses[str(cell)], "diverged": losses[str(cell)] is None}
            write_events(stage.folder(root), *events)
    return plan


def test_the_best_cell_is_chosen_and_diverged_ones_lose(root: Path) -> None:
    made(root, {"lr0.001": 2.5, "lr0.01": 2.25, "lr0.1": None})
    (sweep,) = choose(root, "cold", root / "chosen.safetensors")
    assert sweep.winner.values == {"lr": 0.01}
    assert config.load_yaml(root / "pretrain.yaml") == {"lr": 0.01}
    written = artifact.open_artifact(root / "chosen.safetensors", "choice")
    assert artifact.read_numpy(written)["losses.0"].tolist() == [[2.5], [2.25], [math.inf]]
    first = (root / "chosen.safetensors").read_bytes()
    choose(root, "cold", root / "chosen.safetensors")
    assert (root / "chosen.safetensors").read_bytes() == first
    (root / "pretrain.yaml").write_text("mine: 1\n")
    with pytest.raises(Exception, match="proctool did not write it as options"):
        choose(root, "cold", root / "chosen.safetensors")


def test_the_report_shows_the_sweep(root: Path) -> None:
    """Every cell, the winner, whether it is at the end of its list; no figure for a single finite rate."""
    made(root, {"lr0.001": 2.5, "lr0.01": 2.25, "lr0.1": None})
    report = build_report(load_experiment(root))
    (sheet,) = (each for each in sheets(report) if each.name == "sweep")
    assert sheet.rows == (("cold", "3", "0.01", "2.250", "diverged"),)
    assert not any("end of its list" in note for note in report.notes)
    assert [path.name for path in figure_paths(report, root, ["png"])] == ["rate-sensitivity.png"]
    assert [
        row for row in tidy_csv(report).splitlines() if row.startswith("here,trial loss at lr 0.1,cold,,,,,1000,,,")
    ]
    assert json.loads(json.dumps(report.as_json(), allow_nan=False))["sweeps"][0]["best"] == {"lr": 0.01}
    made(root, {"lr0.001": None, "lr0.01": None, "lr0.1": 3.0})
    report = build_report(load_experiment(root))
    assert "cold: the best lr 0.1 is at the end of its list; a value beyond it may be better." in report.notes
    assert figure_paths(report, root, ["png"]) == []


def test_doses_are_compared_with_the_tuned_baseline(root: Path) -> None:
    plan = swept(root, selection_seeds=[7, 8], sweep={"lr": [0.001, 0.01], "dose": ["1k", "4k"]})
    write_record(plan, "", "")
    for arm in ("cold", "set"):
        for cell, trials in plan.choices[arm].groups[arm].items():
            for seed, stage in trials.items():
                loss = 2.0 + seed / 10 + (cell.lr == 0.001) - 0.5 * (cell.dose == 4000)
                events = training(content=None, steps=40)
                events[-2]["loss"] = loss
                write_events(stage.folder(root), *events)
    (curve,) = dose_curves(build_report(load_experiment(root)))
    assert [(dose, round(gain.value, 6)) for dose, gain in curve.points] == [(1000, 0.0), (4000, 0.5)]


def test_choose_says_what_is_missing(root: Path, proctool: Callable[..., Any]) -> None:
    plan = made(root, dict.fromkeys(("lr0.001", "lr0.01", "lr0.1")))
    assert "no cell of its sweep ends with a finite loss" in proctool("choose", root, "--arm", "cold").line
    assert 'has no sweep of "cld" (did you mean "cold"?)' in proctool("choose", root, "--arm", "cld").line
    (root / "choose-cold-0badc0de").mkdir()
    line = proctool("choose", root, "--arm", "cold", "-o", root / "choose-cold-0badc0de/chosen.safetensors").line
    assert "is the choice of an earlier form of the recipe" in line
    stage = next(stage for stage in plan.stages if stage.label.kind == "trial")
    (stage.folder(root) / "metrics.jsonl").unlink()
    assert f"the trial {stage.name} is not finished" in proctool("choose", root, "--arm", "cold").line


@pytest.mark.parametrize(
    "damage",
    [
        {"stage": "none"},
        {"groups": {"cold": [{"values": {"lr": 1}, "trials": {"0": "none"}}]}},
        {"combinations": [[7]]},
        {"files": {"../pretrain.yaml": [{}, {}, {}]}},
        {"files": {"pretrain.yaml": [{}]}},
    ],
)
def test_a_damaged_record_is_refused(root: Path, damage: dict[str, Any]) -> None:
    made(root, {"lr0.001": 2.5, "lr0.01": 2.25, "lr0.1": 3.0})
    record = json.loads((root / "experiment.json").read_text())
    record["choices"]["cold"] |= damage
    (root / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(Exception, match=r"choices\.cold"):
        read_record(root)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sweep": {"rate": [1, 2]}}, 'sweep: unknown option "rate"'),
        ({"sweep": {}}, "sweep: is empty; give a list for at least one of lr, init_std, dose"),
        ({"sweep": {"lr": [0.001]}}, "sweep.lr = [0.001]: a sweep needs at least two values"),
        ({"sweep": {"lr": [0.001, 0.001]}}, "sweep.lr: 0.001 is given twice"),
        ({"sweep": {"dose": [0, 1000]}}, "sweep.dose = [0, 1000]: write numbers above 0"),
        ({"sweep": {"dose": ["1k", "2k"]}, "arms": {"cold": {}}}, "sweep.dose: no arm has a warm-up"),
        (
            {"sweep": None, "arms": {"cold": {"sweep": {"dose": [1, 2]}}}},
            "arms.cold.sweep.dose: the arm has no warm-up",
        ),
        ({"sweep": {"init_std": [0.1, 0.2]}, "arms": {"set": WARM}}, "sweep: no arm tries any of its values"),
        ({"sweep": {"init_std": [0.1, 20]}}, "arms.cold.pretrain: init_std = 20.0: must be above 0 and below 10"),
        (
            {"arms": {"cold": {"pretrain": {"lr": 0.1}}, "set": WARM}},
            "arms.cold.pretrain.lr: the sweep tries other values",
        ),
        ({"selection_seeds": [1, 1000]}, "selection_seeds: 1 is also in seeds"),
        ({"selection_seeds": [5], "sweep": None}, "selection_seeds: there is no sweep"),
        ({"pretrain": {"eval_split": "test"}}, "pretrain.eval_split: remove it; a sweep sets it"),
        ({"procedural": ["2k", "4k"]}, "procedural runs the arm with every amount, sweep.dose with the best one"),
        ({"corpus": None, "diagnostics": {"haystack": {}}}, "sweep: chooses by the validation loss"),
    ],
)
def test_a_sweep_that_cannot_be_run_is_one_line(root: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as error:
        build_recipe(values(**{"sweep": SWEEP, "seeds": [0, 1]} | changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_arm_has_lists_of_its_own(root: Path) -> None:
    arms = {
        "cold": {"sweep": {"lr": [0.1, 0.2, 0.3], "init_std": []}},
        "plain": {"pretrain": {"lr": 0.5}, "sweep": {"lr": [], "init_std": []}},
        "set": WARM | {"sweep": {"init_std": [0.3, 0.4], "lr": []}},
    }
    plan = swept(root, arms=arms)
    assert {arm: len(choice.groups[arm]) for arm, choice in plan.choices.items()} == {"cold": 3, "set": 4}
    (stage,) = (stage for stage in plan.stages if stage.name == "pretrain-plain-s0")
    assert stage.chosen is None
    assert stage.options.eval_split == "test"


def test_many_runs_need_agreement(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MOST_RUNS", 10)
    monkeypatch.setattr("proctool.experiment.cost.flops", lambda stage: 1)
    plan = swept(root)
    with pytest.raises(OptionError, match=r"sweep: 16 runs are left, 8 of them trials, .* or add --yes"):
        selection.require_few_runs(plan, yes=False)
    selection.require_few_runs(plan, yes=True)


def test_schedulers_get_both_phases(root: Path) -> None:
    plan = swept(root, arms={"cold": {}}, sweep={"lr": [0.001, 0.01]})
    rules = dict(
        line.split(":", 1) for line in emit.makefile(plan).splitlines() if not line.startswith(("\t", "#", "."))
        and ":" in line
    )  # fmt: skip
    trials, (chosen,) = ([stage.folder(root).name for stage in plan.stages if stage.label.kind == kind]
                         for kind in ("trial", "choose"))  # fmt: skip
    assert rules[chosen].split() == trials
    for stage in plan.stages:
        if stage.label.kind == "pretrain":
            assert rules[stage.folder(root).name].split() == [chosen]
    lists = [path.name for path in emit.slurm(plan) if path.suffix == ".txt"]
    assert lists == ["1-1.txt", "2-1.txt", "3-1.txt"]


class _Rows:
    context = 4

    def read(self, indices: Any) -> Samples:
        return Samples(np.asarray(indices)[:, None], np.ones((len(indices), 1), bool))


def test_a_range_of_rows_stays_inside(root: Path) -> None:
    half = RowRange(_Rows(), 3, 7)  # type: ignore[arg-type]
    assert half.read(np.arange(len(half))).tokens[:, 0].tolist() == [3, 4, 5, 6]
    for outside in (-1, 4):
        with pytest.raises(IndexError):
            half.read(np.array([outside]))


def test_halves_share_no_row_and_lose_none(text: Path, tmp_path: Path) -> None:
    def rows(folder: Path, half: str | None) -> list[bytes]:
        store = open_store(open_corpus(str(folder)), load_tokenizer("bytes"), 16, cache_dir=tmp_path / "cache")
        found = evaluation_rows(store, half)
        return [row.tobytes() for row in found.read(np.arange(len(found))).tokens]

    assert rows(text, "selection") + rows(text, "test") == rows(text, None)
    assert abs(len(rows(text, "selection")) - len(rows(text, "test"))) <= 1
    files = sorted(text.iterdir())
    for place, file in enumerate(files):
        split = {0: "validation", 1: "test"}.get(place, "train")
        (tmp_path / "own" / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "own" / split)
    own = tmp_path / "own"
    assert rows(own, "selection") == rows(own, None) != rows(own, "test")
    assert files[1].read_bytes().startswith(np.frombuffer(rows(own, "test")[0], np.uint16).astype(np.uint8).tobytes())


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_a_sweep_from_recipe_to_report(proctool: Callable[..., Any], text: Path, tmp_path: Path) -> None:
    """Trials and reports score different rows, a lost choice is made again, and finished stages stay."""
    pretrain = {"steps": 4, "batch_size": 2, "eval_every": 4, "eval_samples": 8, "log_every": 4}
    recipe = values(
        corpus=str(text), context=16, pretrain=pretrain, warmup={"steps": 4, "batch_size": 2},
        sweep={"lr": [1e-3, 1e29], "dose": [100, 200]}, arms={"cold": {}, "set": {"warmup": {"task": "set:inputs=4"}}},
    )  # fmt: skip
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    said = proctool("run", path)
    assert said.code == 0, said.err
    root = Path("runs/tiny")
    whole = plan(build_recipe(recipe), root)
    assert whole.missing() == []
    settings = {
        stage.label.kind: json.loads((stage.folder(root) / "config.json").read_text())
        for stage in whole.stages
        if stage.trains
    }
    assert settings["pretrain"]["lr"] == 0.001
    assert settings["pretrain"]["eval_split"] == "test"
    (choice,) = (stage for stage in whole.stages if stage.name == "choose-set")
    before = choice.artifact(root).read_bytes()  # type: ignore[union-attr]
    choice.artifact(root).unlink()  # type: ignore[union-attr]
    again = proctool("run", path)
    assert choice.artifact(root).read_bytes() == before  # type: ignore[union-attr]
    assert again.out == said.out
