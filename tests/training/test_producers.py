"""Batches from processes: those of the thread, in order, and nothing is left when they are no longer needed."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from proctool.errors import Interrupted, RunError
from proctool.procedural.dataset import generate
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import _TASKS, Task, task
from proctool.procedural.streams import BLOCK
from proctool.training import loop, producers
from proctool.training.producers import StepBatches, producers_for, read_from_producers, work_for
from proctool.training.sources import CorpusSource, FileSource, Source, TaskSource, read_ahead
from proctool.training.step import micro_batches
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import Killed, contents, killed_at, options, without_clock

TASK = "set:inputs=5,symbols=9"


def from_file(folder: Path) -> Source:
    generate(parse_tasks(TASK), folder / "set.safetensors", samples=3000)
    return FileSource(folder / "set.safetensors")


def from_task(spec: str, _: Path) -> Source:
    return TaskSource(parse_tasks(spec), seed=3)


def by_thread(source: Source, first: int, last: int, size: int, micro: int) -> Any:
    cut = functools.partial(micro_batches, micro=micro, accelerator=Accelerator(cpu=True), fixed=True)
    return read_ahead(source, first, last, size, cut, 4)


def by_processes(source: Source, first: int, last: int, *, processes: int = 1, say: Any = None) -> Any:
    work = work_for(source, first, last, size=1000, micro=1000, processes=processes)
    assert work is not None
    return read_from_producers(work, pin=False, otherwise=lambda: iter(()), say=say)


def same(one: StepBatches, other: StepBatches) -> bool:
    pairs = [pair for parts in zip(one[0], other[0], strict=True) for pair in zip(*parts, strict=True)]
    return one[1] == other[1] and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("make", "first", "last", "size", "micro"),
    [
        (functools.partial(from_task, "haystack:pairs=3"), 0, 45, 1000, 250),
        (functools.partial(from_task, f"{TASK}*.5 + shuffle(union:inputs=4,symbols=9)*.5"), 13, 60, 512, 512),
        (from_file, 5, 40, 900, 300),
    ],
)
def test_batches_are_those_of_the_thread(
    make: Callable[[Path], Source], first: int, last: int, size: int, micro: int, tmp_path: Path
) -> None:
    source = make(tmp_path)
    work = work_for(source, first, last, size=size, micro=micro, processes=2)
    assert work is not None
    assert work.processes == 2
    assert work.slots < last - first, "slots are used again"
    made = read_from_producers(work, pin=False, otherwise=lambda: iter(()), say=pytest.fail)
    assert all(itertools.starmap(same, zip(made, by_thread(source, first, last, size, micro), strict=True)))


@pytest.mark.slow
def test_a_run_stopped_and_killed_under_a_curriculum_ends_as_with_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "has_fixed_shapes", lambda *_: True)
    growing: dict[str, Any] = {
        "curriculum": "start=3,accuracy=.01", "context": 16, "steps": 30, "eval_every": 10, "checkpoint_every": 7,
    }  # fmt: skip
    warmup_job(options(tmp_path, "thread", **growing, producers=0)).run()

    def told_to_end(event: Any) -> None:
        if event.kind == "train":
            os.kill(os.getpid(), signal.SIGTERM)

    for listen, ends in ((told_to_end, Interrupted), (killed_at("train", 4), Killed)):
        job = warmup_job(options(tmp_path, "processes", **growing, producers=2))
        job.listeners = [listen]
        with pytest.raises(ends) as caught:
            job.run()
        assert not multiprocessing.active_children()
        assert caught.tb, "it holds what the run had"
    warmup_job(options(tmp_path, "processes", **growing, producers=2)).run()
    assert contents(tmp_path / "processes.safetensors") == contents(tmp_path / "thread.safetensors")
    assert without_clock(event_lines(tmp_path / "processes")) == without_clock(event_lines(tmp_path / "thread"))


def mapped() -> list[str]:
    """Large files of multiprocessing in this process's memory; it keeps small ones for its next array."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    sizes = [(int.__rsub__(*(int(end, 16) for end in line.split()[0].split("-"))), line) for line in lines]
    return [line for size, line in sizes if "/pym-" in line and size > 4 << 20]


def test_processes_obey_no_signal() -> None:
    made = by_processes(TaskSource(parse_tasks(TASK), seed=0), 0, 60)
    next(made)
    for child in multiprocessing.active_children():  # a scheduler tells the whole group
        os.kill(child.pid or 0, signal.SIGTERM)
    assert sum(1 for _ in made) == 59


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_closing_early_leaves_no_process_and_no_memory() -> None:
    files = set(os.listdir("/dev/shm"))
    source = TaskSource(parse_tasks("haystack"), seed=0)
    made = by_processes(source, 0, 10**9, processes=2)
    next(made)
    pids = [child.pid for child in multiprocessing.active_children()]
    assert len(pids) == 2
    assert mapped()
    made.close()
    assert not mapped()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert set(os.listdir("/dev/shm")) <= files


