from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from tiny_experiment import COMMAND, Silent, planned

from proctool.errors import Interrupted, RunError
from proctool.events import TrainEvent
from proctool.experiment import execute as execute_module
from proctool.experiment.estimate import seconds_left, urgency
from proctool.experiment.execute import Failure, Progress, Running, _kill, execute
from proctool.experiment.graph import Plan
from proctool.experiment.in_process import execute_here
from proctool.experiment.progress import LiveDisplay, PlainDisplay
from proctool.experiment.record import write_record
from proctool.reporting.metrics import MetricsLog

WARM = {"warmup": {"task": "set:inputs=8"}}
OTHER = {"warmup": {"task": "identity:inputs=8"}}


def work(plan: Plan, display: object = None, jobs: int = 2) -> list[Failure]:
    plan.root.mkdir(parents=True, exist_ok=True)
    return execute(
        plan,
        jobs=jobs,
        command=COMMAND,
        display=display or Silent(),
        pause=lambda: time.sleep(0.005),  # type: ignore[arg-type]
    )


def calls(root: Path) -> list[str]:
    path = root / "calls"
    return [line.rpartition("-")[0] for line in path.read_text().splitlines()] if path.exists() else []


def test_everything_runs_once_and_then_not_again(root: Path) -> None:
    plan = planned(root, arms={"cold": {}, "set": WARM, "mlp": WARM | {"components": ["mlp"]}})
    assert work(plan) == []
    assert sorted(calls(root)) == ["pretrain-cold-s0", "pretrain-mlp-s0", "pretrain-set-s0", "warmup-set-s0"]
    assert plan.missing() == []
    work(plan)
    assert len(calls(root)) == 4
    changed = planned(root, arms={"cold": {}, "set": WARM, "mlp": WARM | {"components": ["attention"]}})
    work(changed)
    assert calls(root)[4:] == ["pretrain-mlp-s0"]


def test_in_this_process_only_earlier_stages_are_called_done_already(root: Path) -> None:
    def call(words: list[str]) -> None:
        subprocess.run([*COMMAND, *words], check=True)

    plan = planned(root)
    plan.root.mkdir(parents=True, exist_ok=True)
    first, second = io.StringIO(), io.StringIO()
    assert execute_here(plan, call, PlainDisplay(first)) == []
    assert "already done" not in first.getvalue()
    assert first.getvalue().count("done    ") == len(plan.stages)
    execute_here(plan, call, PlainDisplay(second))
    assert f"{len(plan.stages)} of {len(plan.stages)} stages are already done" in second.getvalue()
    write_record(plan, "", "")
    other = planned(root.with_name("other"))
    execute_here(other, call, PlainDisplay(io.StringIO()))
    assert calls(other.root) == [], "what another experiment has done is reused here too"


def test_a_lost_artifact_is_made_again(root: Path) -> None:
    plan = planned(root)
    work(plan)
    artifact = plan.arms["cold"][0].pretrain.artifact(root)  # type: ignore[union-attr]
    assert artifact is not None
    artifact.unlink()
    work(plan)
    assert calls(root)[3:] == ["pretrain-cold-s0"]


def test_a_failure_stops_only_what_depends_on_it(root: Path) -> None:
    plan = planned(root, arms={"cold": {}, "set": WARM, "identity": OTHER})
    root.mkdir(parents=True)
    (root / "fail-warmup-set").touch()
    display = Silent()
    failures = work(plan, display)
    assert [failure.stage.name for failure in failures] == ["warmup-set-s0"]
    assert failures[0].error == "the loss is nan at step 7; lower --lr"
    assert "not this line" in failures[0].log.read_text()
    assert display.last is not None
    assert [stage.name for stage in display.last.skipped] == ["pretrain-set-s0"]
    assert sorted(stage.name for stage in display.last.done) == [
        "pretrain-cold-s0", "pretrain-identity-s0", "warmup-identity-s0",
    ]  # fmt: skip
    (root / "fail-warmup-set").unlink()
    assert work(plan) == []
    assert plan.missing() == []


