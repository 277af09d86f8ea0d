"""Diagnostics: published settings, scorings, validation samples that nobody trains on, and means over seeds."""

from __future__ import annotations

import dataclasses
import json
import shutil
import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from proctool import artifact, config
from proctool.errors import OptionError
from proctool.evaluation import diagnostic_run
from proctool.evaluation.diagnostic import _check_unseen, diagnostic_job, held_out
from proctool.evaluation.diagnostic_run import init_labels
from proctool.evaluation.options import DIAGNOSTICS, DiagnosticOptions, HaystackOptions, diagnostic_task, scale_values
from proctool.evaluation.scoring import by_scoring, scores_of
from proctool.evaluation.summary import summarise
from proctool.experiment.graph import plan
from proctool.experiment.record import write_record
from proctool.models.build import build_model, model_config
from proctool.models.saved import save_model
from proctool.procedural.registry import build_task, task_class
from proctool.procedural.streams import SPLITS, Stream
from proctool.recipe import load_recipe
from proctool.results import (
    CurvePoint,
    DiagnosticRun,
    DiagnosticSummary,
    RunScores,
    ValidationSet,
    read_results,
    to_json,
)
from proctool.training.devices import make_accelerator
from tests.conftest import Said

SMALL = (
    "--model", "1x2x16", "--steps", 4, "--ramp-steps", 2, "--batch-size", 8, "--eval-every", 2, "--eval-samples", 16,
)  # fmt: skip
SUM = ("eval", "addition", "--digits", 2, *SMALL)


def options_of(name: str, scale: str = "paper", **given: Any) -> DiagnosticOptions:
    return config.build(DIAGNOSTICS[name], scale_values(name, scale, given), "")


def measured(seed: int, *accuracies: float) -> DiagnosticRun:
    """A run with these accuracies at steps 0, 10, 20, ..."""
    curve = [
        CurvePoint(step=10 * number, tokens=80 * number, loss=1.5, accuracy=value, exact_match=value)
        for number, value in enumerate(accuracies)
    ]
    return DiagnosticRun(
        diagnostic="sorting", task="sorting", init="none", init_file=None, init_content=None, seed=seed,
        steps=curve[-1].step, tokens=80 * len(curve), curve=tuple(curve),
        scores={"answer": RunScores(loss=None, accuracy=accuracies[-1], exact_match=0, targets=40)},
        held_out=ValidationSet(split="validation", seed=0, samples=4, sha256="00"),
        artifact="model.safetensors", content="c0ffee", run_dir="run", seconds=1.5, versions={"proctool": "0"},
    )  # fmt: skip


def lines(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_a_diagnostic_offers_its_tasks_options_and_nothing_else(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(task_class(name))}
    kinds = typing.get_type_hints(DIAGNOSTICS[name])
    assert set(DIAGNOSTICS[name].task_options) <= fields & kinds.keys()
    assert DIAGNOSTICS[name].laptop.keys() <= kinds.keys()
    laptop, paper = options_of(name, "laptop"), options_of(name)
    assert laptop.steps * laptop.batch_size < paper.steps * paper.batch_size
    assert diagnostic_task(name, laptop).length <= diagnostic_task(name, paper).length


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("haystack", {"pairs": 30, "vocab": 256}),
        ("addition", {"digits": 5}),
        ("reversed-addition", {"digits": 10}),
        ("multiplication", {"digits": 5}),
        ("sorting", {}),
    ],
)
def test_the_published_settings_are_the_defaults(name: str, task: dict[str, int]) -> None:
    found = options_of(name)
    assert (found.steps, found.ramp_steps, found.lr, found.weight_decay) == (10_000, 500, 1e-3, 1e-3)
    assert (found.eval_samples, found.schedule) == (4000, "cosine")
    assert (found.model, found.batch_size) == (("4x8x512", 64) if name == "multiplication" else ("diagnostic", 1000))
    assert (found.beta2, found.final_lr, found.tie) == (0.999, 0, False if name == "multiplication" else None)
    assert task.items() <= diagnostic_task(name, found).options.items()


