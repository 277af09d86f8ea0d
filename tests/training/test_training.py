"""The loop: exact resume, a loss that no batching changes, and folders that no two runs share."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proctool import artifact
from proctool.errors import Interrupted, OptionError, RunError
from proctool.events import Event
from proctool.procedural.registry import build_task
from proctool.procedural.samples import Samples
from proctool.training.options import WarmupOptions
from proctool.training.run import RunFolder
from proctool.training.run_form import read_form
from proctool.training.schedule import learning_rate
from proctool.training.sources import FileSource, TaskSource, read_ahead
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.robustness.faults import done, ended, forked, ranks
from tests.training.runs import TASK, Killed, contents, killed_at, options, same_after_kills


@pytest.mark.parametrize(
    "kills", [[("train", 1)], [("train", 2)], [("eval", 3)], [("train", 3), ("eval", 1), ("train", 1)]]
)
def test_resumed_runs_end_as_uninterrupted_ones(tmp_path: Path, kills: list[tuple[str, int]]) -> None:
    same_after_kills(tmp_path, kills)


def test_a_stop_signal_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    warmup_job(options(tmp_path, "whole")).run()

    def stop(event: Event) -> None:
        if event.kind == "train":
            os.kill(os.getpid(), signal.SIGTERM)

    job = warmup_job(options(tmp_path, checkpoint_every=100))
    job.listeners = [stop]
    with pytest.raises(Interrupted, match="stopped at step 3 of 12"):
        job.run()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003.safetensors"]
    warmup_job(options(tmp_path, checkpoint_every=100)).run()
    assert contents(tmp_path / "run.safetensors") == contents(tmp_path / "whole.safetensors")


@pytest.mark.slow
def test_a_run_killed_by_the_system_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    command = ["warmup", "--task", TASK, "--model", "2x2x16", "--batch-size", "8", "--steps", "60"]
    command += ["--checkpoint-every", "7"]
    done(tmp_path, *command, "--run-dir", "whole", "-o", "whole.safetensors")
    command += ["--run-dir", "killed", "-o", "killed.safetensors", "--log-every", "1"]
    for _ in range(3):
        killed = forked(tmp_path, *command)
        before = len(event_lines(tmp_path / "killed"))
        while killed.poll() is None and len(event_lines(tmp_path / "killed")) < before + 18:
            os.sched_yield()
        killed.kill()
        killed.wait()
    done(tmp_path, *command)
    assert contents(tmp_path / "killed.safetensors") == contents(tmp_path / "whole.safetensors")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    warmup_job(options(tmp_path, "whole")).run()
    job = warmup_job(options(tmp_path))
    job.listeners = [killed_at("train", 4)]
    with pytest.raises(Killed):
        job.run()
    latest = max((tmp_path / "run" / "checkpoints").iterdir())
    latest.write_bytes(latest.read_bytes()[:-1])
    notes: list[Event] = []
    job = warmup_job(options(tmp_path))
    job.listeners = [notes.append]
    job.run()
    assert any("damaged checkpoint" in getattr(event, "note", "") for event in notes)
    assert contents(tmp_path / "run.safetensors") == contents(tmp_path / "whole.safetensors")


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_do_not_change_the_loss(tmp_path: Path, accumulate: int) -> None:
    for name, parts in (("one", 1), ("many", accumulate)):
        warmup_job(options(tmp_path, name, accumulate=parts, dropout=0.0, init_std=0.02)).run()
    one, many = (
        [event["loss"] for event in event_lines(tmp_path / name) if event["event"] == "train"]
        for name in ("one", "many")
    )
    np.testing.assert_allclose(one, many, rtol=1e-5)
    tensors = [artifact.read_torch(artifact.read_header(tmp_path / f"{name}.safetensors")) for name in ("one", "many")]
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    common = ["warmup", "--task", TASK, "--model", "2x2x16", "--batch-size", "8", "--steps", "12", "--log-every", "3"]
    common += ["--init-std", "0.02"]  # rounding differs, and larger weights would let it grow
    common += ["--eval-every", "6", "--eval-samples", "21", "--checkpoint-every", "5"]
    done(tmp_path, *common, "--run-dir", "one", "-o", "one.safetensors")
    for process in ranks(tmp_path, *common, "--run-dir", "two", "-o", "two.safetensors"):
        assert ended(process)[0] == 0
    assert '"WORLD_SIZE": "2"' in (tmp_path / "two" / "run.log").read_text()
    one, two = (event_lines(tmp_path / name) for name in ("one", "two"))
    assert [event["event"] for event in one] == [event["event"] for event in two]
    for mine, theirs in zip(one, two, strict=True):
        for key in mine.keys() & {"loss", "accuracy", "exact_match", "grad_norm"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4)
    weights = [artifact.read_torch(artifact.read_header(tmp_path / f"{name}.safetensors")) for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-4)


def test_training_learns(tmp_path: Path) -> None:
    end = warmup_job(
        options(
            tmp_path,
            task=("identity:inputs=3,symbols=9",),
            steps=300,
            lr=3e-3,
            batch_size=32,
            dropout=0.0,
            eval_every=300,
        )
    ).run()
    first = next(event for event in event_lines(tmp_path / "run") if event["event"] == "eval")
    assert end.loss < first["loss"] / 3
    assert end.accuracy > 0.9


@pytest.mark.parametrize(
    ("changes", "step", "reason"),
    [
        ({"until": "accuracy=0"}, 4, "accuracy"),
        ({"until": "loss=100"}, 4, "loss"),
        ({"patience": 2, "lr": 1e-12}, 12, None),
        ({"patience": 2, "lr": 0.9, "clip": 0, "steps": 40, "weight_decay": 0, "init_std": 0.02}, 8, "no better"),
    ],
)
def test_early_stops(tmp_path: Path, changes: dict[str, Any], step: int, reason: str | None) -> None:
    end = warmup_job(options(tmp_path, **changes)).run()
    notes = [event["note"] for event in event_lines(tmp_path / "run") if event["event"] == "note"]
    if reason is None:
        assert (end.step, notes) == (step, [])
    else:
        assert reason in notes[0]
        assert step <= end.step < changes.get("steps", 12)
        assert artifact.read_header(tmp_path / "run.safetensors").metadata["steps"] == end.step


def test_patience_is_resumed_too(tmp_path: Path) -> None:
    end = same_after_kills(
        tmp_path,
        [("train", 3)],
        patience=3,
        lr=0.9,
        init_std=0.02,
        clip=0,
        steps=60,
        weight_decay=0,
        checkpoint_every=3,
    )
    assert end.step < 60


def test_a_run_that_is_complete_is_not_run_again(tmp_path: Path) -> None:
    first = warmup_job(options(tmp_path)).run()
    notes: list[Event] = []
    job = warmup_job(options(tmp_path))
    job.listeners = [notes.append]
    assert job.run() == first
    assert [event.kind for event in notes] == ["note"]
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("run", "run.safetensors"):
        (tmp_path / name).rename(moved / name)
    again = warmup_job(options(moved)).run()
    assert (again.run_dir, again.artifact) == (str(moved / "run"), str(moved / "run.safetensors"))
    assert again.content == first.content
    for name in ("run", "run.safetensors"):
        (moved / name).rename(tmp_path / name)
    (tmp_path / "run.safetensors").unlink()
    assert warmup_job(options(tmp_path)).run().content == first.content


def test_a_folder_of_another_run_is_refused_until_discarded(tmp_path: Path) -> None:
    warmup_job(options(tmp_path)).run()
    with pytest.raises(RunError, match=r"lr = 0\.001, not 0\.002"):
        warmup_job(options(tmp_path, lr=2e-3)).run()
    warmup_job(options(tmp_path, lr=2e-3, resume="never")).run()
    assert event_lines(tmp_path / "run")[-1]["event"] == "end"


def test_a_run_refused_before_its_first_step_leaves_the_folder_free(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", {"lr": 1}).close()
    RunFolder(tmp_path / "run", {"lr": 2}).close()
    assert read_form(tmp_path / "run") == {"proctool_run": 1, "lr": 2}


@pytest.mark.parametrize("text", ['"lr": 0.002, "lr": 0.001', '"lr": NaN', '"a": ' + 9999 * "[" + 9999 * "]"])
def test_settings_of_two_meanings_or_none_are_damaged(tmp_path: Path, text: str) -> None:
    warmup_job(options(tmp_path)).run()
    (tmp_path / "run" / "config.json").write_text(f'{{"proctool_run": 1, {text}}}')
    with pytest.raises(RunError, match="damaged or missing, so this run cannot be resumed"):
        warmup_job(options(tmp_path)).run()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    held = RunFolder(tmp_path / "run", {})
    with pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
        RunFolder(tmp_path / "run", {})
    held.close()
    RunFolder(tmp_path / "run", {}).close()


def test_a_generated_file_trains_as_its_stream_does(tmp_path: Path) -> None:
    from proctool.procedural.dataset import generate

    generate(build_task("set", {"inputs": 5, "symbols": 9}), tmp_path / "set.safetensors", samples=96)
    streamed = warmup_job(options(tmp_path, "streamed")).run()
    filed = warmup_job(options(tmp_path, "filed", task=(), data=tmp_path / "set.safetensors")).run()
    assert filed.content == streamed.content
    assert artifact.read_header(tmp_path / "filed.safetensors").parents[0]["name"] == "set.safetensors"


def test_a_file_of_held_out_samples_is_not_trained_on(tmp_path: Path) -> None:
    from proctool.procedural.dataset import generate

    task, path = build_task("set", {"inputs": 5, "symbols": 9}), tmp_path / "held.safetensors"
    generate(task, path, samples=96, split="validation")
    with pytest.raises(OptionError, match=r"held\.safetensors: .* --split train"):
        warmup_job(options(tmp_path, task=(), data=path))


@pytest.mark.parametrize("depth", [1, 2, 9])
def test_reading_ahead_gives_the_same_samples(depth: int) -> None:
    source = TaskSource(build_task("set", {"inputs": 5, "symbols": 9}), seed=1)
    ahead = read_ahead(source, 3, 8, 7, lambda samples: samples.tokens, depth)
    for number, tokens in zip(range(3, 8), ahead, strict=True):
        assert np.array_equal(tokens, source.read(number * 7, number * 7 + 7).tokens)


def test_reading_ahead_is_as_deep_as_asked() -> None:
    source = TaskSource(build_task("set", {"inputs": 5, "symbols": 9}), seed=1)
    made: list[int] = []
    reached = threading.Event()

    def make(samples: Samples) -> int:
        made.append(len(samples))
        if len(made) == 5:
            reached.set()
        return len(made)

    ahead = read_ahead(source, 0, 1000, 7, make, 4)
    assert next(ahead) == 1
    assert reached.wait(60), "four more than were asked for"
    ahead.close()
    assert len(made) == 5


def test_a_file_is_read_over_and_over(tmp_path: Path) -> None:
    from proctool.procedural.dataset import generate

    generate(build_task("set", {"inputs": 5, "symbols": 9}), tmp_path / "set.safetensors", samples=10)
    source = FileSource(tmp_path / "set.safetensors")
    assert np.array_equal(source.read(8, 14).tokens, source.file.samples.tokens[[8, 9, 0, 1, 2, 3]])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "wsd"])
def test_schedules_rise_peak_and_end(schedule: str) -> None:
    rates = [
        learning_rate(step, steps=1000, peak=2.0, schedule=schedule, ramp_steps=100, final=0.1) for step in range(1001)
    ]
    assert rates[0] == pytest.approx(0.02)
    assert rates[99] == rates[100] == pytest.approx(2.0)
    assert rates[1000] == pytest.approx(2.0 if schedule == "constant" else 0.2)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[100:]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["lr", "clip", "weight_decay", "final_lr", "spike", "dropout", "beta2"])
def test_options_that_are_no_finite_number_are_refused(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{name} = {value:g}"):
        options(tmp_path, **{name: value})


@pytest.mark.parametrize("log", ["a folder", "a full disk"])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, log: str) -> None:
    RunFolder(tmp_path / "run", {}).close()
    if log == "a folder":
        (tmp_path / "run" / "run.log").mkdir()
    else:
        (tmp_path / "run" / "run.log").symlink_to("/dev/full")
    said: list[dict[str, Any]] = []
    job = warmup_job(options(tmp_path, steps=2, ramp_steps=0))
    job.listeners = [said.append]
    assert job.run().step == 2
    assert any("no run.log" in getattr(event, "note", "") for event in said) == (log == "a folder")


def test_every_setting_that_matters_is_recorded(tmp_path: Path) -> None:
    warmup_job(options(tmp_path)).run()
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    incidental = {"run_dir", "resume", "checkpoint_every", "keep_checkpoints", "output", "log_every", "spike", "track"}
    incidental |= {"extend", "keep_state", "cuda_graph", "producers", "track_heads", "on_divergence", "force"}
    fields = {field.name for field in dataclasses.fields(WarmupOptions)}
    assert fields - incidental <= recorded.keys()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_end_a_session_leave_a_checkpoint(tmp_path: Path, number: int) -> None:
    job = warmup_job(options(tmp_path, checkpoint_every=100))
    job.listeners = [lambda event: os.kill(os.getpid(), number) if event.kind == "train" else None]
    with pytest.raises(Interrupted):
        job.run()
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_terminal_that_is_gone_does_not_stop_a_run(tmp_path: Path) -> None:
    def broken(event: Event) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    job = warmup_job(options(tmp_path))
    job.listeners = [broken]
    assert job.run().step == 12


def test_a_damaged_checkpoint_does_not_take_the_place_of_newer_ones(tmp_path: Path) -> None:
    with contextlib.closing(RunFolder(tmp_path / "run", {})) as run:
        run.begin(0)
        run.save(100, {"w": torch.ones(2)}, {}, keep=1)
    later = tmp_path / "run" / "checkpoints" / "step-00000200.safetensors"
    later.write_bytes(b"damaged")
    with contextlib.closing(RunFolder(tmp_path / "run", {})) as run:
        found = run.latest()
        assert found is not None
        run.begin(found.metadata["step"])
        run.save(150, {"w": torch.ones(2)}, {}, keep=1)
        newest = run.latest()
    assert newest is not None
    assert newest.metadata["step"] == 150
