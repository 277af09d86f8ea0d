"""Writes checkpoints while training continues: tensors are copied, and a thread writes the copies."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor


class HostCopies:
    """Copies of tensors in host memory, in buffers that are reused.

    Copies from an accelerator go to pinned memory without waiting. This is safe because later changes of a tensor are
    queued after its copy.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._event: torch.cuda.Event | None = None

    def take(self, name: str, tensor: Tensor) -> Tensor:
        """Copy `tensor` into the buffer `name` and return the buffer, which is complete after `wait`."""
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
        """Wait until all copies are complete."""
        if self._event is not None:
            self._event.synchronize()


class Background:
    """Runs one job at a time in a thread. A job's error is raised by the next method call."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Wait for the previous job, then run `job` in a thread."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint")
        self._thread.start()

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        """Raise the error of a job that has failed, without waiting for one that is still running."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until no job is running. Raises the job's error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
