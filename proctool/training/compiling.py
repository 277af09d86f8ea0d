"""torch.compile for training: layer by layer, so that all layers share one compiled graph."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from proctool.errors import first_line
from proctool.internals import of_torch
from proctool.models.components import stacks
from proctool.training import zero
from proctool.training.devices import computes_on_cpu
from proctool.training.engine import Engine, is_sharded
from proctool.training.options import TrainingOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.training.batch import Batch

WORTH_COMPILING = 10**16
"""Compile runs of at least this many FLOPs: about a minute on a large GPU, twice what compiling takes."""

FEW_LAYERS = 4
"""Models of up to this many layers are compiled as a whole; on a CPU, 2x4x16 then steps in a tenth less time."""


def compile_chosen(options: TrainingOptions, flops: int) -> TrainingOptions:
    """Set `compile` if the user left it open. `flops` counts the operations of the whole run."""
    if options.compile is not None:
        return options
    able = torch.cuda.is_available() and not computes_on_cpu() and not zero.is_asked()
    return dataclasses.replace(options, compile=able and flops >= WORTH_COMPILING)


def compile_model(engine: Engine, trial: Batch) -> str:
    """Compile an engine's model in place and try one step. Returns a sentence about the result.

    The trial step runs through the launch's wrappers and changes neither weights nor random states. If it fails in one
    process, no process compiles.
    """
    parts = compile_parts(engine.module.model)
    failure = ""
    try:
        with torch.random.fork_rng():
            # Without the last micro-batch DDP does not communicate, so a failed process cannot block the others.
            engine.add_gradients(trial, len(trial.labels), is_last=False)
    except Exception as error:  # compilers fail in many ways
        failure = first_line(error) or type(error).__name__
    engine.module.zero_grad()
    failed = torch.tensor(float(bool(failure)), device=engine.accelerator.device)
    if engine.accelerator.reduce(failed) > 0:
        for part in parts:
            of_torch.run_uncompiled(part)
        return f"torch.compile does not work here ({failure or 'it failed in another process'}); continuing without it"
    return f"compiled by torch.compile ({f'{len(parts)} layers' if len(parts) > 1 else 'the body as a whole'})"


def compile_parts(model: PreTrainedModel, **how: Any) -> list[nn.Module]:
    """Compile a model's layers, or its whole body if it has few. Returns the compiled modules.

    They compile when first called; `how` goes to torch.compile. A sharded model is always compiled by layers, because
    FSDP gathers one layer at a time. The head is not compiled, because the size of its input varies.
    """
    of_torch.forget_compiled_code()  # code of earlier models in this process counts towards the recompile limit
    parts = [layer for stack in stacks(model.base_model) for layer in stack]
    if not parts or (len(parts) <= FEW_LAYERS and not any(map(is_sharded, parts))):
        parts = [model.base_model]
    for part in parts:
        part.compile(**how)
    return parts
