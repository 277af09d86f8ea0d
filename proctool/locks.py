"""File locks: one process holds a lock until it ends; the file says which process and for how long.

The system releases a lock when its process ends, so a taken lock always belongs to a running process. On a file system
without locks, work continues without them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

from proctool.errors import naming
from proctool.units import format_seconds


class Taken(Exception):
    """Another process holds the lock. The message names it: "process 12 on node-3, for 40 s"."""


def take(path: Path, waiting: Callable[[], None] | None = None) -> IO[str] | None:
    """Open and lock the file `path`; closing it releases the lock. None if the file system has no locks.

    If another process has the lock: with `waiting`, call it once and wait; without it, raise Taken. Raises OSError.
    """
    while True:
        file = path.open("a+", encoding="utf-8", errors="replace")
        try:
            if not lock_descriptor(file.fileno(), blocking=False):
                if waiting is None:
                    with file:
                        raise Taken(_holder(file))
                waiting()
                lock_descriptor(file.fileno())
        except OSError:
            file.close()
            return None
        # The holder may have deleted the file after we opened it. Then our lock protects nothing: try again.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    try:
        with naming(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
    except OSError:
        with contextlib.suppress(OSError):  # closing tries again to write what is buffered
            file.close()
        raise
    return file


def holder(path: Path) -> str | None:
    """Who has the lock of the file `path`; None if nobody has. The file stays as it is."""
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        if not lock_descriptor(file.fileno(), blocking=False):
            return _holder(file)
    return None


def _holder(file: IO[str]) -> str:
    held = time.time() - os.fstat(file.fileno()).st_mtime  # negative if the clock was set back; shown as 0 s
    file.seek(0)
    return f"{file.read(200).strip() or 'another process'}, for {format_seconds(held)}"


_claimed: dict[str, int] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep other processes from claiming `path` while the block lasts.

    Claims nest within a process. Raises Taken; OSError if the folder is not writable.
    """
    key = os.path.abspath(path)
    with _guard:
        nested = key in _claimed
        _claimed[key] = _claimed.get(key, 0) + 1
    try:
        with contextlib.nullcontext() if nested else _locked(path):
            yield
    finally:
        with _guard:
            _claimed[key] -= 1
            if not _claimed[key]:
                del _claimed[key]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f".{path.name}.lock")
    try:
        file = take(lock)
    except OSError as error:  # name the requested file, not the lock
        raise OSError(error.errno, error.strerror, str(path)) from None
    if file is None:
        yield
        return
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()  # while it is still locked; see `take`
