"""Processes of our own: how many cores they have, and how they end with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import sys
import threading
import types
from collections.abc import Iterator


def usable_cores() -> int:
    """Cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(usable(0)) if usable else os.cpu_count() or 1


@contextlib.contextmanager
def another_main() -> Iterator[None]:
    """Start processes without the caller's script: spawning would run it again in each of them, from its first line
    where it has no `if __name__ == "__main__"`, and fail where it came from standard input."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with_parent() -> None:
    """In a worker: end when the parent does, for one that is killed with -9 tells nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
