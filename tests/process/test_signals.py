"""A signal at any moment: exit code 130, one line, no half file, no child left, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import Interrupted
from proctool.events import Event
from proctool.results import RESULTS, read_results
from proctool.signals import CAUGHT, stop_signals
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.robustness.faults import TASK, TRAIN, done, ended, forked, start, temporary
from tests.robustness.forked import server
from tests.training.runs import contents, options

# Sends itself a signal once it has imported, called or raised what a test names; then sees what becomes of it.
_AT_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
from proctool.__main__ import main
sys.argv = ["proctool", *sys.argv[1:]]
main()
"""
_IN_C = """
import ctypes, os, signal, threading
from proctool import errors, signals
signals._STUCK_SECONDS = 0.1
signals.install()
with errors.reported():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    ctypes.CDLL(None).sleep(200)  # restarted by no handler of Python's, and Python's run after it alone
    ctypes.CDLL(None).sleep(200)
"""
_IN_A_FINALISER = """
import os, signal, time
from proctool import errors, signals
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
signals.install()
with errors.reported():
    late = Late()
    del late
    time.sleep(200)
"""
_TWICE = """
import os, signal, time
from proctool import errors, signals
signals.install()
with errors.reported():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(200)
    finally:
        os.kill(os.getpid(), {number})
        time.sleep(0)
        print("cleaned up", flush=True)
"""


def ran(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("number", CAUGHT)
def test_a_signal_before_anything_is_imported_is_one_line(number: int) -> None:
    said = ran(_AT_IMPORT.format(module="typer", number=int(number)), "--help")
    assert (said.returncode, said.stdout) == (130, "")
    assert said.stderr == (
        f"proctool: stopped by {signal.Signals(number).name}; run the same command again to resume\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch.nn", "accelerate.state", "proctool.training.loop"])
def test_a_signal_while_libraries_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    command = ("warmup", "--task", TASK, *TRAIN, "--steps", 2, "--run-dir", tmp_path / "r", "-o", tmp_path / "o")
    said = ran(_AT_IMPORT.format(module=module, number=int(signal.SIGUSR1)), *command)
    assert said.returncode == 130
    assert said.stderr == "proctool: stopped by SIGUSR1; run the same command again to resume\n"
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("code", [_IN_C, _IN_A_FINALISER], ids=["in a library", "in a finaliser"])
def test_a_signal_where_python_does_not_take_it_ends_the_process_all_the_same(code: str) -> None:
    said = ran(code)
    assert said.returncode == 130
    assert said.stderr == "proctool: stopped by SIGTERM; run the same command again to resume\n"


@pytest.mark.parametrize("number", CAUGHT)
def test_a_second_ctrl_c_ends_at_once_and_others_let_it_clean_up(number: int) -> None:
    said = ran(_TWICE.format(number=int(number)))
    assert said.returncode == 130
    assert said.stdout == ("" if number == signal.SIGINT else "cleaned up\n")
    assert "Traceback" not in said.stderr


def test_what_is_ignored_stays_ignored() -> None:
    code = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom proctool import signals\n"
    code += "signals.install()\nassert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    assert ran(code).returncode == 0


def test_a_forked_process_is_not_taken_for_the_command() -> None:
    code = "import os, signal\nfrom proctool import signals\nsignals._STUCK_SECONDS = 0.1\nsignals.install()\n"
    code += "child = os.fork()\nif not child:\n    signal.pause()\n"
    code += "os.kill(child, signal.SIGTERM)\nassert os.waitpid(child, 0)[1] == signal.SIGTERM\n"
    code += "signals._taken.wait(0.5)\n"
    assert ran(code).returncode == 0


def test_a_signal_while_the_result_is_written_comes_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last weights are in no checkpoint, so the artifact is written first."""
    from proctool.training import job as jobs

    save = jobs.save_model

    def late(*arguments: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return save(*arguments, **more)

    class Came(Exception):
        pass

    def raise_it(*_: Any) -> None:
        raise Came

    warmup_job(options(tmp_path, "whole")).run()
    monkeypatch.setattr(jobs, "save_model", late)
    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        with pytest.raises(Came):
            warmup_job(options(tmp_path)).run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert contents(tmp_path / "run.safetensors") == contents(tmp_path / "whole.safetensors")
    assert event_lines(tmp_path / "run")[-1]["event"] == "end"


@pytest.mark.parametrize("number", [number for number in CAUGHT if number != signal.SIGINT])
def test_signals_that_come_twice_leave_a_checkpoint(number: int, tmp_path: Path) -> None:
    def twice(event: Event) -> None:
        if event.kind == "train":
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)

    job = warmup_job(options(tmp_path, checkpoint_every=100))
    job.listeners = [twice]
    with pytest.raises(Interrupted, match="stopped at step 3 of 12"):
        job.run()
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_second_ctrl_c_ends_a_block_that_holds_signals() -> None:
    def sent_twice(patient: bool) -> None:
        with stop_signals(patient=patient) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.insists
            raise Interrupted

    with pytest.raises(KeyboardInterrupt):
        sent_twice(patient=False)
    with pytest.raises(Interrupted):
        sent_twice(patient=True)


COMMANDS = {
    "generate": ("generate", "dyck", "--samples", 20000, "-o", "made.safetensors"),
    "corpus": ("corpus", "build", "--corpus", "text", "--tokenizer", "bytes", "--context", 16, "--workers", 2),
    "tokenizer": ("tokenizer", "train", "--corpus", "text", "--vocab-size", 300, "-o", "made.json"),
    "warmup": ("warmup", "--task", TASK, *TRAIN, "--steps", 200, "--run-dir", "r", "-o", "made.safetensors"),
    "study": ("eval", "haystack", "--pairs", 4, *TRAIN, "--steps", 12, "--seeds", "0,1", "--jobs", 2, "--run-dir", "r"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_signals_at_any_moment(name: str, text: Path, tmp_path: Path) -> None:
    server()
    begin = forked if name in ("warmup", "study") else start  # the others import no torch
    began = time.monotonic()
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "text").symlink_to(text)
    assert ended(begin(whole, *COMMANDS[name]))[0] == 0
    life = time.monotonic() - began
    turns = ((0.5, signal.SIGTERM), (0.2, signal.SIGHUP), (0.8, signal.SIGUSR1))
    for share, number in turns[: 1 if name == "study" else 3]:  # a study starts three processes each time
        process = begin(tmp_path, *COMMANDS[name])
        try:
            process.communicate(timeout=share * life)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        code, said = ended(process)
        assert code in (0, 130), said
        assert "Traceback" not in said
        assert "Exception" not in said
        assert temporary(tmp_path) == []
        if code == 0:
            break
    if not (tmp_path / "made.json").exists():  # a tokenizer is not written over
        done(tmp_path, *COMMANDS[name])
    if name == "study":
        studies = [read_results(folder / "r" / RESULTS) for folder in (tmp_path, whole)]
        one, other = ([getattr(line, "content", line) for line in lines] for lines in studies)
        assert one == other, "the models, and the summary of all"
    for made in filter(Path.is_file, whole.rglob("*")):
        if made.relative_to(whole).parts[0].startswith("made."):
            assert (tmp_path / made.relative_to(whole)).read_bytes() == made.read_bytes()