def test_a_process_that_is_killed_is_one_line() -> None:
    made = by_processes(TaskSource(parse_tasks(TASK), seed=0), 0, 10**9)
    next(made)
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    with pytest.raises(RunError, match=r"^a process that makes batches was killed .* --producers 0 if .* again$"):
        for _ in made:
            pass
    assert not multiprocessing.active_children()


def test_what_a_task_says_in_a_process_is_said_here() -> None:
    source = TaskSource(parse_tasks("set:inputs=1,symbols=4"), seed=0, split="test")
    with pytest.raises(RunError, match=r"^set:inputs=1,symbols=4: has too few different sequences"):
        next(by_processes(source, 0, 50))


def test_a_task_of_this_process_alone_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctool.procedural.registry._TASKS", dict(_TASKS))

    @task("only-here")
    @dataclass(frozen=True)
    class OnlyHere(type(parse_tasks(TASK))):  # type: ignore[misc]
        """A task that no other process knows."""

    assert issubclass(OnlyHere, Task)
    source, said = TaskSource(OnlyHere(inputs=5, symbols=9), seed=0), list[str]()
    work = work_for(source, 2, 9, size=64, micro=64, processes=1)
    assert work is not None
    usual = functools.partial(by_thread, source, 2, 9, 64, 64)
    made = read_from_producers(work, pin=False, otherwise=usual, say=said.append)
    assert all(itertools.starmap(same, zip(made, usual(), strict=True)))
    assert [line.partition(': unknown task "only-here"')[0] for line in said] == [
        "batches are made in a thread, because worker processes cannot start"
    ]
    assert not multiprocessing.active_children()


def test_where_no_process_can_start_a_thread_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(producers, "_Producer", refused)
    said: list[str] = []
    assert not list(by_processes(TaskSource(parse_tasks(TASK), seed=0), 0, 9, say=said.append))
    assert "Resource temporarily unavailable" in said[0]


def test_a_file_that_changed_meanwhile_is_not_read_by_processes(tmp_path: Path) -> None:
    source = from_file(tmp_path)
    generate(parse_tasks(TASK), tmp_path / "set.safetensors", samples=2000)
    said: list[str] = []
    assert not list(by_processes(source, 0, 5, say=said.append))
    assert len(said) == 1


def test_a_corpus_is_read_in_a_thread() -> None:
    source = object.__new__(CorpusSource)
    assert work_for(source, 0, 9, size=8, micro=8, processes=2) is None


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 1), (6, 5), (64, 8)])
def test_on_cuda_the_other_cores_make_batches(cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "usable_cores", lambda: cores)
    assert producers_for(None, "cuda") == expected
    assert producers_for(None, "cpu") == 0
    assert producers_for(3, "cuda") == 3


@pytest.mark.parametrize("size", [1, 8, 64, 1000, 1024, 9000, 1 << 17])
@pytest.mark.parametrize("length", [1, 2, 62, 2048])
def test_slots_stay_within_memory_and_pipes(size: int, length: int) -> None:
    source = TaskSource(parse_tasks(TASK), seed=0)
    source.length = length
    work = work_for(source, 0, 10**9, size=size, micro=size, processes=8)
    assert work is not None
    assert work.slots == 2 * work.stretch <= 256
    assert work.slots == 2 or work.slots * work.numbers * 4 <= 64 << 20
    if BLOCK % size == 0 and work.stretch * size >= BLOCK:
        assert work.stretch * size % BLOCK == 0, "no block is drawn twice"


def test_a_process_that_makes_batches_needs_no_torch() -> None:
    look = "import sys, proctool.training.ring; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], timeout=60).returncode == 0


KILLED = """
import os, signal
from proctool.procedural.mixture import parse_tasks
from proctool.training.producers import read_from_producers, work_for
from proctool.training.sources import TaskSource

source = TaskSource(parse_tasks("set:inputs=5,symbols=9"), 0)
work = work_for(source, 0, 10**9, size=1000, micro=1000, processes=2)
made = read_from_producers(work, pin=False, otherwise=None, say=print)
next(made)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_processes_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    # They hold the standard output, so that this comes back once all have gone.
    ended = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, timeout=100)
    assert ended.returncode == -9
