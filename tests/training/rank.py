"""One process of a run of two, for tests: python -m tests.training.rank FOLDER NAME CHANGES [kill|eager|gradients]."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from proctool.training import compiling, loss
from proctool.training.devices import end_process, make_accelerator, make_engine, start_process
from proctool.training.warmup import warmup_job
from tests.training.runs import killed_at, options

ALIKE = {"dropout": 0.0, "init_std": 0.02}
"""Options with which several processes differ from one by rounding alone."""


def run(folder: Path, name: str, changes: dict[str, Any], how: str) -> None:
    """The run `name` in `folder`; "kill" kills it, "eager" compiles it for a compiler that changes nothing."""
    loss.LOGITS_AT_ONCE = 64  # the logits of few targets
    if how == "eager":
        parts = compiling.compile_parts
        compiling.compile_parts = lambda model: parts(model, backend="eager")
    start_process()
    job = warmup_job(options(folder, name, **{**ALIKE, **changes}))
    job.listeners = [killed_at("train", 3)] if how == "kill" else []
    job.run()


def gradients(folder: Path, path: str) -> None:
    """A few steps in bf16; the weights and losses are in `weights.safetensors`."""
    import torch
    from safetensors.torch import save_file

    from tests.training.test_sharded_bf16 import STEPS, batches, started

    if path == "fused":
        loss.is_faster = lambda *given: True
    asked = options(folder, precision="bf16", lr=1e-2)
    accelerator = make_accelerator(asked)
    module, optimiser = started()
    engine = make_engine(accelerator, module, optimiser, asked)
    losses = []
    for step in range(STEPS):
        batch = batches(step)[accelerator.process_index]
        losses.append(engine.add_gradients(batch, 50, True))
        engine.clip_or_step(None)
        engine.step()
    weights = engine.weights()
    if accelerator.is_main_process:
        save_file({**weights, "losses": torch.stack(losses)}, folder / "weights.safetensors")
    end_process()


if __name__ == "__main__":
    folder, name, changes, *how = sys.argv[1:]
    if os.environ["RANK"] == "0":
        asked = {name: value for name, value in os.environ.items() if name.startswith(("ACCELERATE_", "FSDP_"))}
        Path(folder, "environment.json").write_text(json.dumps(asked))
    if how == ["gradients"]:
        gradients(Path(folder), name)
    else:
        run(Path(folder), name, json.loads(changes), "".join(how))
