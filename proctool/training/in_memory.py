"""Trains and scores a module in memory, without a run folder, for the Python API.

The module's forward must take token ids (B, L) as its first argument. It must return logits (B, L, V), an object with
`.logits`, or a tuple whose first element is the logits. The module stays on its device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from proctool.errors import ModelError, RunError
from proctool.events import Event, TrainEvent
from proctool.procedural.samples import Samples
from proctool.training.batch import Batch
from proctool.training.evaluate import Scores, means, sums
from proctool.training.optimiser import make_optimiser
from proctool.training.options import TrainingOptions
from proctool.training.schedule import learning_rate
from proctool.training.sources import Source


def logits_of(module: nn.Module, tokens: Tensor) -> Tensor:
    """The module's logits at every position: (B, L) -> (B, L, V). Raises ModelError."""
    cached = getattr(getattr(module, "config", None), "use_cache", None) is not None
    try:
        output: Any = module(tokens, use_cache=False) if cached else module(tokens)
    except IndexError as error:  # usually an embedding that is too small
        raise ModelError(
            f"{type(module).__name__}: its embeddings are too small for token ids up to {int(tokens.max())} or for "
            f"{tokens.shape[1]} positions ({error})"
        ) from None
    logits = getattr(output, "logits", output)
    logits = logits[0] if isinstance(logits, tuple) else logits
    if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != tokens.shape:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"{type(module).__name__}: forward gives {found}, not logits of shape (batch, length, vocabulary) for "
            f"token ids of shape {tuple(tokens.shape)}"
        )
    return logits


def target_logits(module: nn.Module, batch: Batch) -> Tensor:
    """The logits from which a batch's targets are predicted, in float32: (T, V). Raises ModelError."""
    logits = logits_of(module, batch.tokens)
    if batch.labels.numel() and int(batch.labels.max()) >= logits.shape[-1]:
        raise ModelError(
            f"{type(module).__name__}: has logits for {logits.shape[-1]} tokens, but token {int(batch.labels.max())} "
            "is a target; give the model a vocabulary at least as large as the task's"
        )
    return logits.flatten(0, 1).index_select(0, batch.positions).float()


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's first parameter."""
    return next(module.parameters()).device


def score(module: nn.Module, source: Source, samples: int, batch: int) -> Scores:
    """Score the first `samples` samples of `source`, `batch` at a time. The module's training mode does not change.

    Raises ModelError.
    """
    device = device_of(module)
    totals = torch.zeros(4, dtype=torch.float64)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for start in range(0, samples, batch):
                part = Batch.of(source.read(start, min(start + batch, samples)), device)
                logits = target_logits(module, part)
                losses = functional.cross_entropy(logits, part.labels, reduction="none")
                totals += sums(part, losses, logits.argmax(-1) == part.labels).cpu()
    finally:
        module.train(was_training)
    return means(totals, samples)


def train(
    module: nn.Module, source: Source, options: TrainingOptions, listen: Callable[[Event], None] = lambda event: None
) -> None:
    """Train `module` in place: AdamW on the loss of target tokens, on the same samples as `proctool warmup`.

    It uses these options: steps, batch_size, accumulate, lr, schedule, ramp_steps, final_lr, weight_decay, beta2, clip,
    precision (fp32 or bf16), seed and log_every. `listen` gets a TrainEvent every `log_every` steps. Raises ModelError,
    and RunError if the loss or its gradient is not finite.
    """
    device = device_of(module)
    optimiser = make_optimiser(module, lr=options.lr, weight_decay=options.weight_decay, beta2=options.beta2)
    was_training = module.training
    module.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(options.seed)  # dropout
        try:
            _steps(module, optimiser, source, options, listen)
        finally:
            module.train(was_training)
            optimiser.zero_grad()


def _steps(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    source: Source,
    options: TrainingOptions,
    listen: Callable[[Event], None],
) -> None:
    device = device_of(module)
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    micro = options.batch_size // options.accumulate
    began = asked = time.monotonic()
    for step in range(options.steps):
        rate = learning_rate(
            step, steps=options.steps, peak=options.lr, schedule=options.schedule,
            ramp_steps=options.ramp_steps, final=options.final_lr,
        )  # fmt: skip
        for group in optimiser.param_groups:
            group["lr"] = rate
        samples = source.read(step * options.batch_size, (step + 1) * options.batch_size)
        targets = int(samples.targets[:, 1:].sum())
        loss = 0.0
        for start in range(0, len(samples), micro):
            part = Samples(samples.tokens[start : start + micro], samples.targets[start : start + micro])
            batch = Batch.of(part, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                logits = target_logits(module, batch)
            share = functional.cross_entropy(logits, batch.labels, reduction="sum") / targets
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach().item()
        norm = float(nn.utils.clip_grad_norm_(trained, options.clip or math.inf))
        if not math.isfinite(norm):
            raise RunError(
                f"step {step + 1}: the gradient is not finite (loss {loss:g}), so the model is left as it was before "
                "this step; lower lr, or set clip"
            )
        optimiser.step()
        optimiser.zero_grad()
        done = step + 1
        if done % options.log_every == 0 or done == options.steps:
            now = time.monotonic()
            tokens = options.batch_size * source.length
            taken = done % options.log_every or options.log_every
            listen(
                TrainEvent(
                    step=done,
                    tokens=done * tokens,
                    loss=loss,
                    lr=rate,
                    grad_norm=norm,
                    tokens_per_second=round(taken * tokens / max(now - asked, 1e-9)),
                    seconds=round(now - began, 3),
                )
            )
            asked = now
