"""Checkpoints written beside training: the state of their own step, complete or absent, and no error lost."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from proctool.errors import Interrupted
from proctool.events import Event, TrainEvent, read_events
from proctool.training import checkpoint
from proctool.training.background import Background, HostCopies
from proctool.training.run import RunFolder
from proctool.training.warmup import warmup_job
from tests.training.runs import Killed, contents, options


def listening(folder: Path, name: str, listen: Callable[[Event], None], **changes: Any) -> None:
    job = warmup_job(options(folder, name, log_every=1, **changes))
    job.listeners = [listen]
    job.run()


def test_a_checkpoint_written_late_holds_the_state_of_its_own_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write of step 5 begins when training is three steps on; a run that resumes from it ends as undisturbed."""
    save, go_on = RunFolder.save, threading.Event()

    def late(run: RunFolder, step: int, *rest: Any) -> Path:
        assert step != 5 or go_on.wait(60)
        return save(run, step, *rest)

    def listen(event: Event) -> None:
        if isinstance(event, TrainEvent) and event.step == 8:
            go_on.set()
            raise Killed

    warmup_job(options(tmp_path, "whole")).run()
    monkeypatch.setattr(RunFolder, "save", late)
    with pytest.raises(Killed):
        listening(tmp_path, "killed", listen)
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()] == ["step-00000005.safetensors"]
    warmup_job(options(tmp_path, "killed")).run()
    assert contents(tmp_path / "killed.safetensors") == contents(tmp_path / "whole.safetensors")


@pytest.fixture
def full_at_10(monkeypatch: pytest.MonkeyPatch) -> None:
    save = RunFolder.save

    def full(run: RunFolder, step: int, *rest: Any) -> Path:
        if step < 10:
            return save(run, step, *rest)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"step-{step:08d}")

    monkeypatch.setattr(RunFolder, "save", full)


def test_a_disk_that_fills_up_ends_the_run_and_keeps_the_checkpoint_before(full_at_10: None, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        warmup_job(options(tmp_path)).run()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005.safetensors"]
    assert not (tmp_path / "run.safetensors").exists()


def test_a_stop_whose_checkpoint_cannot_be_written_does_not_claim_one(full_at_10: None, tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, TrainEvent) and event.step == 11:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(OSError, match="No space") as error:
        listening(tmp_path, "run", listen, checkpoint_every=5000)
    assert not isinstance(error.value.__context__, Interrupted)


def test_what_ends_a_run_is_told_and_not_the_write_that_failed_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def full(run: RunFolder, step: int, *rest: Any) -> Path:
        assert go_on.wait(60)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def listen(event: Event) -> None:
        if isinstance(event, TrainEvent) and event.step == 8:
            go_on.set()
            raise Killed

    monkeypatch.setattr(RunFolder, "save", full)
    with pytest.raises(Killed):
        listening(tmp_path, "run", listen)


@pytest.mark.parametrize("copied", [True, False])
def test_large_states_on_a_cpu_are_written_without_copies(
    copied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    take = HostCopies.take
    monkeypatch.setattr(HostCopies, "take", lambda self, name, tensor: taken.append(name) or take(self, name, tensor))
    monkeypatch.setattr(checkpoint, "_COPIED_ON_CPU", 1 << 30 if copied else 0)
    listening(tmp_path, "run", lambda event: None)
    assert bool(taken) == copied
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]
    still = [event for event in read_events(tmp_path / "run") if getattr(event, "checkpoint_seconds", None) is not None]
    assert [event.step for event in still] == [6, 11]  # the events after the checkpoints of steps 5 and 10


def test_copies_are_copies_in_the_same_buffers() -> None:
    copies, tensor = HostCopies(), torch.ones(3)
    first = copies.take("a", tensor)
    tensor.add_(1)
    assert first.tolist() == [1, 1, 1]
    assert copies.take("a", tensor) is first
    assert copies.take("a", torch.ones(4)).shape == (4,)


def test_a_job_begins_after_the_one_before_and_errors_come_out_once() -> None:
    background, order = Background(), []
    go_on = threading.Event()
    background.start(lambda: (go_on.wait(60), order.append(1)))
    background.check()
    go_on.set()
    background.start(lambda: order.append(2) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.wait()
    background.wait()
    assert order == [1, 2]


def test_what_a_kill_left_of_a_write_goes_with_the_run(tmp_path: Path) -> None:
    """Also the lock of a checkpoint that the run goes on from, and so never writes again."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name in (".step-00000021.safetensors.lock", ".step-00000021.safetensors.a1b2c3d4.partial"):
        (tmp_path / "run" / "checkpoints" / name).touch()
    warmup_job(options(tmp_path)).run()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
