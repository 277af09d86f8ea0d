"""How fast each task generates, in tokens a second: `python -m benchmarks.tasks [--json FILE] [--tasks set dyck]`.

Every task runs at its published options, in the blocks that streams draw. "Generator" is the task alone, as the
official figures are; "stream" is what `generate` and `warmup` read, with seeding and, for tasks of few different
sequences, the search for those of the split. Both are the best of several runs of one thread by its processor time,
so that other work on the machine counts as little as it can; "workers" are processes that read streams, by the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One thread each, or the BLAS behind nca would take every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from proctool.procedural.registry import build_task, tasks
from proctool.procedural.streams import BLOCK, Stream

# Tokens a second of the official generators (zlshinnick/procedural-pretraining) on one core of the same kind.
OFFICIAL = {
    "dyck": 3.6e6,
    "shuffle-dyck": 0.62e6,
    "set": 0.47e6,
    "sort": 0.42e6,
    "union": 0.47e6,
    "delete": 0.43e6,
    "identity": 0.43e6,
    "reverse": 0.33e6,
    "stack": 0.24e6,
}


def speed(make: Callable[[int], object], tokens: int, seconds: float, clock: Callable[[], float]) -> float:
    """Tokens a second of `make(block)`, which makes so many tokens, over about so many seconds."""
    make(0)  # what only the first block costs
    started, block = clock(), 1
    while (passed := clock() - started) < seconds or block == 1:
        make(block)
        block += 1
    return (block - 1) * tokens / passed


def generator(name: str, seconds: float) -> float:
    """Tokens a second of the task alone."""
    task, rng = build_task(name), np.random.Generator(np.random.PCG64(0))
    return speed(lambda block: task.sample(rng, BLOCK), BLOCK * task.length, seconds, time.process_time)


def stream(name: str, seconds: float, seed: int = 0, clock: Callable[[], float] = time.process_time) -> float:
    """Tokens a second of the task's stream. A seed serves once in a process, since streams remember their blocks."""
    source = Stream(build_task(name), seed)
    return speed(
        lambda block: source.read(block * BLOCK, block * BLOCK + 1), BLOCK * source.task.length, seconds, clock
    )


def worker(arguments: tuple[str, float, int]) -> float:
    """Tokens a second, by the clock, of one process among several."""
    return stream(*arguments, clock=time.perf_counter)


def measure(names: list[str], seconds: float, repeats: int, workers: int) -> dict[str, Any]:
    """Every figure, as the JSON that `--json` writes."""
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for name in names:
            row: dict[str, Any] = {"task": build_task(name).spec, "name": name}
            row["generator"] = max(generator(name, seconds) for _ in range(repeats))
            row["stream"] = max(stream(name, seconds, seed) for seed in range(repeats))
            row["workers"] = sum(pool.map(worker, [(name, seconds, seed) for seed in range(workers)], chunksize=1))
            if name in OFFICIAL:
                row["official"] = OFFICIAL[name]
                row["times"] = row["generator"] / OFFICIAL[name]
            rows.append(row)
            print(f"{name}: {row['generator'] / 1e6:.1f} M/s", file=sys.stderr)
    ratios = [row["times"] for row in rows if "times" in row]
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "workers": workers,
        "tasks": rows,
        "geometric_mean": math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"| task | generator, M tokens/s | stream | {figures['workers']} workers | official | times |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in figures["tasks"]:
        official = f"{row['official'] / 1e6:.2f} | {row['times']:.0f}" if "times" in row else " | "
        ours = " | ".join(f"{row[column] / 1e6:.1f}" for column in ("generator", "stream", "workers"))
        lines.append(f"| {row['name']} | {ours} | {official} |")
    if figures["geometric_mean"]:
        lines.append(f"\nGeometric mean over the official tasks: {figures['geometric_mean']:.0f} times their speed.")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here too, for docs/tasks.md")
    parser.add_argument("--tasks", nargs="+", choices=sorted(tasks()), default=sorted(tasks()), help="which (all)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each run (0.3)")
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which the best counts (5)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    chosen = parser.parse_args()
    figures = measure(chosen.tasks, chosen.seconds, chosen.repeats, chosen.workers)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
