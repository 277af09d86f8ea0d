"""The loss of the output head and its gradients on accelerators, in few and fast kernels.

Shapes: T target tokens, D width, V vocabulary, S the vocabulary padded to a multiple of 64, R rows of one chunk.

Matrix products run in the autocast precision. Rows of logits have the length S, because rows of 50257 bf16 numbers
would not be aligned and matrix products would use slow kernels. One compiled kernel replaces logits by their gradient,
softmax minus one-hot. It computes the sum of the softmax in one pass (Milakov and Gimelshein 2018, "Online normalizer
calculation for softmax"). The gradient of the weight is summed in fp32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from proctool.errors import first_line, notice

_MULTIPLE = 64
"""The length of a row of logits is a multiple of this."""
_FEW = 1 << 22
"""With fewer logits, autograd is as fast, and compiling a kernel takes more time than it saves."""
_LEAST, MOST = 1 << 25, 1 << 29
"""Bounds of the bytes of logits computed at once. A product of 512 MiB keeps a GPU busy for milliseconds; larger chunks
would only use more memory."""
_SHARE = 16
"""Logits may take this fraction of the memory: a sixteenth."""
_EAGER = 1 << 25
"""Logits computed at once without a compiled kernel, which then needs several fp32 arrays of that size."""

Kernel = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Bend:
    """Logit post-processing of a family: Gemma 2 caps logits, Cohere and Granite scale them."""

    cap: float | None = None
    factors: tuple[float, ...] = ()
    divisor: float = 1.0

    @classmethod
    def of(cls, config: Any) -> Bend:
        """Read it from a model's configuration."""
        cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
        named = (getattr(config, name, None) for name in ("logit_scale", "lm_head_multiplier"))
        factors, divisor = [factor for factor in named if factor], 1.0
        if scaling := getattr(config, "logits_scaling", None):  # Granite divides by it, HyperCLOVA X multiplies
            if config.model_type == "hyperclovax":
                factors.append(scaling)
            else:
                divisor = scaling
        return cls(cap or None, tuple(factors), divisor)

    def __call__(self, logits: Tensor) -> Tensor:
        """The processed logits, in the same shape."""
        if self.cap:
            logits = self.cap * torch.tanh(logits / self.cap)
        for factor in self.factors:
            logits = logits * factor
        return logits / self.divisor if self.divisor != 1 else logits

    def slope(self, logits: Tensor) -> Tensor | float:
        """The derivative at the given logits."""
        scale = math.prod(self.factors) / self.divisor
        return scale * (1 - torch.tanh(logits / self.cap) ** 2) if self.cap else scale


def is_faster(head: nn.Module, hidden: Tensor, vocabulary: int) -> bool:
    """Whether `fused_loss` is faster than autograd for these hidden states (T, D)."""
    return hidden.device.type != "cpu" and type(head) is nn.Linear and len(hidden) * vocabulary >= _FEW


@functools.cache  # once per process: free memory varies, and a step must not query the device
def logit_bytes(device: torch.device, deterministic: bool) -> int:
    """Bytes of logits to compute at once on a GPU: a power of two that depends on the memory that is free now.

    With deterministic algorithms it depends on the total memory instead, because the number of chunks changes rounding.
    """
    room, whole = torch.cuda.mem_get_info(device)
    room += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fitting = (whole if deterministic else room) // _SHARE
    return min(max(1 << max(0, fitting.bit_length() - 1), _LEAST), MOST)


