"""Processes of our own: how many cores they have, and how they end with their parent."""

from __future__ import annotations

import multiprocessing.connection
import os
import threading


def usable_cores() -> int:
    """Cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(usable(0)) if usable else os.cpu_count() or 1


def end_with_parent() -> None:
    """In a worker: end when the parent does, for one that is killed with -9 tells nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
