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
from proctool.experiment.plan_options import HardwareOptions, RunOptions
from proctool.experiment.planning import ExperimentPlan, plan_stages
from proctool.experiment.stage import Label, Stage
from proctool.models.build import model_config, outline
from proctool.models.hardware import find_gpu
from proctool.procedural.registry import parse_spec
from proctool.recipe import build_recipe, load_recipe
from proctool.training.accept import Acceptance
from proctool.training.options import WarmupOptions
from proctool.training.speed import GPU_KERNEL_SECONDS, step_kernels

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
    assert one.seconds >= eight.seconds >= many.seconds > 0
    if not any(fit.at_floor for each in found.stages for fit in each.fits):
        assert one.seconds > eight.seconds > many.seconds
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


def test_the_floor_rules_small_steps_only() -> None:
    tiny = RunOptions(model="2x4x16", context=62, batch_size=1000, steps=90_000, tokenizer="bytes", precision="fp32")
    (fit,) = planned(tiny, gpus=(1,)).stages[0].fits
    assert fit.at_floor
    assert fit.seconds == pytest.approx(90_000 * step_kernels(2, "fp32") * GPU_KERNEL_SECONDS)
    (parts,) = planned(dataclasses.replace(tiny, accumulate=10), gpus=(1,)).stages[0].fits
    assert parts.seconds == pytest.approx(90_000 * step_kernels(2, "fp32", 10) * GPU_KERNEL_SECONDS)
    large = RunOptions(steps=10)
    (fit,) = planned(large, gpus=(1,)).stages[0].fits
    assert not fit.at_floor
    assert fit.flops_at_floor < planned(large).flops / 10


def test_the_floor_counts_the_probe_of_a_donor() -> None:
    options = WarmupOptions(
        task=("set:inputs=8,symbols=20",), model="2x2x16", steps=100, accept=Acceptance(diagnostic="haystack", steps=50)
    )
    task = parse_spec(options.task[0])
    stage = Stage(Label("warmup"), ("warmup",), options, {}, None, task.length, task)
    assert stage.probe is not None
    (found,) = plan_stages([stage], HardwareOptions(gpus=(1,))).stages
    each = step_kernels(2, "fp32") * GPU_KERNEL_SECONDS
    assert found.fits[0].seconds == pytest.approx(150 * each)


def test_a_plan_for_this_machine_is_measured(proctool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctool.training.speed.layer_flops", lambda on, precision, width: 1e6 * width)
    monkeypatch.setattr("proctool.training.speed.kernel_seconds", lambda kind: {"cpu": 1e-9}[kind])
    run = RunOptions(model="2x2x16", context=16, batch_size=8, steps=5, tokenizer="bytes")
    found = planned(run, gpu="cpu", price_per_hour=3600)
    (total,) = found.totals
    assert found.mfu == 0.6
    assert total.seconds == pytest.approx(found.flops / (0.6 * 16e6))
    assert total.cost == pytest.approx(total.seconds)
    said = proctool("plan", *SMALL, "--steps", 5, "--gpu", "cpu", "--price-per-hour", 3600)
    for words in ("1 x CPU", "Cost, in your currency: ", "measured on this machine"):
        assert words in said.out
    assert "GPU" not in said.out
    assert (
        json.loads(proctool("plan", *SMALL, "--steps", 5, "--gpu", "cpu", "--json").out)["stages"][0]["precision"]
        == "fp32"
    )


def test_gpus_that_do_not_shorten_tiny_steps_train_other_stages() -> None:
    run = RunOptions(model="2x2x16", context=16, batch_size=32, steps=1000)
    stages = [dataclasses.replace(run, steps=1000 + number).stage() for number in range(8)]
    one, eight = plan_stages(stages, HardwareOptions(gpus=(1, 8))).totals
    assert (eight.processes, eight.at_once) == (1, 8)
    assert eight.seconds < 0.13 * one.seconds


def test_a_cost_below_what_two_decimals_show(proctool: Callable[..., Any]) -> None:
    flags = ("--model", "1x1x16", "--gpu", "h100", "--gpus", "1", "--steps")
    assert ": < 0.01 on 1 x H100." in proctool("plan", *flags, "10", "--price-per-hour", "1").out
    assert ": 0.00 on 1 x H100." in proctool("plan", *flags, "10", "--price-per-hour", "0").out


def test_all_gpus_are_paid_also_the_idle_ones() -> None:
    run = RunOptions(model="2x2x16", context=16, batch_size=4, steps=5)
    for total in planned(run, gpus=(1, 8), price_per_hour=2.0).totals:
        assert total.cost == pytest.approx(2.0 * total.gpus * total.seconds / 3600)


def test_a_corpus_limits_the_budget(proctool: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("All work and no play.\n\n" * 5000)
    said = proctool("plan", *SMALL, "--corpus", tmp_path / "text.txt", "--steps", 4000, "--json")
    found = json.loads(said.out)
    tokens = found["corpus"]["tokens"]
    assert not found["corpus"]["is_counted"]
    assert tokens == pytest.approx(0.95 * 23 * 5000, rel=0.05)
    assert found["stages"][0]["epochs"] == pytest.approx(4000 * 8 * 16 / tokens)
    once = json.loads(proctool("plan", *SMALL, "--corpus", tmp_path / "text.txt", "--json").out)
    assert once["stages"][0]["epochs"] == pytest.approx(1, rel=0.01)
    few = json.loads(proctool("plan", *SMALL, "--corpus", tmp_path / "text.txt", "--budget", 1000, "--json").out)
    assert few["stages"][0]["tokens"] == 8 * 8 * 16


def test_a_models_folder_brings_its_own_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 300})
    )
    (stage,) = planned(RunOptions(model=str(tmp_path), context=16, batch_size=4, steps=5)).stages
    assert stage.parameters == planned_parameters(300)
    (stage,) = planned(RunOptions(model="2x2x16", context=16, batch_size=4, steps=5)).stages
    assert stage.parameters == planned_parameters(50257)


def planned_parameters(vocabulary: int) -> int:
    config = model_config("2x2x16", vocab_size=vocabulary, context=16)
    return sum(each.numel() for each in outline(config).parameters())


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


@pytest.mark.slow
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
        (("--corpus", "c4"), "c4 is on the hub and not in the cache; give --budget TOKENS or --steps N"),
        (("--corpus", "no-such"), 'no corpus, file or folder "no-such"'),
        (("--steps", "3", "--gpu", "cpu", "--gpus", "8"), "gpus: leave it out with --gpu cpu"),
        (("--steps", "3", "--price-per-hour", "-1"), "price_per_hour = -1"),
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


def test_a_dry_run_warns_of_a_run_that_does_not_fit(proctool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("warmup", "--task", "set:inputs=4,symbols=9", "--model", "2x2x16", "--dry-run")
    assert "warning" not in proctool(*command).err
    monkeypatch.setattr("proctool.training.room._machine", lambda: (1 << 20, 1 << 20))
    shown = proctool(*command)
    assert (shown.code, shown.err.count("warning")) == (0, 1)
    assert "would not fit: this machine has 1.0 MiB per process; use a smaller --model" in shown.err