def fused_loss(hidden: Tensor, labels: Tensor, head: nn.Linear, bend: Bend, at_once: int | None = None) -> Tensor:
    """The summed cross-entropy in nats of hidden states (T, D) and labels (T,); () float32.

    `at_once` is the number of logits to compute at once (default: by the device's memory).
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
    with torch.autocast(kind, enabled=False):
        return _FusedLoss.apply(hidden, labels, head.weight, head.bias, dtype, bend, at_once)  # type: ignore[no-any-return, no-untyped-call]


class _FusedLoss(torch.autograd.Function):
    """Computes gradients chunk by chunk in the forward pass, while each chunk's logits exist."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, bend: Bend,
        at_once: int | None,
    ) -> Tensor:  # fmt: skip
        vocabulary, stride = len(weight), -(-len(weight) // _MULTIPLE) * _MULTIPLE
        kernel, is_compiled = _kernel(hidden.device, dtype, vocabulary, bias is not None, bend)
        if at_once is None and is_compiled:
            at_once = logit_bytes(hidden.device, torch.are_deterministic_algorithms_enabled()) // dtype.itemsize
        rows = _rows(len(labels), max(1, (at_once or _EAGER) // stride))
        inputs, weights = hidden.to(dtype), _padded(weight, stride, dtype)  # (T, D), (S, D): cast once, not per chunk
        shift = None if bias is None else _padded(bias, stride, torch.float32)  # (S,)
        logits = torch.empty((rows, stride), dtype=dtype, device=hidden.device)
        loss = torch.zeros((), device=hidden.device)
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.needs_input_grad[3]
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_hidden = torch.empty_like(inputs) if to_hidden else None
        grad_weight = torch.zeros((stride, weight.shape[1]), dtype=wide, device=hidden.device) if to_weight else None
        grad_bias = torch.zeros(stride, dtype=wide, device=hidden.device) if to_bias else None
        for start in range(0, len(labels), rows):
            chunk = slice(start, start + rows)
            part = inputs[chunk]  # (R, D)
            at_work = logits[: len(part)]  # (R, S)
            torch.mm(part, weights.t(), out=at_work)
            loss += kernel(at_work, labels[chunk], shift).sum()  # from here on, at_work holds the logits' gradient
            if grad_hidden is not None:
                torch.mm(at_work, weights, out=grad_hidden[chunk])
            if grad_weight is not None:
                _add_product(grad_weight, at_work, part)
            if grad_bias is not None:
                grad_bias += at_work.sum(0, dtype=grad_bias.dtype)
        grad_hidden = None if grad_hidden is None else grad_hidden.to(hidden.dtype)
        ctx.save_for_backward(
            grad_hidden,
            None if grad_weight is None else grad_weight[:vocabulary],
            None if grad_bias is None else grad_bias[:vocabulary],
        )
        return loss

    @staticmethod
    def backward(ctx: Any, *coming: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, of_weight, of_bias = (None if each is None else each * coming[0] for each in ctx.saved_tensors)
        return of_hidden, None, of_weight, of_bias, None, None, None


def _rows(targets: int, most: int) -> int:
    """Rows per chunk, at most `most`: chunks of equal size and, if possible, whole tiles of a matrix product."""
    even = -(-targets // -(-targets // most)) if targets else 1
    return min(-(-even // 128) * 128, most, max(targets, 1))


def _padded(tensor: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """The tensor in `dtype`, with its first dimension padded by zeros: (V, ...) -> (length, ...)."""
    if len(tensor) == length:
        return tensor.detach().to(dtype)
    padded = torch.empty((length, *tensor.shape[1:]), dtype=dtype, device=tensor.device)
    padded[: len(tensor)].copy_(tensor)
    padded[len(tensor) :].zero_()
    return padded


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add the product of the transposed (R, S) and (R, D) to `total` (S, D), in the higher precision of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left.t(), right)
    elif _adds_in_fp32(left.device):
        torch.addmm(total, left.t(), right, out_dtype=total.dtype, out=total)
    else:
        total += left.t() @ right


@functools.cache
def _adds_in_fp32(device: torch.device) -> bool:
    """Whether a half-precision matrix product can be added to an fp32 matrix without rounding in between."""
    known = hasattr(torch.ops.aten.addmm, "dtype_out") and torch.version.cuda is not None
    return known and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def _to_gradient(logits: Tensor, labels: Tensor, bias: Tensor | None, vocabulary: int, bend: Bend) -> Tensor:
    """The cross-entropy of each row of logits (R, S) and its label, (R,) float32. Overwrites logits by their gradient.

    A negative label marks padding; its row has no loss and no gradient.
    """
    counted = labels >= 0
    labels = labels.clamp(min=0)
    plain = logits.float() if bias is None else logits.float() + bias
    bent = bend(plain)
    bent[:, vocabulary:] = -math.inf  # exclude padded columns
    shares = torch.log_softmax(bent, -1)
    losses = -shares.gather(1, labels[:, None]).squeeze(1) * counted
    shares.exp_()
    if torch.compiler.is_compiling():  # a comparison is fused into the kernel, a scatter would not be
        shares = shares - (torch.arange(logits.shape[1], device=logits.device) == labels[:, None]).float()
    else:
        shares.scatter_add_(1, labels[:, None], torch.full_like(losses, -1)[:, None])
    logits.copy_((shares * bend.slope(plain) if bend != Bend() else shares) * counted[:, None])
    return losses


@functools.cache
def _kernel(
    device: torch.device, dtype: torch.dtype, vocabulary: int, has_bias: bool, bend: Bend
) -> tuple[Kernel, bool]:
    """`_to_gradient` for a device, and whether it is compiled (on CUDA, if possible)."""
    kernel: Kernel = functools.partial(_to_gradient, vocabulary=vocabulary, bend=bend)
    stride = -(-vocabulary // _MULTIPLE) * _MULTIPLE
    compiled = _compiled(kernel, device, dtype, stride, has_bias) if device.type == "cuda" else None
    return compiled or kernel, compiled is not None


def _compiled(kernel: Kernel, device: torch.device, dtype: torch.dtype, stride: int, has_bias: bool) -> Kernel | None:
    """Compile the kernel and try it. Returns None, with a notice, if that fails."""
    bias = torch.zeros(stride, device=device) if has_bias else None
    try:  # a compiler can be missing or fail in many ways
        compiled: Kernel = torch.compile(kernel)
        for rows in (2, 3):  # after two different numbers of rows, the compiled kernel accepts any
            logits = torch.zeros((rows, stride), dtype=dtype, device=device)
            compiled(logits, torch.zeros(rows, dtype=torch.long, device=device), bias)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        notice(f"the loss runs without torch.compile, which fails here ({first_line(error)})")
        return None
    return compiled
