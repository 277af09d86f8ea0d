"""Memory that a step frees is the next one's, and goes back to the kernel after the run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from proctool.training.heap import freed_memory_kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1])

empty = resident()
with freed_memory_kept():
    before = faults()
    for _ in range(100):
        torch.ones(9 << 20)
    made = faults() - before
print(made, resident() - empty)
"""
PAGES = (36 << 20) // 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_steps_use_the_memory_of_those_before(tuned: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name}
    if tuned:  # by the user, who is left alone
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    made, left = map(int, done.stdout.split())
    # Some are new: an array does not always fit where one of its size was, for something small that came between.
    assert made > 95 * PAGES if tuned else made < 50 * PAGES
    assert left < PAGES / 2
