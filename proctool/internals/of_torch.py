"""Private parts of torch. Tested with 2.13."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def attention_backend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> int:
    """The number in `SDPBackend` of the kernel that causal attention takes for these tensors."""
    import torch

    return torch._fused_sdp_choice(query, key, value, is_causal=True)


def forget_compiled_code() -> None:
    """Forget the compiled code of all models of this process, which counts against a limit."""
    import torch._dynamo

    torch._dynamo.reset()


def run_uncompiled(module: nn.Module) -> None:
    """Undo `module.compile()`."""
    module._compiled_call_impl = None


def allow_eager_capturable_steps(optimiser: torch.optim.Optimizer) -> None:
    """Keep an optimiser with `capturable` from warning about steps outside a CUDA graph."""
    optimiser._warned_capturable_if_run_uncaptured = True


def tensors_of(module: nn.Module, name: str) -> dict[str, Any]:
    """The dictionary of a module that holds its own parameter or buffer `name`."""
    return module._parameters if name in module._parameters else module._buffers


def storage_number(tensor: torch.Tensor) -> int:
    """A number that tensors share exactly if they share memory; for fake tensors, whose addresses are all 0, too."""
    return int(tensor.untyped_storage()._cdata)


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """In the block, tensors have shapes and no memory, and torch does not log what it cannot follow."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with FakeTensorMode():
            yield
    finally:
        log.setLevel(level)
