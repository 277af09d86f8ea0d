"""Faults of machines and systems. After each: what was there before is intact, nothing half-made has a final name,
no temporary file stays, and the same command goes on. `python -m benchmarks.kills` does the kills by the hundred."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proctool import artifact
from proctool.artifact import reading
from proctool.errors import ArtifactError, RunError, describe_os_error
from proctool.experiment.execute import alone_in
from proctool.locks import Taken, claimed, take
from proctool.results import RESULTS, DiagnosticRun, read_results
from proctool.training.run import RunFolder
from proctool.training.warmup import warmup_job
from tests.conftest import Said
from tests.event_lines import event_lines
from tests.robustness.faults import TASK, TRAIN, done, ended, forked, ranks, start, temporary, whole
from tests.robustness.forked import server
from tests.training.runs import contents, options, without_clock

Run = Callable[..., Said]
HOLD = "import signal, sys; from pathlib import Path; from proctool.locks import claimed\n"
HOLD += "with claimed(Path(sys.argv[1])): print('held', flush=True); signal.pause()\n"

COMMANDS = {
    "generate": ("generate", "set", "--samples", 3000, "-o", "made.safetensors"),
    "warmup": ("warmup", "--task", TASK, *TRAIN, "--steps", 12, "--run-dir", "run", "-o", "made.safetensors"),
    "transplant": (
        *("transplant", "--attention", "donor.safetensors", "--mlp", "donor.safetensors"),
        *("-o", "made.safetensors"),
    ),
    "pretrain": (
        *("pretrain", "--corpus", "text", "--init", "donor.safetensors", "--components", "attention,mlp", *TRAIN),
        *("--context", 16, "--steps", 12, "--run-dir", "run", "-o", "made.safetensors"),
    ),
    "eval": (
        *("eval", "haystack", "--pairs", 4, "--init", "donor.safetensors", *TRAIN, "--components", "attention,mlp"),
        *("--no-tie", "--steps", 12, "--run-dir", "run", "-o", "made.safetensors"),
    ),
}  # fmt: skip


@pytest.fixture
def prepared(proctool: Run, text: Path) -> dict[str, str]:
    """A donor and a corpus in the working folder; the donor's contents."""
    assert (
        proctool("warmup", "--task", TASK, *TRAIN, "--steps", 2, "--run-dir", "d", "-o", "donor.safetensors").code == 0
    )
    return whole(Path())


def refusal(said: Said) -> str:
    """The one line in which a command gave up, after whatever it had told before."""
    assert said.code == 1, said.err
    lines = said.err.splitlines()
    assert [line.startswith("proctool: ") for line in lines].count(True) == 1, said.err
    assert "Traceback" not in said.err
    return lines[-1]


# -- two at once --


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the name `path`."""
    process = start(path.parent, path, program=("-c", HOLD))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_writer_is_refused_with_owner_and_age(proctool: Run, tmp_path: Path) -> None:
    with holder(tmp_path / "made.safetensors") as other:
        lock = tmp_path / ".made.safetensors.lock"
        held = lock.stat().st_mtime - 75
        os.utime(lock, (held, held))
        for name in ("generate", "warmup"):
            said = proctool(*COMMANDS[name])
            assert f"made.safetensors: is being written by process {other.pid} on" in refusal(said)
            assert "for 1 min" in refusal(said)
        assert not Path("made.safetensors").exists()
        other.kill()
        other.wait()
        assert proctool(*COMMANDS["generate"]).code == 0
    assert temporary(tmp_path) == []


def test_a_second_run_of_an_experiment_is_told_of_the_first(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        held = (tmp_path / ".lock").stat().st_mtime - 7300
        os.utime(tmp_path / ".lock", (held, held))
        with (
            pytest.raises(RunError, match=rf"uses this folder: process {os.getpid()} on .*, for 2 h 01 min; wait"),
            alone_in(tmp_path),
        ):
            pass
    with alone_in(tmp_path):
        pass


def test_writers_of_a_small_file_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    """A record or a page: each writer has a temporary file of its own, and the last to end counts."""
    with artifact.replacing(tmp_path / "page.html") as first:
        first.write(b"first")
        with artifact.replacing(tmp_path / "page.html") as second:
            second.write(b"second")
        assert (tmp_path / "page.html").read_bytes() == b"second"
    assert (tmp_path / "page.html").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_new_temporary_file_that_was_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    flock, removed = fcntl.flock, []

    def late(file: Any, how: int) -> None:
        if not removed:
            removed.extend(tmp_path.glob(".a.*.partial"))
            removed[0].unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with artifact.replacing(tmp_path / "a") as file:
        file.write(b"whole")
    assert removed
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    names = (".a.abcd1234.partial", ".a.b.abcd1234.partial", ".a.short.partial", "a.abcd1234.partial")
    for name in names:
        (tmp_path / name).touch()
    with artifact.replacing(tmp_path / "a"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a", *names[1:]])


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder ends between our opening the file and our locking it: two would hold locks on two files."""
    import fcntl

    flock, removed = fcntl.flock, []

    def late(file: Any, how: int) -> None:
        if not removed:
            removed.append(True)
            (tmp_path / "l").unlink()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with take(tmp_path / "l") as held:
        assert held is not None
        assert os.fstat(held.fileno()).st_ino == (tmp_path / "l").stat().st_ino
        with pytest.raises(Taken, match=f"process {os.getpid()} on"):
            take(tmp_path / "l")


