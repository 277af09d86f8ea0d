"""Tokens a second that a DataLoader gives of a task, by dataset and number of workers; other generators beside them.

    python -m benchmarks.loaders [--seconds 5] [--official FOLDER] [--pptrain FOLDER]

FOLDER is a clone of zlshinnick/procedural-pretraining, or where `pip install --target FOLDER --no-deps pptrain` put
pptrain. Neither is part of proctool. The official Dyck dataset and all of pptrain make every sequence first:
their numbers count making the sequences and reading them once, which no worker speeds up.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from proctool.torch import TaskDataset, TaskStream, collate

TASKS = {"set": {"inputs": 20, "symbols": 20}, "dyck": {"k": 16, "length": 128}}
WORKERS = (0, 2, 4)
BATCH = 64
MADE_AHEAD = 6400
"""Sequences of a dataset that makes them all first."""
Loaders = Callable[[int], Iterator[Any]]


def spec(task: str) -> str:
    """The task with the options that all generators share."""
    return f"{task}:" + ",".join(f"{name}={value}" for name, value in TASKS[task].items())


def tokens_per_second(batches: Iterator[Any], seconds: float) -> float:
    """Tokens of whole batches after the first 20, which start the workers, for about so many seconds."""
    for batch in itertools.islice(batches, 20):
        size = batch["input_ids"].numel()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += sum(1 for _ in itertools.islice(batches, 10))
    return done * size / (time.perf_counter() - began)


def made_ahead(make: Callable[[], Iterator[Any]]) -> float:
    """Tokens a second of making a dataset and reading it once, padding not counted."""
    began, tokens = time.perf_counter(), 0
    for batch in make():
        tokens += int(batch["attention_mask"].sum())
    return tokens / (time.perf_counter() - began)


def ours(dataset: Any) -> Loaders:
    """Batches of one of proctool's datasets."""
    return lambda workers: iter(DataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate))


def official(task: str, folder: Path) -> Loaders | Callable[[], Iterator[Any]]:
    """Batches of the official dataset: drawn by workers, or (Dyck) made ahead."""
    sys.path.insert(0, str(folder))
    if task == "set":
        from procedural_data.set import SetDataset  # type: ignore[import-not-found]

        data = SetDataset(seq_len=20, vocab_size=21, num_samples=100_000_000, seed=0)  # draws from 1 up to 20
        return lambda workers: iter(DataLoader(data, batch_size=BATCH, num_workers=workers))
    from procedural_data.dyck import DyckDataset  # type: ignore[import-not-found]

    return lambda: iter(DataLoader(DyckDataset(k=16, seq_length=128, num_samples=MADE_AHEAD), batch_size=BATCH))


def pptrain(task: str, folder: Path) -> Callable[[], Iterator[Any]]:
    """Batches of pptrain's nearest task, which are made ahead: `set` of 20 letters, brackets of 16 kinds."""
    sys.path.append(str(folder))
    from pptrain import create_task  # type: ignore[import-not-found]

    shared = {"sequence_count": MADE_AHEAD, "eval_sequence_count": 1, "max_length": 129}
    name, options = {
        "set": ("procedural", {"tasks": ("set",), "min_symbol_length": 20, "max_symbol_length": 20}),
        "dyck": ("dyck", {"num_bracket_types": 16, "min_pairs": 64, "max_pairs": 64, "max_depth": 64}),
    }[task]

    def make() -> Iterator[Any]:
        bundle = create_task(name, {**shared, **options}).build_datasets(0)
        return iter(DataLoader(bundle.train_dataset, batch_size=BATCH, collate_fn=bundle.data_collator))

    return make


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description="Measure how fast a DataLoader gives a task's samples.")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for each number")
    parser.add_argument("--official", type=Path, help="a clone of the paper's code")
    parser.add_argument("--pptrain", type=Path, help="the folder that pptrain is installed in")
    asked = parser.parse_args()
    print("| task | dataset | " + " | ".join(f"{workers} workers" for workers in WORKERS) + " |")
    print("|---|---|" + "--:|" * len(WORKERS))
    for task in TASKS:
        rows: dict[str, Any] = {
            "proctool TaskDataset": ours(TaskDataset(spec(task), length=100_000_000)),
            "proctool TaskStream": ours(TaskStream(spec(task))),
        }
        if asked.official is not None:
            rows["official"] = official(task, asked.official)
        if asked.pptrain is not None:
            rows["pptrain"] = pptrain(task, asked.pptrain)
        for name, loaders in rows.items():
            is_ahead = name == "pptrain" or (name == "official" and task == "dyck")
            found = (
                [made_ahead(loaders)]
                if is_ahead
                else [tokens_per_second(loaders(workers), asked.seconds) for workers in WORKERS]
            )
            cells = [f"{each / 1e6:.2f} M" for each in found] + ["made ahead"] * (len(WORKERS) - len(found))
            print(f"| {spec(task)} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