def test_what_is_given_by_hand_wins_over_the_scale() -> None:
    assert options_of("sorting", "laptop", steps=7, items=9, ramp_steps=0).steps == 7
    assert options_of("sorting", "laptop", items=9).task_options == ("items", "symbols")
    assert diagnostic_task("sorting", options_of("sorting", "laptop", items=9)).length == 19
    assert options_of("sorting", "laptop", items=9).steps == options_of("sorting", "laptop").steps


@pytest.mark.parametrize("scale", ["paper", "laptop"])
@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_no_seed_trains_on_a_held_out_sequence(name: str, scale: str) -> None:
    options = options_of(name, scale)
    task = diagnostic_task(name, options)
    held = {row.tobytes() for row in held_out(task).read(0, options.eval_samples).tokens}
    for seed in (0, 1, 7):
        job = diagnostic_job(name, dataclasses.replace(options, seed=seed))
        assert job.held_out.metadata() == held_out(task).metadata()
        assert not held & {row.tobytes() for row in job.source.read(0, 6000).tokens}
    assert len(held) > 10


def test_a_curriculum_keeps_its_short_samples_apart_too() -> None:
    job = diagnostic_job("addition", options_of("addition", digits=3, curriculum="start=1,step=1"))
    assert job.curriculum is not None
    sizes = [stage.size for stage in job.curriculum.stages]
    assert sizes == [1, 2, 3]
    for stage in job.curriculum.stages:
        held = {row.tobytes() for row in stage.held_out.read(0, 500).tokens}
        assert not held & {row.tobytes() for row in stage.source.read(0, 4000).tokens}


# -- scoring --

LETTERS = {
    **{digit: str(digit) for digit in range(10)},
    **{20 + digit: str(digit) for digit in range(10)},
    10: "+",
    11: "=",
    12: "_",
    30: "!",
}


def masks(name: str, scoring: str) -> dict[str, str]:
    """By how a sample reads, its targets as x and dots. All splits: which one a sequence is in is for its hash to say.

    All sequences of one digit are there, so none is lost between the splits.
    """
    task = build_task(name, {"digits": 1, "scoring": scoring})
    read = [Stream(task, 3, split).read(0, 4096) for split in SPLITS]
    found = [
        {
            "".join(LETTERS[token] for token in row.tolist()): "".join("x" if one else "." for one in targets)
            for row, targets in zip(samples.tokens, samples.targets, strict=True)
        }
        for samples in read
    ]
    assert all(found)
    assert sum(map(len, found)) == len(set().union(*found)) == 9 * 9
    return {written: mask for each in found for written, mask in each.items()}


@pytest.mark.parametrize(
    ("name", "written", "answer", "official"),
    [
        ("addition", "2+3=5!_", "....xx.", ".....xx"),  # the 5 is not trained, the padding is
        ("addition", "9+5=14!", "....xxx", ".....xx"),
        ("reversed-addition", "9+5=41!", "....xxx", ".....xx"),
        ("multiplication", "2+3=6!_", "....xx.", ".....xx"),
        ("multiplication", "7+8=56!", "....xxx", ".....xx"),
    ],
)
def test_the_official_mask_tests_the_token_before(name: str, written: str, answer: str, official: str) -> None:
    found = {scoring: masks(name, scoring) for scoring in ("answer", "official")}
    assert (found["answer"][written], found["official"][written]) == (answer, official)


