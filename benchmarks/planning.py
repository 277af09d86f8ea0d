"""What `proctool plan` estimates against what small runs on this machine take.

`python -m benchmarks.planning [memory] [time]`. Memory: each run is a process of its own; its peak of resident memory,
less what it had after a tiny run and before its model was made, beside the estimate. Measured twice: with freed memory
going back at once (MALLOC_MMAP_THRESHOLD_), which is what tensors take, and as glibc does it by itself. Time: the peak
of this machine's matrix products, the share of it that a short run reaches (its MFU), and at that share the time of
one twice as long, beside what it took; all on one core and in processor time, so that other work disturbs less.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from proctool.events import Event, StartEvent, TrainEvent

os.environ.setdefault("OMP_NUM_THREADS", "1")

# What differs from context 256, batch 8, byte tokens, fp32.
MEMORY: dict[str, dict[str, Any]] = {
    "4x4x128": {"model": "4x4x128"},
    "12x12x384": {"model": "12x12x384"},
    "12x12x384, checkpointing": {"model": "12x12x384", "gradient_checkpointing": True},
    "12x12x384, accumulate 4": {"model": "12x12x384", "accumulate": 4},
    "12x12x384, dropout": {"model": "12x12x384", "dropout": 0.1},
    "12x12x384, bf16": {"model": "12x12x384", "precision": "bf16"},
    "12x12x384, 50257 tokens": {"model": "12x12x384", "vocabulary": 50_257},
    "8x8x512, llama, context 512": {"model": "8x8x512", "family": "llama", "context": 512},
    "4x4x128, mixtral": {"model": "4x4x128", "family": "mixtral"},
}
TIMED = {"model": "4x4x128", "batch_size": 8, "context": 256}


def job_of(folder: Path, *, vocabulary: int | None = None, **changes: Any) -> Any:
    """A pretraining job on text of its own making."""
    from proctool.models.build import model_config
    from proctool.training.options import PretrainOptions
    from proctool.training.pretrain import pretrain_job

    text = folder / "text"
    text.mkdir()
    for number in range(100):
        lines = (f"{number} and {line} make {number + line} or {number * line}\n" for line in range(300))
        (text / f"{number:02}.txt").write_text("".join(lines))
    values = {
        "context": 256, "batch_size": 8, "steps": 2, "eval_samples": 1, "corpus": str(text), "log_every": 1,
        "eval_every": 10**6, "checkpoint_every": 10**6, "cache_dir": folder / "cache", "run_dir": folder / "run",
        "output": folder / "model.safetensors",
    }  # fmt: skip
    options = PretrainOptions(**(values | changes))
    job = pretrain_job(options)
    if vocabulary is not None:
        config = model_config(
            options.model, vocab_size=vocabulary, context=options.context, family=options.family,
            dropout=options.dropout,
        )  # fmt: skip
        job = dataclasses.replace(job, config=config)
    return job


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(changes: dict[str, Any]) -> None:
    """Train and print the estimate and the measured bytes as JSON: the work of one process."""
    from proctool.cli.training import quiet_libraries
    from proctool.models.build import outline
    from proctool.models.memory import Layout, training_memory
    from proctool.training.loss import LOGITS_AT_ONCE

    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:  # libraries are loaded as they are first used
        job_of(Path(folder), model="2x2x16", batch_size=1, precision=changes.get("precision", "fp32")).run()
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(Path(folder), **changes)
        options = job.options
        memory = training_memory(
            outline(job.config), length=job.source.length, logits_at_once=LOGITS_AT_ONCE, precision=options.precision,
            dropout=options.dropout, checkpointing=options.gradient_checkpointing, on_cpu=True,
        )  # fmt: skip
        before = resident()
        job.run()
    layout = Layout(options.batch_size // options.accumulate, accumulates=options.accumulate > 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"estimate": memory.peak(layout), "measured": peak - before}))


def check_memory() -> None:
    """The table of estimates and measured peaks."""
    print("| run | estimate, MiB | measured | ratio | with what glibc keeps |\n|---|---:|---:|---:|---:|", flush=True)
    for name, changes in MEMORY.items():
        command = [sys.executable, "-m", "benchmarks.planning", "--one", json.dumps(changes)]
        found = []
        for settings in ({"MALLOC_MMAP_THRESHOLD_": "65536"}, {}):
            environment = {**os.environ, **settings}
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
            found.append(json.loads(said.splitlines()[-1]))
        estimate, measured, kept = (
            number / 2**20 for number in (found[0]["estimate"], found[0]["measured"], found[1]["measured"])
        )
        print(f"| {name} | {estimate:.0f} | {measured:.0f} | {estimate / measured:.2f} | {kept:.0f} |", flush=True)


def products_peak(size: int = 1024, rounds: int = 30) -> float:
    """The most fp32 operations a processor second of products of square matrices here."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        a @ b
        spent.append(time.process_time() - began)
    return 2 * size**3 / min(spent)


def trained(steps: int) -> tuple[float, float]:
    """Processor seconds of the training steps of a run, all but the first; and their floating-point operations."""
    marks: list[float] = []
    flops = 0.0

    def listen(event: Event) -> None:
        nonlocal flops
        if isinstance(event, StartEvent):
            flops = event.flops
        elif isinstance(event, TrainEvent):
            marks.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        job = job_of(Path(folder), steps=steps, **TIMED)
        job.listeners = [listen]
        job.run()
    return marks[-1] - marks[0], flops * (steps - 1) / steps


def check_time(steps: int) -> None:
    """MFU of one run, and the time of one twice as long that follows from it."""
    import torch

    from proctool.cli.training import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    trained(3)  # libraries and caches
    peak = products_peak()
    seconds, flops = trained(steps)
    mfu = flops / seconds / peak
    longer, twice = trained(2 * steps)
    predicted = twice / (peak * mfu)
    print(f"products: {peak / 1e9:.1f} GFLOP/s in fp32 on one core; {TIMED['model']}, {steps} steps: MFU {mfu:.2f}")
    print(f"{2 * steps} steps: predicted {predicted:.1f} s, measured {longer:.1f} s, ratio {predicted / longer:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["memory", "time", []], help="what to check (both)")
    parser.add_argument("--steps", type=int, default=40, help="of the shorter timed run (40)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one is not None:
        measure(json.loads(chosen.one))
        return
    if not chosen.parts or "memory" in chosen.parts:
        check_memory()
    if not chosen.parts or "time" in chosen.parts:
        check_time(chosen.steps)


if __name__ == "__main__":
    main()