def test_without_locks_nothing_is_cleared_and_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError("no locks")

    monkeypatch.setattr("fcntl.flock", none)
    (tmp_path / ".a.abcd1234.partial").touch()
    with claimed(tmp_path / "a"):
        pass
    with artifact.replacing(tmp_path / "a"):
        pass
    RunFolder(tmp_path / "run", {}).close()
    assert {".a.abcd1234.partial", "a"} <= {path.name for path in tmp_path.iterdir()}


# -- no room, no leave --


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_costs_nothing(name: str, proctool: Run, prepared: dict[str, str]) -> None:
    with largest_file(20_000):
        full = proctool(*COMMANDS[name])
    assert "no room left to write" in refusal(full)
    assert whole(Path()).items() >= prepared.items()
    assert not Path("made.safetensors").exists()
    assert temporary(Path()) == []
    assert proctool(*COMMANDS[name]).code == 0
    assert "made.safetensors" in whole(Path())


def test_a_lock_on_a_full_disk_names_its_file(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(OSError, match=r"\.lock") as full:
        take(tmp_path / ".lock")
    assert describe_os_error(full.value).startswith(f"{tmp_path / '.lock'}: no room left to write")


@pytest.mark.parametrize(
    ("number", "allowed", "advice"),
    [
        (errno.EROFS, {os.R_OK, os.W_OK}, True),
        (errno.EACCES, {os.R_OK}, True),
        (errno.EACCES, {os.W_OK}, False),  # a file that cannot be read
        (errno.EACCES, set[int](), False),
        (errno.ENOENT, {os.R_OK}, False),
    ],
)
def test_another_folder_is_advised_where_writing_fails(
    number: int, allowed: set[int], advice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode & ~os.X_OK & ~sum(allowed) == 0)  # root may do everything
    said = describe_os_error(OSError(number, "refused", str(tmp_path / "made")))
    assert said == f"{tmp_path / 'made'}: refused" + "; choose another folder" * advice


def mounted(*arguments: str) -> None:
    """Mount something, or skip the test."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root and `mount`")
    made = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this system does not let us mount: {made.stderr.strip()}")


def test_a_full_file_system_is_one_line(proctool: Run, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small))
    try:
        assert proctool("generate", "set", "--samples", 10, "-o", "small/kept.safetensors").code == 0
        before = whole(small)
        full = proctool("generate", "set", "--samples", 3000, "-o", "small/made.safetensors")
        assert "small/made.safetensors: no room left to write" in refusal(full)
        assert whole(small) == before
        assert temporary(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_read_only_folder_is_one_line(proctool: Run, prepared: dict[str, str], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    mounted("--bind", str(locked), str(locked))  # permissions do not stop root
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(locked)], check=True)
        for name in ("generate", "transplant"):
            said = proctool(*COMMANDS[name][:-1], "locked/made.safetensors")
            assert "locked/made.safetensors: Read-only file system; choose another folder" in refusal(said)
        said = proctool("warmup", "--task", TASK, *TRAIN, "--steps", 2, "--run-dir", "locked/run")
        assert "locked/run: Read-only file system" in refusal(said)
    finally:
        subprocess.run(["umount", str(locked)], check=True)


# -- files that go while they are read --


@pytest.mark.parametrize("fault", ["gone", "emptied", "halved"])
@pytest.mark.parametrize("name", ["transplant", "pretrain", "eval"])
def test_a_donor_that_goes_while_it_is_read_is_one_line(
    name: str, fault: str, proctool: Run, prepared: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    donor, harmed = Path("donor.safetensors"), []
    read_header = reading.read_header

    def then_harm(path: Path, *rest: Any, **more: Any) -> Any:
        found = read_header(path, *rest, **more)
        if Path(path).name == donor.name and not harmed:
            harmed.append(True)
            data = donor.read_bytes()
            donor.unlink()
            if fault != "gone":
                donor.write_bytes(data[: len(data) // 2] if fault == "halved" else b"")
        return found

    for place in ("artifact.reading", "artifact", "models.saved", "transplantation.donors"):
        monkeypatch.setattr(f"proctool.{place}.read_header", then_harm, raising=False)
    said = proctool(*COMMANDS[name])
    assert harmed
    assert "donor.safetensors" in refusal(said)
    assert not Path("made.safetensors").exists()
    assert temporary(Path()) == []


@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_file_cut_short_after_its_header_was_read_is_refused(tmp_path: Path, kept: float) -> None:
    found = artifact.write(tmp_path / "a", {"x": np.ones(1000, np.float32)}, kind="data", metadata={})
    os.truncate(tmp_path / "a", int(kept * (tmp_path / "a").stat().st_size))
    for read in (artifact.verify, artifact.read_numpy, artifact.read_torch):
        with pytest.raises(ArtifactError, match=r"cut short|damaged"):
            read(found)


def test_text_that_goes_while_it_is_read_is_one_line(
    proctool: Run, prepared: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from proctool.corpora import formats

    read = formats.read

    def then_remove(path: str, *rest: Any) -> Any:
        Path("text", "59.txt").unlink(missing_ok=True)
        return read(path, *rest)

    monkeypatch.setattr(formats, "read", then_remove)
    said = proctool(*COMMANDS["pretrain"])
    assert "text/59.txt" in refusal(said)
    assert whole(Path()).items() >= prepared.items()


# -- clocks --


def test_a_clock_that_jumps_changes_no_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmup_job(options(tmp_path, "plain")).run()
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(-1e9, 4e9))
    monkeypatch.setattr(time, "time_ns", lambda: int(jumps.uniform(-1e18, 4e18)))
    end = warmup_job(options(tmp_path, "jumping")).run()
    plain, jumping = (event_lines(tmp_path / name) for name in ("plain", "jumping"))
    assert without_clock(jumping) == without_clock(plain)
    seconds = [event["seconds"] for event in jumping if "seconds" in event]
    assert seconds == sorted(seconds)
    assert 0 <= seconds[0] <= seconds[-1] <= end.seconds < 1e6
    assert all(event["tokens_per_second"] > 0 for event in jumping if event["event"] == "train")
    assert contents(tmp_path / "plain.safetensors") == contents(tmp_path / "jumping.safetensors")


def test_a_lock_from_the_future_has_no_negative_age(tmp_path: Path) -> None:
    held = RunFolder(tmp_path, {})
    later = time.time() + 1e6
    os.utime(tmp_path / ".lock", (later, later))
    with pytest.raises(RunError, match=rf"in use by process {os.getpid()} on .*, for 0 s; wait"):
        RunFolder(tmp_path, {})
    held.close()


# -- kills --


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_kills_lose_nothing(name: str, proctool: Run, prepared: dict[str, str], tmp_path: Path) -> None:
    # Long enough for most kills to come while it trains.
    command = [60 if word == 12 else word for word in COMMANDS[name]]
    copy = tmp_path / "whole"
    shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("whole"))
    server()
    began = time.monotonic()
    done(copy, *command)
    life = time.monotonic() - began
    instants = random.Random(name)
    for _ in range(3):
        process = forked(tmp_path, *command)
        try:
            process.communicate(timeout=instants.uniform(0.1, 0.9) * life)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        assert whole(tmp_path).items() >= prepared.items()
    done(tmp_path, *command)
    assert whole(tmp_path)["made.safetensors"] == whole(copy)["made.safetensors"]
    assert temporary(tmp_path) == []


@pytest.mark.slow
def test_a_worker_killed_while_tokenising_is_one_line(text: Path, tmp_path: Path) -> None:
    """As the system's out-of-memory killer does it."""
    kill = "import multiprocessing, os, signal, sys, threading, time\n"
    kill += "def watch():\n    while len(multiprocessing.active_children()) < 2: time.sleep(0.01)\n"
    kill += "    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)\n"
    kill += "if __name__ == '__main__':\n    threading.Thread(target=watch, daemon=True).start()\n"
    kill += "    from proctool.cli.main import main\n    sys.argv = ['proctool', *sys.argv[1:]]\n    main()\n"
    command = ("corpus", "build", "--corpus", "text", "--tokenizer", "bytes", "--context", 16, "--workers", 2)
    for number in range(400):
        (text / f"more{number}.txt").write_text("a line of text\n" * 4000)
    code, said = ended(start(tmp_path, *command, program=("-c", kill)))
    assert code == 1
    assert "Traceback" not in said
    assert "a tokenising process was killed (out of memory?)" in said.splitlines()[-1]
    whole(tmp_path)
    done(tmp_path, *command)
    assert temporary(tmp_path) == []


@pytest.mark.slow
def test_a_worker_killed_while_training_is_one_line(tmp_path: Path) -> None:
    kill = "import sys\nfrom proctool.experiment import execute\nstart = execute._start\n"
    kill += "def start_and_kill(stage, *more):\n    running = start(stage, *more)\n"
    kill += "    if stage.label.seed == 0: running.process.kill()\n    return running\n"
    kill += "execute._start = start_and_kill\n"
    kill += "from proctool.cli.main import main\nsys.argv = ['proctool', *sys.argv[1:]]\nmain()\n"
    command = ("eval", "haystack", "--pairs", 4, *TRAIN, "--steps", 12, "--seeds", "0,1", "--jobs", 2, "--run-dir", "r")
    code, said = ended(start(tmp_path, *command, program=("-c", kill)))
    assert code == 1
    assert "Traceback" not in said
    assert "failed  haystack-none-s0: killed by SIGKILL (out of memory?)" in said
    assert (
        "1 of 2 runs failed (haystack-none-s0); run the command again when the cause is mended" in said.splitlines()[-1]
    )
    seeds = [line.seed for line in read_results(tmp_path / "r" / RESULTS) if isinstance(line, DiagnosticRun)]
    assert seeds == [1], "the other run is kept"
    done(tmp_path, *command)
    seeds = [line.seed for line in read_results(tmp_path / "r" / RESULTS) if isinstance(line, DiagnosticRun)]
    assert seeds == [0, 1]


# -- several processes --


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_when_one_process_of_a_run_dies_the_other_stops(dies: int, tmp_path: Path) -> None:
    def command(name: str) -> tuple[object, ...]:
        more = ("--steps", 60, "--run-dir", name, "-o", f"{name}.safetensors")
        return ("warmup", "--task", TASK, *TRAIN, *more)

    for process in ranks(tmp_path, *command("whole")):
        assert ended(process)[0] == 0
    two = ranks(tmp_path, *command("run"))
    while two[dies].poll() is None and len(event_lines(tmp_path / "run")) < 16:
        os.sched_yield()
    two[dies].kill()
    two[dies].communicate()
    code, said = ended(two[1 - dies])
    assert code == 1
    assert f"process {1 - dies}: another process of this run died" in said.splitlines()[-1]
    assert not (tmp_path / "run.safetensors").exists()
    for process in ranks(tmp_path, *command("run")):
        assert ended(process)[0] == 0
    assert contents(tmp_path / "run.safetensors") == contents(tmp_path / "whole.safetensors")
    assert without_clock(event_lines(tmp_path / "run")) == without_clock(event_lines(tmp_path / "whole"))


@pytest.mark.slow
def test_a_launcher_whose_process_dies_ends_and_goes_on(tmp_path: Path) -> None:
    def more(name: str) -> tuple[object, ...]:
        return ("--steps", 60, "--run-dir", name, "-o", f"{name}.safetensors")

    def launch(name: str) -> subprocess.Popen[str]:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
        command = ("-m", "proctool", "warmup", "--task", TASK, *TRAIN, *more(name))
        return start(tmp_path, *command, program=launcher, ACCELERATE_USE_CPU="true")

    for process in ranks(tmp_path, "warmup", "--task", TASK, *TRAIN, *more("whole")):
        assert ended(process)[0] == 0
    launched = launch("run")
    while launched.poll() is None and len(event_lines(tmp_path / "run")) < 16:
        os.sched_yield()
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launched.pid)], capture_output=True, text=True)
    os.kill(max(map(int, listed.stdout.split())), signal.SIGKILL)
    assert ended(launched)[0] != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in listed.stdout.split())
    assert not (tmp_path / "run.safetensors").exists()
    assert ended(launch("run"))[0] == 0
    assert contents(tmp_path / "run.safetensors") == contents(tmp_path / "whole.safetensors")


@pytest.mark.slow
def test_proctool_can_be_imported_where_the_system_has_no_fcntl() -> None:
    """As on Windows. Only the standard library's modules for Unix are missing."""
    code = """
import sys
sys.modules.update(fcntl=None, resource=None)
import pkgutil, importlib, proctool
for found in pkgutil.walk_packages(proctool.__path__, "proctool."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
