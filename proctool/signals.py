"""Being asked to stop: by a person (Ctrl-C), a terminal that has gone (HUP), a scheduler (TERM, USR1, USR2).

Where nothing needs to be saved, the first signal raises `Stopped` where the command is: it unwinds, so that unfinished
files and child processes go, and exits with 130. Work that saves itself first (training, `run`, studies) holds signals
back with `stop_signals` and looks at the flag. A second Ctrl-C ends it at once; other signals may come twice, since
launchers and schedulers both send them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

CAUGHT = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)  # fmt: skip
EXIT_CODE = 130

_STUCK_SECONDS = 5.0
"""How long the main thread may stay in a library (training a tokenizer) before the process ends without it."""

_AGAIN_SECONDS = 0.05


class Stopped(SystemExit):
    """A signal asked the command to stop. As a SystemExit, it passes through libraries and shows no traceback."""

    def __init__(self, number: int) -> None:
        super().__init__(EXIT_CODE)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; run the same command again to continue"


_taken = threading.Event()
"""Set whenever a handler of ours has run."""
_holding = 0
"""Blocks of `stop_signals` that are at work."""


class _Command:
    """The handler of a command's process, from its first line to its last."""

    def __init__(self) -> None:
        self._stopping = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _taken.set()
        if not self._stopping:
            self._stopping = True
            raise Stopped(number)
        if number == signal.SIGINT:
            os._exit(EXIT_CODE)

    def lost(self, report: Any) -> None:
        """Python drops what is raised in a callback or a finaliser; then the signal is sent once more, from outside."""
        if isinstance(report.exc_value, Stopped):
            self._stopping = False
            again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), report.exc_value.number))
            again.daemon = True
            again.start()
        else:
            sys.__unraisablehook__(report)


def install() -> None:
    """Take signals from here to the end of the process. What is ignored (nohup) stays so."""
    command = _Command()
    for number in CAUGHT:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, command)
    sys.unraisablehook = command.lost
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    fork = _Fork()
    os.register_at_fork(before=fork.before, after_in_parent=fork.after, after_in_child=fork.in_child)
    threading.Thread(target=_watch, args=(readable,), daemon=True).start()


def ignore() -> None:
    """Let no signal disturb what follows, such as the interpreter's own end once the command is done."""
    for number in CAUGHT:
        signal.signal(number, signal.SIG_IGN)


class _Fork:
    """A forked process is its parent's to stop, and never takes a signal as its parent would."""

    def before(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)

    def after(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def in_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in CAUGHT:
            if isinstance(signal.getsignal(number), _Command):
                signal.signal(number, signal.SIG_DFL)
        self.after()


def _watch(readable: int) -> None:
    """End the process where the main thread does not come back to Python to take a signal."""
    while numbers := os.read(readable, 1):
        if not _taken.wait(_STUCK_SECONDS) and not _holding and numbers[0] in CAUGHT:
            with contextlib.suppress(OSError):
                os.write(2, f"proctool: {Stopped(numbers[0])}\n".encode())
            os._exit(EXIT_CODE)
        _taken.clear()


class Stop:
    """True once a signal has come."""

    def __init__(self) -> None:
        self.came: int | None = None
        self.insists = False
        """A second Ctrl-C has come."""

    def __bool__(self) -> bool:
        return self.came is not None


class stop_signals:
    """While the block lasts, signals set a flag.

    A second Ctrl-C is passed on to the handler from before, which ends the block, unless it is `patient`. A signal that
    the block has not answered by an exception is raised again after it.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._stop, self._patient = Stop(), patient
        self._before: Mapping[int, Any] = {}

    def __enter__(self) -> Stop:
        global _holding
        with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
            caught = [number for number in CAUGHT if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._take) for number in caught}
        _holding += 1
        return self._stop

    def _take(self, number: int, frame: FrameType | None) -> None:
        _taken.set()
        if self._stop.came is None:
            self._stop.came = number
        elif number == signal.SIGINT:
            self._stop.insists = True
            before: Callable[[int, FrameType | None], Any] | int | None = self._before[number]
            if not self._patient and callable(before):
                before(number, frame)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        global _holding
        _holding -= 1
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self._stop.came is not None:
            signal.raise_signal(self._stop.came)


def start_tracker() -> None:
    """Start multiprocessing's helper before it is needed, so that it lives as long as the command, whatever is sent."""
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def spawning() -> Iterator[None]:
    """Processes started in the block take no signal before they call `in_worker`, and so die of none half made."""
    start_tracker()  # which else lets some signals through when it is started
    with stop_signals():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_worker() -> None:
    """In a process started by `spawning`: obey no signal, since the parent too gets what is sent to the group."""
    ignore()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)


def command_again() -> str:
    """How to start this command once more."""
    from proctool.launched import launch

    command = "proctool " + shlex.join(sys.argv[1:])
    return f"{command} (launched as before)" if launch().processes > 1 else command
