"""Writing checkpoints beside training: tensors are copied, a thread writes the copies."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor


class HostCopies:
    """Copies of tensors in the host's memory, in buffers that are used again and again.

    From an accelerator into pinned memory and without waiting: what changes a tensor later is queued behind its copy.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._event: torch.cuda.Event | None = None

    def take(self, name: str, tensor: Tensor) -> Tensor:
        """The buffer of that name, into which `tensor` is copied; whole once `wait` returns."""
        tensor = tensor.detach()
        buffer = self._buffers.get(name)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        buffer.copy_(tensor, non_blocking=True)
        if tensor.is_cuda:
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        return buffer

    def wait(self) -> None:
        """Return once the host holds every copy."""
        if self._event is not None:
            self._event.synchronize()


class Background:
    """One job at a time in a thread. Its error is raised by the next call of a method here."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Run `job` in a thread, after the one before."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint")
        self._thread.start()

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        """Raise what a job that has ended raised, without waiting for one that has not."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when no job is running."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
