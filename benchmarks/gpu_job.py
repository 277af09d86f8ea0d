"""A training job on random tokens, and the device it runs on: what the measures of benchmarks/gpu.py share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from proctool.events import Event
from proctool.models.build import model_config
from proctool.procedural.samples import Samples
from proctool.training.job import Job
from proctool.training.options import PretrainOptions

Found = dict[str, Any]


class RandomTokens:
    """A corpus of random tokens: sample i is drawn from a generator of its own."""

    def __init__(self, vocabulary: int, length: int, seed: int) -> None:
        self.vocab_size, self.length, self.seed = vocabulary, length, seed

    def read(self, start: int, stop: int) -> Samples:
        draws = (np.random.default_rng((self.seed, place)) for place in range(start, stop))
        rows = [draw.integers(0, self.vocab_size, self.length, np.uint32) for draw in draws]
        return Samples(np.stack(rows), np.ones((len(rows), self.length), bool))

    def metadata(self) -> Found:
        return {"corpus": "random", "stream": self.seed}


def make_job(
    folder: Path, model: str, context: int, batch: int, steps: int, vocabulary: int, name: str = "run", **changes: Any
) -> tuple[list[Event], Job]:
    """A pretraining job on random tokens that never evaluates in between, and the list its events come into."""
    never = 1 << 40
    settings: Found = {
        "log_every": 5, "eval_every": never, "eval_samples": 1, "checkpoint_every": never, "precision": "bf16",
        "lr": 3e-4, "keep_state": False,
    }  # fmt: skip
    options = PretrainOptions(
        model=model, context=context, steps=steps, batch_size=batch, run_dir=folder / name, **(settings | changes)
    )
    events: list[Event] = []
    job = Job(
        command="pretrain",
        options=options,
        config=model_config(model, vocab_size=vocabulary, context=context, dropout=options.dropout),
        source=RandomTokens(vocabulary, context, 0),
        held_out=RandomTokens(vocabulary, context, 1),
        output=folder / f"{name}.safetensors",
        metadata={"stage": "pretrain"},
        listeners=[events.append],
    )
    return events, job


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory() -> Found:
    """The most GPU memory that tensors have taken so far."""
    return {"peak_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
