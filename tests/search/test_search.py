"""`proctool search` from the command line, over trials that a formula stands for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import Interrupted
from proctool.experiment.graph import plan
from proctool.recipe import load_recipe
from proctool.search.options import REPORTS

from .conftest import TINY, World

optuna = pytest.importorskip("optuna")
Run = Callable[..., Any]


@pytest.mark.slow
def test_a_real_gain_is_recommended_and_its_recipe_plans(proctool: Run, text: Path, world: World) -> None:
    world.gain = {"set": 0.3, "identity": 0.1}
    said = proctool(*TINY, "--corpus", text, "--trials", "8", "--gpu", "h100")
    assert said.code == 0, said.err
    first = said.out.splitlines()[0]
    assert first.startswith("Worth a try: a warm-up on set gains 0.3")
    assert "on 1 x H100" in said.out
    assert any("2x2x16: 15 of 15 trials" in line for line in said.err.splitlines())
    # The best rate, four times the usual one at these widths, is found for both: cold's grid grows at its edge.
    loaded = load_recipe(Path("search/recipe.yaml"))
    assert set(loaded.arms) == {"cold", "set"}
    planned = plan(loaded, Path("runs/x"))
    assert {each.control for each in planned.planned.values()} >= {None, "longer", "shuffled", "scale"}
    assert proctool("run", "search/recipe.yaml", "--dry-run").code == 0
    answer = json.loads(Path("search/answer.json").read_text())
    assert answer["verdict"] == "recommend"
    assert answer["measured"]["winner"]["gain"]["n"] == 3
    # The last measurement has seeds of its own, and the controls of the winner.
    confirming = [(arm, seed) for arm, seed in world.calls if seed >= 1000]
    assert {seed for _, seed in confirming} == {1000, 1001, 1002}
    assert {arm for arm, _ in confirming} == {
        "cold", "candidate-1", "candidate-2", "candidate-1-scale", "cold-longer"
    }  # fmt: skip
    # Successive halving stops weak candidates early; cold starts are never stopped.
    taken = list(zip(world.calls, world.reports, strict=True))
    assert {reports for (arm, _), reports in taken if arm == "cold"} == {REPORTS}
    assert min(reports for (arm, _), reports in taken if arm == "warm") < REPORTS
    # Finished work is not repeated, and the JSON is the answer's file.
    before = len(world.calls)
    again = proctool(*TINY, "--corpus", text, "--trials", "8", "--gpu", "h100", "--json")
    assert len(world.calls) == before
    assert json.loads(again.out) == answer


def test_no_gain_is_not_worth_it_and_cold_is_tuned_beyond_its_grid(
    proctool: Run, text: Path, world: World, in_memory: Any
) -> None:
    world.best_rate = 0.024
    said = proctool(*TINY, "--corpus", text, "--trials", "2", "--widths", "8")
    assert said.out.startswith("Do not bother: the best warm-up found, on "), said.err
    assert "the interval includes no gain" in said.out
    answer = json.loads(Path("search/answer.json").read_text())
    assert answer["cold"]["rate"] == 0.024  # twice the highest of the grid
    assert answer["verdict"] == "no gain"


def test_candidates_end_when_the_time_of_later_phases_begins(
    proctool: Run, text: Path, world: World, in_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked(studies: Any) -> float:
        return 100.0 * sum(len(study.get_trials(deepcopy=False)) for study in studies)

    monkeypatch.setattr("proctool.search.loop.worked_seconds", worked)
    assert proctool(*TINY, "--corpus", text, "--hours", "0.5", "--widths", "8").code == 0
    tried = json.loads(Path("search/answer.json").read_text())["candidate_cells"]
    # 1800 s are 18 trials: 12 cold ones, and candidates until the reserve of about a minute begins.
    assert tried == 6


def _trials(folder: str) -> list[tuple[Any, ...]]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/study.db")
    found = []
    for study in optuna.study.get_all_study_summaries(storage):
        trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
        done = [each for each in trials if each.state.name != "FAIL"]
        found += [(study.study_name[8:], each.state.name, sorted(each.params.items()), each.value) for each in done]
    return found


@pytest.mark.slow
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(proctool: Run, text: Path, world: World) -> None:
    world.gain = {"set": 0.2}
    command = (*TINY, "--corpus", text, "--trials", "8")
    assert proctool(*command, "-o", "whole").code == 0
    calls, world.raises = len(world.calls), Interrupted("stopped")
    for stop_at in (4, 15, 9, 30):  # in every phase, and in a trial that was stopped before
        world.calls, world.stop_at = [], stop_at
        assert proctool(*command, "-o", "parts").code in (0, 130)
    world.stop_at = None
    assert proctool(*command, "-o", "parts").code == 0
    assert _trials("parts") == _trials("whole")
    assert len(_trials("whole")) == calls
    answers = [json.loads(Path(folder, "answer.json").read_text()) for folder in ("whole", "parts")]
    assert [each["measured"] for each in answers[1:]] == [each["measured"] for each in answers[:1]]


def test_lost_trials_are_tried_again_and_those_that_diverge_are_not(
    proctool: Run, text: Path, world: World, in_memory: Any
) -> None:
    finite = world.loss
    world.loss = lambda stage, arm: float("nan") if stage.options.lr > 0.1 else finite(stage, arm)  # type: ignore[method-assign, union-attr]
    world.best_rate = 0.1  # so that the best rate of all diverges
    command = (*TINY, "--corpus", text, "--trials", "2", "--widths", "8")
    world.stop_at, world.raises = 14, Interrupted("stopped")
    assert proctool(*command).code == 130
    name = optuna.study.get_all_study_summaries(in_memory)[0].study_name
    study = optuna.load_study(study_name=name, storage=in_memory)
    lost = study.ask(
        {"rate": optuna.distributions.FloatDistribution(1e-6, 10.0, log=True)}
    )  # by a process that is gone
    world.stop_at = None
    assert proctool(*command).code == 0
    assert study.trials[lost.number].state.name == "FAIL"
    world.raises, world.stop_at = optuna.exceptions.StorageInternalError("disk full"), len(world.calls) + 1
    said = proctool(*command, "-o", "full")
    assert said.line == ("proctool: storage: disk full; finished trials are kept; run the same command again to resume")
    world.loss, world.stop_at = lambda stage, arm: float("nan"), None  # type: ignore[method-assign]
    said = proctool(*command, "-o", "none")
    assert said.code == 1
    assert said.err.splitlines()[-1] == "proctool: no cold start of 2x2x8 finished: the loss is not finite"


ERRORS: list[tuple[tuple[str, ...], str]] = [
    (("--hours", "0"), "hours = 0: must be above 0"),
    (("--confirm", "2"), "an interval needs at least 3 fresh seeds"),
    (("--widths", "16,8"), "widths = 16,8: write each width once, the smallest first"),
    (("--widths", "32"), "widths: 32 is wider than the target's 16"),
    (("--family", "mamba"), "no small model stands for the family mamba, because it has no width rule"),
    (("--steps", "8000"), "too small: 8000 steps of 8 rows pass over it more than 4 times"),
    (("--hours", "1e-4"), "too short for trials of 16 steps, which need about"),
    (("--task", "set"), "its samples have 129 tokens, more than the context of 16"),
    (("--storage", "postgresql://me:secret@nowhere/x"), "storage postgresql://nowhere/x: cannot be used"),
    (("--storage", "nothing"), "storage nothing: cannot be used"),
    (("-o", "text"), "text: is not empty and is not a search's folder"),
    (("-o", "theirs"), "theirs/search.json: damaged, or not written by a search; choose another --output"),
]


@pytest.mark.parametrize(("words", "error"), ERRORS, ids=[" ".join(words) for words, _ in ERRORS])
def test_errors_are_one_line(proctool: Run, text: Path, world: World, words: tuple[str, ...], error: str) -> None:
    Path("theirs").mkdir()
    Path("theirs/search.json").write_text("{}")
    said = proctool(*TINY, "--corpus", text, "-o", "new/search", *words)
    assert said.code == 1
    assert error in said.line
    assert not Path("new").exists()
    assert "secret" not in said.line
    assert not world.calls


def test_the_folder_of_another_search_and_a_missing_optuna_are_refused(
    proctool: Run, text: Path, world: World, in_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*TINY, "--corpus", text, "--trials", "2", "--widths", "8")
    dry = proctool(*command, "--dry-run")
    assert "16 steps, 2.05k corpus tokens" in dry.out
    assert not Path("search").exists()
    assert proctool(*command).code == 0
    assert "belongs to a search with seed = 0, not 1; choose another --output" in proctool(*command, "--seed", "1").line
    (text / "00.txt").write_text("changed")
    assert "belongs to a search whose corpus has other contents" in proctool(*command).line
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert proctool(*command).line == "proctool: search needs Optuna: pip install 'proctool[search]'"
