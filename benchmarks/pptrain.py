"""Samples and tokens a second of pptrain's tasks and of ours, in turns in one process: the table of docs/comparison.md.

`python -m benchmarks.pptrain [--rounds 5]`, with pptrain 0.3.0 importable. It makes lists of samples before training;
ours are read from a stream. Figures are medians over rounds, each with new seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from proctool.procedural.mixture import parse_tasks

_LENGTHS = {"min_symbol_length": 64, "max_symbol_length": 64, "max_length": 256}
_HALVES = {"min_symbol_length": 32, "max_symbol_length": 32, "max_length": 256}
PAIRS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    # our specification: its family, its options, samples of each
    "set": ("procedural", {"tasks": ("set",), **_LENGTHS}, 2000, 8192),
    "union": ("procedural", {"tasks": ("union",), **_HALVES}, 2000, 8192),
    "sort": ("procedural", {"tasks": ("sort",), **_LENGTHS}, 2000, 8192),
    "reverse": ("procedural", {"tasks": ("reverse",), **_LENGTHS}, 2000, 8192),
    "dyck": ("dyck", {"preset": "paper_k64"}, 100, 8192),
    "induct + deduct + abduct": ("lime", {"preset": "paper_mixed_5m"}, 500, 8192),
    "nca:text": ("nca", {"preset": "paper_web_text", "rule_count": 16, "eval_rule_count": 1}, 64, 1024),
    "nca:code,per_rule=16": (
        "nca",
        {"preset": "paper_code", "rule_count": 4, "eval_rule_count": 1, "max_rule_attempts_per_sequence": 1000},
        64,
        1024,
    ),
}


def main(rounds: int) -> None:
    from pptrain import create_task

    import proctool.procedural.plugins  # noqa: F401  (registers the tasks)

    print("| proctool | its samples/s | its tokens/s | our samples/s | our tokens/s | times |")
    print("|---|---:|---:|---:|---:|---:|")
    for spec, (family, options, theirs, ours) in PAIRS.items():
        stream_of, here, there = parse_tasks(spec), [], []
        for seed in range(rounds):
            task = create_task(family, options | {"sequence_count": theirs, "eval_sequence_count": 1})
            there.append(_rates(lambda task=task, seed=seed: task.build_datasets(seed=seed), _their_tokens, theirs))
            stream = stream_of.stream(seed + 1)
            here.append(_rates(lambda stream=stream, n=ours: stream.read(0, n), lambda made: made.tokens.size, ours))
        (a, b), (c, d) = (map(statistics.median, zip(*each, strict=True)) for each in (there, here))
        print(f"| `{spec}` | {a:,.0f} | {b:,.0f} | {c:,.0f} | {d:,.0f} | {d / b:.0f} |", flush=True)


def _their_tokens(bundle: Any) -> int:
    return sum(map(len, bundle.train_dataset.sequences))


def _rates(make: Callable[[], Any], count: Callable[[Any], int], samples: int) -> tuple[float, float]:
    """Samples and tokens a second."""
    began = time.perf_counter()
    made = make()
    seconds = time.perf_counter() - began
    return samples / seconds, count(made) / seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
