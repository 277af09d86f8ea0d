"""Stands for CUDA graphs on a CPU: the operations of a function on the memory they used, to be run once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _memory(value: Any) -> dict[int, torch.Tensor]:
    return {each.untyped_storage().data_ptr(): each for each in tree_leaves(value) if isinstance(each, torch.Tensor)}


class _Operations(TorchDispatchMode):
    """Keeps operations with their tensors, and what the memory held that they found there."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Any, Any, Any, Any]] = []
        self._own: set[int] = set()
        self.found: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            raise RuntimeError("operation not permitted when stream is capturing")
        given = _memory((args, kwargs))
        for place, tensor in given.items():
            if place not in self._own and place not in self.found:
                self.found[place] = (tensor.untyped_storage(), tensor.untyped_storage().clone())
        out = func(*args, **kwargs)
        self._own |= _memory(out).keys() - given.keys() - self.found.keys()
        self.made.append((func, args, kwargs, out))
        return out


class OperationCapture:
    """As `CudaCapture`: what Python does beside the operations happens at the recording alone."""

    def __init__(self) -> None:
        self.warmed = self.recorded = self.replayed = 0

    def warm(self, body: Callable[[], None]) -> None:
        self.warmed += 1
        body()

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        operations, random = _Operations(), torch.get_rng_state()
        try:
            with operations:
                body()
        finally:  # a recording runs nothing
            for storage, before in operations.found.values():
                storage.copy_(before)
            torch.set_rng_state(random)

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for func, args, kwargs, out in operations.made:
                given = _memory((args, kwargs))
                for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and old.untyped_storage().data_ptr() not in given:
                        old.detach().copy_(new)

        return replay


class NoCapture:
    """Every step is run as it is written."""

    def warm(self, body: Callable[[], None]) -> None:
        body()

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        return body
