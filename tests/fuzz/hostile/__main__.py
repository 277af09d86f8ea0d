"""`python -m tests.fuzz.hostile`: every case, in a process whose address space may hardly grow."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path

from tests.fuzz.hostile.cases import CASES, MIB, ROOM_MIB
from tests.fuzz.hostile.measure import judged


def main() -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["PROCTOOL_CACHE"] = os.path.join(tempfile.gettempdir(), "proctool-hostile")
    names = [name for name in CASES if not sys.argv[1:] or any(part in name for part in sys.argv[1:])]
    for warm in ("a_folder_with_a_nan", "an_adapter", "yaml_that_builds_an_object", "tokens_that_are_floats"):
        judged(warm)  # libraries are imported once, outside what is measured
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_MIB * MIB,) * 2)  # an allocation beyond fails, and is seen
    bad, slowest, largest = 0, 0.0, 0.0
    for name in names:
        wrong, seconds, grown, line = judged(name)
        bad += bool(wrong)
        slowest, largest = max(slowest, seconds), max(largest, grown)
        print(
            f"{'BAD' if wrong else 'ok ':<4}{1e3 * seconds:8.1f} ms {grown:8.1f} MiB  {name}: {wrong} {line}",
            flush=True,
        )
    print(
        f"{len(names)} hostile files, {bad} not refused as they should be; slowest {1e3 * slowest:.0f} ms, "
        f"most memory {largest:.0f} MiB"
    )
    return bad and 1


if __name__ == "__main__":
    raise SystemExit(main())
