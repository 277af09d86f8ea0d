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
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    kept = faults()
print(kept, faults(), int(open("/proc/self/statm").read().split()[1]))
"""
PAGES = (64 << 20) // 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
@pytest.mark.parametrize("tuned", [False, True])
def test_steps_use_the_memory_of_those_before(tuned: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name}
    if tuned:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    kept, after, resident = map(int, done.stdout.split())
    assert after > 19 * PAGES  # as it was, once the block is left
    # Not all of it: an aligned array does not always fit where one of its size was.
    assert kept > 19 * PAGES if tuned else kept < 0.6 * after
    assert resident < 400 * 256  # 400 MiB
