"""`proctool plan`: every recipe has a plan, numbers hang together, advice works, mistakes are one line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import OptionError
from proctool.experiment.graph import plan
from proctool.experiment.planning import ExperimentPlan, HardwareOptions, RunOptions, plan_stages
from proctool.models.hardware import find_gpu
from proctool.recipe import build_recipe, load_recipe

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
SMALL = ("--model", "2x2x16", "--context", 16, "--batch-size", 8, "--tokenizer", "bytes")


def planned(run: RunOptions, **hardware: Any) -> ExperimentPlan:
    return plan_stages([run.stage()], HardwareOptions(**hardware))


@pytest.mark.parametrize(
    "path",
    [path if path.stem in ("demo", "c4") else pytest.param(path, marks=pytest.mark.slow) for path in RECIPES],
    ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")),
)
def test_every_recipe_has_a_plan(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    whole = plan(recipe, tmp_path)
    found = plan_stages(whole.stages, HardwareOptions(gpus=(1, 8, 64)), recipe.launch.processes)
    training = [stage for stage in whole.stages if stage.trains]
    assert sum(each.stages for each in found.stages) == len(training)
    assert found.tokens == sum(stage.tokens for stage in training) == sum(e.stages * e.tokens for e in found.stages)
    assert found.flops == sum(each.stages * each.flops for each in found.stages) > 0
    one, eight, many = found.totals
    assert one.seconds > eight.seconds > many.seconds > 0
    # Nobody works for nothing, and no GPU does more than it can.
    for total in found.totals:
        assert total.processes * total.at_once <= total.gpus
        assert total.seconds * total.gpus >= one.seconds * (1 - 1e-9)
    for each in found.stages:
        for fit in each.fits:
            stage = next(stage for stage in training if stage.name.startswith(each.name))
            assert fit.processes * fit.micro_batch * fit.accumulate == stage.options.batch_size  # type: ignore[union-attr]
            assert (fit.advice is None) == fit.fits == (fit.plain <= found.gpu.room)
            assert fit.sharded < fit.plain or fit.processes == 1 or each.parameters < 1e6


@pytest.mark.parametrize("name", ["c4-350m", "c4-1.3b", "codeparrot-350m", "codeparrot-1.3b"])
def test_the_papers_larger_models_fit_a_h100_as_written(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(FOLDER / "paper" / f"{name}.yaml")
    found = plan_stages(plan(recipe, tmp_path).stages, HardwareOptions(), recipe.launch.processes)
    assert all(fit.fits for each in found.stages for fit in each.fits)
    assert {each.precision for each in found.stages} == {"bf16"}


@pytest.mark.parametrize(("gpu", "checkpoints"), [("h100", False), ("a10", True)])
def test_auto_is_planned_for_the_gpu(gpu: str, checkpoints: bool) -> None:
    run = RunOptions(
        model="12x12x768", context=98_304, steps=10, batch_size=4,
        micro_batch="auto", gradient_checkpointing="auto",
    )  # fmt: skip
    (fit,) = planned(run, gpu=gpu, gpus=(1,)).stages[0].fits
    assert fit.gradient_checkpointing is checkpoints
    assert fit.fits
    (fixed,) = planned(
        dataclasses.replace(run, micro_batch=fit.micro_batch, gradient_checkpointing=checkpoints), gpu=gpu, gpus=(1,)
    ).stages[0].fits  # fmt: skip
    assert fixed == fit


def test_time_is_operations_over_the_peak_at_that_mfu() -> None:
    run = RunOptions(model="gpt2", context=1024, batch_size=32, budget=655_360_000)
    found = planned(run, gpu="a100", gpus=(1, 8), mfu=0.4)
    (stage,) = found.stages
    assert (stage.tokens, stage.epochs, stage.parameters) == (655_360_000, 1.0, 124_439_808)
    assert stage.flops == 655_360_000 * (6 * 123_532_032 + 12 * 12 * 768 * 1024)
    assert [fit.seconds for fit in stage.fits] == pytest.approx([stage.flops / (n * 312e12 * 0.4) for n in (1, 8)])
    assert [total.seconds for total in found.totals] == [fit.seconds for fit in stage.fits]


def test_a_step_is_spread_over_as_many_gpus_as_it_has_samples() -> None:
    run = RunOptions(model="2x2x16", context=16, batch_size=12, steps=5)
    for gpus, processes in ((1, 1), (5, 4), (8, 6), (64, 12)):
        (total,) = planned(run, gpus=(gpus,)).totals
        assert total.processes == processes
    (fit,) = planned(dataclasses.replace(run, accumulate=3), gpus=(2,)).stages[0].fits
    assert (fit.micro_batch, fit.accumulate) == (3, 2)  # at most the 4 samples at once that one GPU was to have


def test_advice_makes_it_fit() -> None:
    run = RunOptions(model="gpt2-large", context=1024, batch_size=64, steps=10)
    (fit,) = planned(run, gpu="a100-40gb", gpus=(1,)).stages[0].fits
    assert not fit.fits
    assert fit.advice is not None
    assert fit.advice.startswith("accumulate: ")
    pieces = int(fit.advice.removeprefix("accumulate: "))
    (again,) = planned(dataclasses.replace(run, accumulate=pieces), gpu="a100-40gb", gpus=(1,)).stages[0].fits
    assert again.fits
    (before,) = planned(dataclasses.replace(run, accumulate=pieces // 2), gpu="a100-40gb", gpus=(1,)).stages[0].fits
    assert not before.fits


def test_what_no_single_gpu_holds_is_sharded_or_refused() -> None:
    run = RunOptions(model="gpt2-xl", context=1024, batch_size=32, steps=10)
    one, eight = planned(run, gpu="4090", gpus=(1, 8)).stages[0].fits
    assert one.advice is not None
    assert "does not fit" in one.advice
    assert eight.advice == "shard it (FSDP2)"
    assert eight.sharded <= find_gpu("4090").room < eight.plain


def test_checkpointing_is_advised_before_giving_up() -> None:
    run = RunOptions(model="gpt2-large", context=10240, batch_size=1, steps=1)
    (fit,) = planned(run, gpu="l4", gpus=(1,)).stages[0].fits
    assert fit.advice == "gradient_checkpointing, accumulate: 1"


def test_flags_of_a_run(proctool: Callable[..., Any]) -> None:
    said = proctool("plan", *SMALL, "--budget", "1M", "--steps", 20_000, "--gpu", "h200", "--gpus", "1,2", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    (stage,) = found["stages"]
    assert stage["epochs"] == pytest.approx(20_000 * 8 * 16 / 1e6)
    assert [fit["gpus"] for fit in stage["fits"]] == [1, 2]
    assert found["gpu"]["name"] == "H200"


def test_a_recipe_in_words(proctool: Callable[..., Any]) -> None:
    said = proctool("plan", FOLDER / "paper" / "c4-350m.yaml", "--gpus", "8,64")
    assert said.code == 0, said.err
    for words in ("pretrain-union", "356M", "64 x H100", "fits", "64 GPUs: a run uses 32 of them", "MFU 0.4"):
        assert words in said.out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "plan: give a recipe, --budget TOKENS or --steps N"),
        (("--budget", "1M", "--gpu", "h10"), 'did you mean "h100"?'),
        (("--budget", "1M", "--mfu", "40"), "mfu = 40: must be above 0 and at most 1"),
        (("--budget", "1M", "--mfu", "0"), "mfu = 0"),
        (("--budget", "1M", "--gpus", "8,0"), "gpus = 0"),
        (("--budget", "1M", "--gpu", "v100"), "does not support bf16"),
        (("--budget", "1M", "--precision", "bf61"), "precision"),
        (("--budget", "1M", "--model", "gtp2"), 'did you mean "gpt2"?'),
        (("--steps", "0"), "steps = 0"),
        ((FOLDER / "demo.yaml", "--steps", "3"), "--steps: the recipe sets it"),
        (("no-such.yaml",), "no-such.yaml"),
    ],
)
def test_mistakes_are_one_line(proctool: Callable[..., Any], flags: tuple[object, ...], says: str) -> None:
    said = proctool("plan", *flags)
    assert (said.code, said.out) == (1, "")
    assert says in said.line


def test_a_launch_that_cannot_share_out_a_batch_is_refused(tmp_path: Path) -> None:
    values = {
        "name": "a", "model": "2x2x16", "corpus": "python", "arms": {"cold": {}}, "launch": {"processes": 8},
        "pretrain": {"batch_size": 32, "accumulate": 8},
    }  # fmt: skip
    with pytest.raises(OptionError, match="pretrain-cold-s0: batch_size = 32: not a multiple of 8"):
        plan(build_recipe(values), tmp_path)


def test_dry_runs_say_the_peak(proctool: Callable[..., Any]) -> None:
    command = ("warmup", "--task", "set:inputs=8,symbols=20", "--model", "2x2x16", "--dry-run")
    few, many = (json.loads(proctool(*command, "--batch-size", size, "--json").out) for size in (8, 64))
    assert few["state_bytes"] == many["state_bytes"]
    assert few["peak_bytes"] < many["peak_bytes"]
    assert "at peak" in proctool(*command).err