def test_both_scorings_are_what_a_plain_loop_over_the_logits_gives(tmp_path: Path) -> None:
    task = build_task("addition", {"digits": 2})
    model = build_model(model_config("1x2x16", vocab_size=task.vocab_size, context=task.length), seed=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    save_model(tmp_path / "m.safetensors", model, {})
    found = scores_of(tmp_path / "m.safetensors", task, 300, 64)
    tokens = held_out(task).read(0, 300).tokens.astype(np.int64)
    with torch.no_grad():
        guesses = model.eval()(torch.from_numpy(tokens)).logits.argmax(-1).numpy()
    for scoring, scored in by_scoring(task).items():
        targets = held_out(scored).read(0, 300).targets
        right = total = whole = 0
        for row in range(300):
            hits = [guesses[row, at - 1] == tokens[row, at] for at in range(1, task.length) if targets[row, at]]
            right, total, whole = right + sum(hits), total + len(hits), whole + all(hits)
        assert found[scoring].accuracy == pytest.approx(right / total)
        assert found[scoring].exact_match == pytest.approx(whole / 300)
        assert found[scoring].targets == total
    assert found["answer"].accuracy != found["official"].accuracy


def test_what_trained_before_does_not_change_scores(tmp_path: Path) -> None:
    task = build_task("addition", {"digits": 2})
    model = build_model(model_config("1x2x16", vocab_size=task.vocab_size, context=task.length), seed=4)
    save_model(tmp_path / "m.safetensors", model, {})
    found = []
    for precision in ("fp32", "bf16", "fp32"):
        asked = options_of("addition", precision=precision, batch_size=8)
        assert make_accelerator(asked).mixed_precision == {"fp32": "no"}.get(precision, precision)
        found.append(scores_of(tmp_path / "m.safetensors", task, 64, 64))
    assert found[0] == found[1] == found[2]


# -- over seeds --


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_every_init_runs_with_every_seed_and_again_from_where_it_is(proctool: Callable[..., Said]) -> None:
    said = proctool("warmup", "--task", "set:inputs=4", "--steps", 2, "--model", "1x2x16", "-o", "warm.safetensors")
    assert said.code == 0
    study = (*SUM, "--init", "none", "--init", "warm.safetensors", "--seeds", "0,3", "--run-dir", "runs/sum", "--json")
    planned = lines(proctool(*study, "--dry-run"))[0]
    assert [run["state"] for run in planned["runs"]] == ["missing"] * 4
    assert not Path("runs/sum").exists()

    found = lines(proctool(*study))
    runs, summaries = found[:4], found[4:]
    assert [(run["init"], run["seed"]) for run in runs] == [("none", 0), ("none", 3), ("warm", 0), ("warm", 3)]
    warm = artifact.read_header(Path("warm.safetensors")).content
    assert [run["init_content"] for run in runs] == [None, None, warm, warm]
    for run in runs:
        assert run["content"] == artifact.read_header(Path(run["artifact"])).content
        assert [point["step"] for point in run["curve"]] == [0, 2, 4]
        assert run["curve"][-1]["accuracy"] == pytest.approx(run["scores"]["answer"]["accuracy"])
        assert run["held_out"] == runs[0]["held_out"]
        assert run["versions"]["torch"]
    assert len({run["content"] for run in runs}) == 4
    for each, mine in zip(summaries, (runs[:2], runs[2:]), strict=True):
        for number, point in enumerate(each["curve"]):
            share = point["accuracy"]
            assert share["mean"] == pytest.approx(sum(run["curve"][number]["accuracy"] for run in mine) / 2)
            assert 0 <= share["low"] <= share["mean"] <= share["high"] <= 1
        assert {"answer", "official"} == each["scores"].keys()
    assert [json.loads(line) for line in Path("runs/sum/results.jsonl").read_text().splitlines()] == found

    first, second, third, last = (Path(run["run_dir"]) for run in runs)
    (last / "metrics.jsonl").unlink()  # as if it had not been run yet
    (second / "results.jsonl").unlink()  # as if it had been killed before it was scored
    shutil.copy(first / "results.jsonl", third / "results.jsonl")  # another model's
    before = [(folder / "metrics.jsonl").stat().st_mtime_ns for folder in (first, second, third)]
    planned = lines(proctool(*study, "--dry-run"))[0]
    assert [run["state"] for run in planned["runs"]] == ["done", "done", "done", "missing"]
    again = lines(proctool(*study))
    assert [{**run, "seconds": None} for run in again] == [{**run, "seconds": None} for run in found]
    assert [(folder / "metrics.jsonl").stat().st_mtime_ns for folder in (first, second, third)] == before

    weights = first / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    (second / "model.safetensors").unlink()  # its results are complete
    record = Path("runs/sum/experiment.json")
    record.write_text("{")
    said = proctool("report", "runs/sum")
    assert "experiment.json: damaged" in said.line
    assert said.line.endswith("it keeps finished runs and rewrites the file")
    states = [run["state"] for run in lines(proctool(*study, "--dry-run"))[0]["runs"]]
    assert states == ["started", "done", "done", "done"]
    again = lines(proctool(*study))
    assert [{**run, "seconds": None} for run in again] == [{**run, "seconds": None} for run in found]
    assert artifact.read_header(first / "model.safetensors").content == found[0]["content"]

    shorter = (*SUM, "--steps", 2, "--run-dir", "runs/sum", "--json")
    seeds = lines(proctool(*SUM, "--seeds", "0,7", "--run-dir", "runs/sum", "--json"))
    other = lines(proctool(*shorter, "--seeds", "0,3"))
    kept = [to_json(line) for line in read_results(Path("runs/sum/results.jsonl"))]
    assert sorted((run["init"], run["seed"], run["steps"]) for run in kept if run["event"] == "diagnostic") == [
        ("none", 0, 2), ("none", 0, 4), ("none", 3, 2), ("none", 3, 4), ("none", 7, 4), ("warm", 0, 4), ("warm", 3, 4),
    ]  # fmt: skip
    assert kept[:2] == other[:2]
    assert sorted((each["init"], sorted(each["seeds"])) for each in kept if each["event"] == "summary") == [
        ("none", [0, 3]), ("none", [0, 3, 7]), ("warm", [0, 3]),
    ]  # fmt: skip
    assert seeds[1] in kept

    assert proctool(*study).code == 0
    said = proctool("report", "runs/sum", "--json", "--figures", "none")
    reported = json.loads(said.out)
    assert reported["baseline"] == "none"
    assert "is not a run folder" in proctool(*SUM, "--run-dir", "runs/sum").line


@pytest.mark.slow
def test_jobs_change_nothing_but_the_time(proctool: Callable[..., Said]) -> None:
    one, two = (
        lines(proctool(*SUM, "--seeds", "0,1", "--jobs", jobs, "--run-dir", f"runs/{jobs}", "--json"))
        for jobs in (1, 2)
    )
    assert [line.get("content") for line in one] == [line.get("content") for line in two]
    assert one[2]["curve"] == two[2]["curve"]


def test_a_run_that_stopped_early_counts_on_with_its_last_measure() -> None:
    (found,) = summarise([measured(0, 0.0, 1.0), measured(1, 0.0, 0.5, 0.8)])
    assert [point.accuracy.mean for point in found.curve] == pytest.approx([0, 0.75, 0.9])
    assert [point.step for point in found.curve] == [0, 10, 20]


def test_a_study_is_not_started_by_every_process_of_a_launch(
    proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("proctool.cli.run.execute_stages", lambda *_: pytest.fail("it is started"))
    said = proctool(*SUM, "--seeds", "0,1")
    assert said.code == 1
    assert "several inits or seeds cannot run under torchrun" in said.line
    assert not Path("runs").exists()


@pytest.mark.usefixtures("in_process")
def test_inits_with_equal_weights_share_their_runs_and_keep_their_names(proctool: Callable[..., Said]) -> None:
    assert (
        proctool("warmup", "--task", "set:inputs=4", "--steps", 1, "--model", "1x2x16", "-o", "a.safetensors").code == 0
    )
    shutil.copy("a.safetensors", "b.safetensors")
    found = lines(proctool(*SUM, "--init", "a.safetensors", "--init", "b.safetensors", "--json"))
    one, other, *summaries = found
    assert [(line["init"], line["init_file"]) for line in (one, other)] == [
        ("a", "a.safetensors"),
        ("b", "b.safetensors"),
    ]
    assert one["run_dir"] == other["run_dir"]
    assert [line["init"] for line in summaries] == ["a", "b"]


@pytest.mark.usefixtures("in_process")
def test_a_run_that_fails_leaves_the_others_their_results(
    proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = diagnostic_run.run_diagnostic

    def failing(name: str, options: DiagnosticOptions, *more: Any) -> Any:
        if options.seed == 0 or everything_fails:
            raise OptionError("no room on the device")
        return run(name, options, *more)

    monkeypatch.setattr(diagnostic_run, "run_diagnostic", failing)
    everything_fails = True
    said = proctool(*SUM, "--seeds", "0,1")
    assert (said.code, said.err.splitlines()[-1]) == (1, "proctool: all runs failed; see the messages above")
    everything_fails = False
    said = proctool(*SUM, "--seeds", "0,1", "--json")
    assert said.code == 1
    assert "1 of 2 runs failed (addition-none-s0)" in said.err.splitlines()[-1]
    assert "no room on the device" in said.err
    kept = read_results(Path("runs/eval-addition/results.jsonl"))
    assert [(line.kind, line.seeds if isinstance(line, DiagnosticSummary) else line.seed) for line in kept] == [
        ("diagnostic", 1), ("summary", (1,)),
    ]  # fmt: skip
    assert [to_json(line) for line in kept] == [json.loads(line) for line in said.out.splitlines()]


def test_a_study_leaves_other_folders_as_they_are(proctool: Callable[..., Said]) -> None:
    for seed in (0, 1):  # as studies were laid out once: no experiment.json, a run folder named for init and seed
        assert proctool(*SUM, "--seed", seed, "--run-dir", f"old/none-s{seed}").code == 0
    shutil.copy("old/none-s0/results.jsonl", "old/results.jsonl")
    recipe = "name: other\nmodel: 1x2x16\narms: {cold: {}}\ndiagnostics: {sorting: {steps: 9, ramp_steps: 1}}\n"
    Path("other.yaml").write_text(recipe)
    planned = plan(load_recipe(Path("other.yaml")), Path("other"))
    write_record(planned, recipe, "")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for folder, why in {
        "old": "is not the folder of this experiment (experiment.json is missing",
        "old/none-s0": "is not the folder of this experiment",  # a single run's
        "other": "the folder of another experiment (other)",
        "other.yaml": "is a file",
    }.items():
        said = proctool(*SUM, "--seeds", "0,1", "--run-dir", folder)
        assert said.code == 1
        assert said.line.startswith(f"proctool: {folder}: ")
        assert why in said.line
        assert said.line.endswith("choose another --run-dir")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    compared = proctool("compare", "none=old/none-s0", "none=old/none-s1", "--json")
    assert compared.code == 0, compared.err
    assert proctool("inspect", "old/none-s0/model.safetensors").code == 0


@pytest.mark.usefixtures("in_process")
def test_a_single_run_gives_both_scorings_and_is_the_same_as_in_a_study(proctool: Callable[..., Said]) -> None:
    (one,) = lines(proctool(*SUM, "--seed", 3, "--scoring", "official", "--json"))
    study = lines(proctool(*SUM, "--seeds", 3, "--scoring", "official", "--run-dir", "runs/study", "--json"))
    where = ("artifact", "run_dir", "seconds")
    assert {**study[0], **{key: one[key] for key in where}} == one
    assert one["curve"][-1]["accuracy"] == pytest.approx(one["scores"]["official"]["accuracy"])
    assert json.loads(Path("runs/eval-addition/results.jsonl").read_text()) == one


MISTAKES = {
    "official haystack": (("eval", "haystack", "--set", "scoring=official"), 'unknown option "scoring"'),
    "seed and seeds": ((*SUM, "--seed", 1, "--seeds", "1,2"), "seed: give either"),
    "seeds twice": ((*SUM, "--seeds", "1,2,1"), "seeds: 1 is given twice"),
    "inits twice": ((*SUM, "--init", "none", "--init", "none"), "init: none is given twice"),
    "no number": ((*SUM, "--seeds", "1,x"), "seeds: 'x'"),
    "negative seed": ((*SUM, "--seeds", "-1"), "seeds: -1"),
    "no jobs": ((*SUM, "--seeds", "0,1", "--jobs", 0), "jobs = 0"),
    "extending": ((*SUM, "--seeds", "0,1", "--extend"), "extend: not supported for several runs"),
    "starting afresh": ((*SUM, "--seeds", "0,1", "--resume", "never"), "resume: a study always keeps"),
    "one file for several": ((*SUM, "--seeds", "0,1", "-o", "m.safetensors"), "output: several runs"),
    "missing second init": ((*SUM, "--init", "none", "--init", "no.safetensors"), "no.safetensors: no such file"),
    "another width": ((*SUM, "--init", "none", "--init", "warm.safetensors", "--model", "1x2x32"), "16 width"),
    "warmed on validation samples": (("eval", "sorting", *SMALL, "--init", "seen.safetensors"), "validation split"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_begun(proctool: Callable[..., Said], mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    task = build_task("sorting")
    model = build_model(model_config("1x2x16", vocab_size=task.vocab_size, context=task.length), 0)
    save_model(Path("warm.safetensors"), model, {"task": task.spec, "split": "train"})
    save_model(Path("seen.safetensors"), model, {"task": task.spec, "split": "validation"})
    said = proctool(*arguments)
    assert said.code == 1
    assert message in said.line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "spec", ["sorting:items=4", "shuffle(sorting:items=4)", "set:inputs=8*0.5 + sorting:items=4*0.5",
             "shuffle(set*1 + sorting*3)"],
)  # fmt: skip
def test_a_donor_that_saw_validation_samples_is_refused_however_they_were_mixed(spec: str) -> None:
    def check(task: str, split: str) -> None:
        donor = SimpleNamespace(path=Path("warm"), metadata={"task": task, "split": split})
        _check_unseen(build_task("sorting", {}), donor)  # type: ignore[arg-type]

    with pytest.raises(OptionError, match="validation split of sorting"):
        check(spec, "validation")
    check(spec, "train")
    for other in ("set*0.5 + union*0.5", "of-a-package-that-has-gone"):
        check(other, "validation")


def test_none_is_the_name_of_fresh_weights_alone() -> None:
    assert init_labels(["none", "a/none.safetensors", "a/set.safetensors"]) == ["none", "a-none", "set"]


def test_the_default_ramp_fits_short_runs_and_another_is_not_changed() -> None:
    assert HaystackOptions(steps=20).ramp_steps == 2
    assert HaystackOptions(steps=500).ramp_steps == 500
    with pytest.raises(OptionError, match="ramp_steps = 30: more than the 20 steps"):
        HaystackOptions(steps=20, ramp_steps=30)


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_the_ramp_of_the_laptop_scale_fits_short_runs_unless_it_is_given(name: str) -> None:
    ramps = [options_of(name, "laptop", steps=steps).ramp_steps for steps in (30, 499, "0.5k", 1500)]
    assert ramps == [3, 49, 100, 100]
    assert options_of(name, "laptop").ramp_steps == 100
    assert options_of(name, "laptop", steps=200, ramp_steps=60).ramp_steps == 60
    with pytest.raises(OptionError, match="ramp_steps = 40: more than the 30 steps"):
        options_of(name, "laptop", steps=30, ramp_steps=40)