def test_stages_share_a_gpu_where_that_is_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time by default; `--jobs` is obeyed, and every stage sees the devices that we see."""
    monkeypatch.setattr(execute_module, "accelerated", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert execute_module.default_jobs() == 1
    seen: list[str | None] = []
    popen = subprocess.Popen

    def noted(*args: object, env: dict[str, str], **more: object) -> object:
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))
        return popen(*args, env=env, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(execute_module.subprocess, "Popen", noted)
    display = Silent()
    work(planned(root, seeds=[0, 1]), display, jobs=2)
    assert max(running for running, _ in display.shown) == 2
    assert set(seen) == {"0"}


def test_jobs_bound_how_many_run(root: Path) -> None:
    for jobs in (1, 2):
        display = Silent()
        work(planned(root / str(jobs), seeds=[0, 1]), display, jobs)
        assert max(running for running, _ in display.shown) == jobs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_then_continued(root: Path, number: signal.Signals) -> None:
    plan = planned(root)
    handler = signal.getsignal(number)
    root.mkdir(parents=True)
    (root / "hang-pretrain-cold").touch()

    class Interrupter(Silent):
        def update(self, progress: Progress) -> None:
            super().update(progress)
            if any("hanging" in call for call in calls(root)) and not progress.stopping:
                os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="resume with the same command"):
        work(plan, Interrupter())
    # The child had the signal passed on and ended in its own way.
    assert "stopped pretrain-cold-s0" in calls(root)
    unfinished = plan.missing()
    assert "pretrain-cold-s0" in {stage.name for stage in unfinished}
    assert signal.getsignal(number) == handler
    (root / "hang-pretrain-cold").unlink()
    before = calls(root)
    assert work(plan) == []
    assert plan.missing() == []
    again = calls(root)[len(before) :]
    assert "pretrain-cold-s0" in again
    # What was done before the interruption is not done again.
    assert len(again) == len(set(again)) == len(unfinished)


def test_a_second_run_in_the_same_folder_is_refused(root: Path) -> None:
    plan = planned(root)

    class Second(Silent):
        def update(self, progress: Progress) -> None:
            with pytest.raises(RunError, match="uses this folder"):
                work(plan)

    work(plan, Second())


def test_threads_are_shared_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    seen: list[str] = []
    real = subprocess.Popen

    def popen(*arguments: object, **options: dict[str, str]) -> object:
        seen.append(options["env"]["OMP_NUM_THREADS"])
        return real(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)
    work(planned(root), jobs=2)
    assert set(seen) == {"3"}


def test_time_left_follows_the_schedule(root: Path) -> None:
    plan = planned(root)
    names = {stage.name: stage.key for stage in plan.stages}
    left = {names["warmup-set-s0"]: 10.0, names["pretrain-set-s0"]: 30.0, names["pretrain-cold-s0"]: 25.0}
    assert seconds_left(plan.stages, left, set(), jobs=1) == 65
    assert seconds_left(plan.stages, left, set(), jobs=2) == 40
    assert seconds_left(plan.stages, {names["pretrain-set-s0"]: 30.0}, set(), jobs=2) == 30
    assert seconds_left(plan.stages, left | {names["warmup-set-s0"]: None}, set(), jobs=2) is None
    order = urgency(plan.stages)
    assert max(order, key=lambda key: order[key]) == names["warmup-set-s0"]


def test_plain_lines(root: Path) -> None:
    plan = planned(root)
    root.mkdir(parents=True)
    (root / "fail-warmup").touch()
    stream = io.StringIO()
    clock = iter(range(0, 10**6, 16))
    work(plan, PlainDisplay(stream, every=15, clock=lambda: next(clock)))
    text = stream.getvalue()
    assert "started pretrain-cold-s0" in text
    assert "done    pretrain-cold-s0 in 0 s, loss 2." in text
    assert "failed  warmup-set-s0: the loss is nan at step 7; lower --lr (log: " in text
    assert "skipped pretrain-set-s0" in text
    assert "stages done" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [40, 60, 90, 120])
def test_the_live_view_cuts_no_cell(root: Path, width: int) -> None:
    stage = planned(root).stages[0]
    metrics = MetricsLog(root)
    metrics.train.append(
        TrainEvent(step=12, tokens=960, loss=2.345678, lr=1e-3, grad_norm=1.0, tokens_per_second=12345, seconds=1.0)
    )
    running = Running(stage, None, metrics, root / "log.txt", 0, 0.0, 0.0)  # type: ignore[arg-type]
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    progress = Progress(planned(root), {stage.key: metrics}, running=[running], stage_left={stage.key: 75.0})
    with console.capture() as shown:
        console.print(LiveDisplay(console)._view(progress))
    line = shown.get().splitlines()[0]
    assert "…" not in line
    assert line.startswith(stage.name)
    cells = {"loss 2.346": 60, "1 min 15 s left": 60, "12.3k tokens/s": 90}
    assert {cell for cell in cells if cell in line} >= {cell for cell, least in cells.items() if width >= least}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this machine")
def test_a_killed_launcher_leaves_no_trainer(root: Path) -> None:
    """As torchrun does, the launcher starts its trainer in a session of its own."""
    trainer = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-Sc', {trainer!r}], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-Sc", launcher], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    number = int(process.stdout.readline())
    assert os.getsid(number) != os.getsid(process.pid)
    stage = planned(root).stages[0]
    _kill(Running(stage, process, MetricsLog(root), root / "log.txt", 0, 0.0, 0.0))
    # The pipe ends when the last of those that hold it has.
    assert select.select([process.stdout], [], [], 20)[0]
    assert process.stdout.read() == b""
    process.stdout.close()
