"""Worker processes: the number of usable cores, and ending together with the parent."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import sys
import threading
import types
from collections.abc import Iterator


def usable_cores() -> int:
    """The number of cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(usable(0)) if usable else os.cpu_count() or 1


@contextlib.contextmanager
def another_main() -> Iterator[None]:
    """Start processes without the caller's script. Otherwise each worker would import it: that runs the whole script
    again if it has no `if __name__ == "__main__"`, and fails if it came from standard input."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_with_parent() -> None:
    """In a worker: end when the parent ends, because a parent killed by SIGKILL cannot stop its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
