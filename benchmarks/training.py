"""The haystack diagnostic's training loop against one in the manner of the official script: samples a second.

`python -m benchmarks.training [--steps 12] [--batch 1000]`. Both train the paper's 2x4x16 model (section 4) in this
one process, in turns. The other loop is written from its description: samples made one by one in Python, the Hugging
Face Trainer, logits at every position. Figures are medians over steps, the first three left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from proctool.evaluation.diagnostic import diagnostic_job
from proctool.evaluation.options import HaystackOptions
from proctool.events import TrainEvent
from proctool.models.build import build_model, model_config

PAIRS, VOCAB, LENGTH = 30, 256, 62
WARMING = 3


class OneByOne(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Haystack samples made in Python, one at a time, each from a generator of its own."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(index)
        count = int(rng.integers(1, PAIRS + 1))
        keys = rng.permutation(PAIRS)[:count]
        values = rng.integers(1, VOCAB // 2, count)
        asked = int(rng.integers(count))
        tokens = [0] * LENGTH
        labels = [-100] * LENGTH
        for place in range(count):
            tokens[2 * place], tokens[2 * place + 1] = VOCAB // 2 + int(keys[place]), int(values[place])
        tokens[2 * count], tokens[2 * count + 1] = VOCAB // 2 + PAIRS + int(keys[asked]), int(values[asked])
        labels[2 * count + 1] = int(values[asked])
        return {"input_ids": torch.tensor(tokens), "labels": torch.tensor(labels)}


def with_trainer(steps: int, batch: int, workers: int = 0) -> float:
    """Samples a second of the Hugging Face Trainer, on the GPU where there is one."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    model = build_model(model_config("2x4x16", vocab_size=VOCAB, context=LENGTH, dropout=0.0), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=1e-3,
            use_cpu=not torch.cuda.is_available(), dataloader_num_workers=workers, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, weight_decay=1e-3,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=OneByOne(steps * batch), callbacks=[Clock()]).train()
    return batch / statistics.median(np.diff(marks[WARMING:]).tolist())


def with_proctool(steps: int, batch: int, **changes: Any) -> float:
    """Samples a second of `proctool eval haystack`."""
    with tempfile.TemporaryDirectory() as folder:
        options = HaystackOptions(
            steps=steps, batch_size=batch, ramp_steps=1, log_every=1, eval_every=steps, eval_samples=100,
            run_dir=Path(folder), **changes,
        )  # fmt: skip
        marks: list[float] = []
        job = diagnostic_job("haystack", options)
        job.listeners = [lambda event: marks.append(time.perf_counter()) if isinstance(event, TrainEvent) else None]
        job.run()
    return batch / statistics.median(np.diff(marks[WARMING:]).tolist())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="of each loop (12)")
    parser.add_argument("--batch", type=int, default=1000, help="samples in a step (1000)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    base = with_trainer(chosen.steps, chosen.batch)
    print(f"| loop, batch {chosen.batch}, one core | samples/s | times |\n|---|---:|---:|")
    print(f"| Trainer, full logits, samples one by one | {base:.0f} | 1.0 |")
    for name, changes in (("proctool", {}), ("proctool --compile", {"compile": True})):
        found = with_proctool(chosen.steps, chosen.batch, **changes)
        print(f"| {name} | {found:.0f} | {found / base:.1f} |")


if __name__ == "__main__":
    main()
