"""A long run under watch: memory, open files and the cost of a step's record, from its first steps to its last.

    python -m benchmarks.long_run --steps 50000

trains the pico model on a tiny task in a child process and looks at it from outside (/proc, so Linux) at every
thousandth step. Warm-up of allocators and caches is over after the first tenth; from there on nothing may grow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=1000, help="steps between two looks")
    parser.add_argument("--allowed-mib", type=float, default=8.0, help="growth of memory that counts as flat")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        looks = watch(Path(folder), asked.steps, asked.every)
    settled = looks[max(1, len(looks) // 10) :]
    for key in ("mib", "files", "threads"):
        first, last = settled[0][key], settled[-1][key]
        print(f"{key:<8} {first:g} at step {settled[0]['step']}, {last:g} at step {settled[-1]['step']}")
    half = len(settled) // 2
    paces = [sum(each["steps_per_second"] for each in part) / len(part) for part in (settled[:half], settled[half:])]
    print(f"steps/s  {paces[0]:.0f} in the first half, {paces[1]:.0f} in the second")
    print(f"metrics  {looks[-1]['metrics'] / looks[-1]['step']:.0f} bytes a step, {looks[-1]['metrics']} in all")
    grown = settled[-1]["mib"] - settled[0]["mib"]
    flat = grown <= asked.allowed_mib and settled[-1]["files"] <= settled[0]["files"]
    print("flat" if flat else f"GROWS: {grown:.1f} MiB, {settled[-1]['files'] - settled[0]['files']:g} files")
    return 0 if flat else 1


def watch(folder: Path, steps: int, every: int) -> list[dict[str, float]]:
    """Memory (MiB, resident), open files, threads and bytes of metrics at every `every` steps of a run."""
    run = folder / "run"
    command = [
        *(sys.executable, "-m", "proctool", "warmup", "--task", "set:inputs=4,symbols=8", "--model", "pico"),
        *("--steps", str(steps), "--batch-size", "4", "--log-every", "10", "--eval-every", str(every)),
        *("--eval-samples", "8", "--checkpoint-every", str(every), "--run-dir", str(run)),
        *("-o", str(folder / "warm.safetensors")),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    looks: list[dict[str, float]] = []
    seen, began, offset, tail = 0, time.monotonic(), 0, b""
    while child.poll() is None:
        time.sleep(0.2)
        with (run / "metrics.jsonl").open("rb") if (run / "metrics.jsonl").exists() else open(os.devnull, "rb") as file:
            file.seek(offset)
            new = file.read()
        offset += len(new)
        *lines, tail = (tail + new).split(b"\n")
        step = max((json.loads(line).get("step", 0) for line in lines), default=seen)
        if step < seen + every:
            continue
        try:
            pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[1])
            files = len(os.listdir(f"/proc/{child.pid}/fd"))
            threads = len(os.listdir(f"/proc/{child.pid}/task"))
        except (FileNotFoundError, ProcessLookupError):
            break
        now = time.monotonic()
        pace = (step - seen) / (now - began)
        mib = pages * os.sysconf("SC_PAGESIZE") / MIB
        looks.append(
            {"step": step, "mib": mib, "files": files, "threads": threads, "metrics": offset, "steps_per_second": pace}
        )
        seen, began = step, now
    assert child.stderr is not None
    said = child.stderr.read().decode()
    if child.wait() != 0:
        raise SystemExit(f"the run failed: {said}")
    return looks


if __name__ == "__main__":
    raise SystemExit(main())
