"""Stop signals: from the user (Ctrl-C), a closed terminal (HUP) or a scheduler (TERM, USR1, USR2).

If nothing needs to be saved, the first signal raises `Stopped` in the running code. The stack unwinds, which removes
unfinished files and child processes, and the command exits with 130. Work that saves its state first (training, `run`,
studies) catches signals with `stop_signals` and checks the flag. A second Ctrl-C ends it at once. Other signals may
come twice, because launchers and schedulers both send them.
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
"""Seconds that the main thread may stay in a library (training a tokenizer) before the process ends without it."""

_AGAIN_SECONDS = 0.05


class Stopped(SystemExit):
    """A signal asked the command to stop. It is a SystemExit, so libraries do not catch it and no traceback appears."""

    def __init__(self, number: int) -> None:
        super().__init__(EXIT_CODE)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; run the same command again to resume"


_taken = threading.Event()
"""Set when one of our handlers has run."""
_holding = 0
"""The active blocks of `stop_signals`."""


class _Command:
    """The signal handler of a command's process."""

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
        """Send the signal again from a thread: Python drops exceptions raised in a callback or a finaliser."""
        if isinstance(report.exc_value, Stopped):
            self._stopping = False
            again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), report.exc_value.number))
            again.daemon = True
            again.start()
        else:
            sys.__unraisablehook__(report)


def install() -> None:
    """Handle signals until the end of the process. Signals ignored before (nohup) stay ignored."""
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
    """Ignore all stop signals from now on, for example while the interpreter exits."""
    for number in CAUGHT:
        signal.signal(number, signal.SIG_IGN)


class _Fork:
    """In a forked process: drop the parent's handlers, because the parent stops it."""

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
    """End the process if the main thread does not return to Python to handle a signal."""
    while numbers := os.read(readable, 1):
        if not _taken.wait(_STUCK_SECONDS) and not _holding and numbers[0] in CAUGHT:
            with contextlib.suppress(OSError):
                os.write(2, f"proctool: {Stopped(numbers[0])}\n".encode())
            os._exit(EXIT_CODE)
        _taken.clear()


class Stop:
    """True after a signal."""

    def __init__(self) -> None:
        self.came: int | None = None
        self.insists = False
        """Whether a second Ctrl-C came."""

    def __bool__(self) -> bool:
        return self.came is not None


class stop_signals:
    """Within the block, signals set a flag.

    A second Ctrl-C goes to the previous handler, which ends the block, unless the block is `patient`. If the block ends
    without an exception after a signal, the signal is raised again.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._stop, self._patient = Stop(), patient
        self._before: Mapping[int, Any] = {}

    def __enter__(self) -> Stop:
        global _holding
        with contextlib.suppress(ValueError):  # not the main thread, which alone gets signals
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
    """Start multiprocessing's resource tracker early, so that signals to the command do not end it."""
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def spawning() -> Iterator[None]:
    """Block signals in processes started in the block until they call `in_worker`, so that none dies while starting."""
    start_tracker()  # otherwise starting it here would unblock some signals
    with stop_signals():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_worker() -> None:
    """In a process started by `spawning`: ignore signals, because the parent also gets them and stops its workers."""
    ignore()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, CAUGHT)


def command_again() -> str:
    """The command line that starts this command again."""
    from proctool.launched import launch

    command = "proctool " + shlex.join(sys.argv[1:])
    return f"{command} (launched as before)" if launch().processes > 1 else command
