"""torch.compile for training: layer by layer, so that one graph serves all layers of a model of many."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from proctool.errors import first_line
from proctool.models.components import stacks
from proctool.training import zero
from proctool.training.devices import computes_on_cpu
from proctool.training.engine import Engine, is_sharded
from proctool.training.options import TrainingOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.training.batch import Batch

WORTH_COMPILING = 10**16
"""A run's floating-point operations from which it is compiled: about a minute of a large GPU; compiling takes half."""

FEW_LAYERS = 4
"""Up to so many the body is compiled as a whole: on a CPU the steps of 2x4x16 take a tenth less than by layers."""


def compile_chosen(options: TrainingOptions, flops: int) -> TrainingOptions:
    """The options with `compile` settled, where it was left open, for a run of so many operations on this machine."""
    if options.compile is not None:
        return options
    able = torch.cuda.is_available() and not computes_on_cpu() and not zero.is_asked()
    return dataclasses.replace(options, compile=able and flops >= WORTH_COMPILING)


def compile_model(engine: Engine, trial: Batch) -> str:
    """Compile an engine's model in place and try it, leaving no trace. Gives a sentence on how it went.

    The trial step goes through the wrappers of the launch. Processes agree: where it fails on one, none compiles.
    """
    parts = compile_parts(engine.module.model)
    failure = ""
    try:
        with torch.random.fork_rng():
            engine.add_gradients(trial, len(trial.labels), is_last=False)  # DDP's processes do not meet in it
    except Exception as error:  # compilers fail in many ways
        failure = first_line(error) or type(error).__name__
    engine.module.zero_grad()
    failed = torch.tensor(float(bool(failure)), device=engine.accelerator.device)
    if engine.accelerator.reduce(failed) > 0:
        for part in parts:
            part._compiled_call_impl = None
        return f"torch.compile does not work here ({failure or 'it failed in another process'}); going on without it"
    return f"compiled by torch.compile ({f'{len(parts)} layers' if len(parts) > 1 else 'the body as a whole'})"


def compile_parts(model: PreTrainedModel, **how: Any) -> list[nn.Module]:
    """Have a model's layers compiled when they are first called, or its body where it has few; gives those modules.

    Of a sharded model always the layers: they are what is gathered. The head stays as it is: its input varies in
    size. `how` goes to torch.compile.
    """
    import torch._dynamo

    torch._dynamo.reset()  # graphs of models that this process had before count against the limit of this one
    parts = [layer for stack in stacks(model.base_model) for layer in stack]
    if not parts or (len(parts) <= FEW_LAYERS and not any(map(is_sharded, parts))):
        parts = [model.base_model]
    for part in parts:
        part.compile(**how)
    return parts
