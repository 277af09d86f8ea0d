"""Tokens a second that a DataLoader gives of a task, by dataset and number of workers.

python -m benchmarks.loaders [--seconds 5]
"""

from __future__ import annotations

import argparse
import itertools
import time

from torch.utils.data import DataLoader

from proctool.torch import TaskDataset, TaskStream, collate

SPECS = ("set", "dyck")
WORKERS = (0, 2, 4)
BATCH = 64


def tokens_per_second(loader: DataLoader, seconds: float) -> float:
    """Tokens of whole batches after the first 20, which start the workers, for about so many seconds."""
    batches = iter(loader)
    for batch in itertools.islice(batches, 20):
        size = batch["input_ids"].numel()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += sum(1 for _ in itertools.islice(batches, 10))
    return done * size / (time.perf_counter() - began)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description="Measure how fast a DataLoader gives a task's samples.")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for each number")
    seconds = parser.parse_args().seconds
    print("| task | dataset | " + " | ".join(f"{workers} workers" for workers in WORKERS) + " |")
    print("|---|---|" + "--:|" * len(WORKERS))
    for spec in SPECS:
        for dataset in (TaskDataset(spec, length=100_000_000), TaskStream(spec)):
            found = []
            for workers in WORKERS:
                loader = DataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate)
                found.append(tokens_per_second(loader, seconds))
            cells = " | ".join(f"{each / 1e6:.1f} M" for each in found)
            print(f"| {spec} | {type(dataset).__name__} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
