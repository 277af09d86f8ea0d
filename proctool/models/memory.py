"""Estimates the peak memory of training from a model's graph, without allocating it."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError
from proctool.internals.of_torch import fake_tensors, storage_number
from proctool.internals.of_transformers import without_initialising
from proctool.models.components import hidden_matrices
from proctool.models.flops import chosen_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGIT_BYTES = 12
"""Bytes per logit of a chunk, in fp32: the log-probability, its gradient and the gradient of the logit."""


@dataclass(frozen=True)
class Layout:
    """How a step is split over devices and micro-batches."""

    micro: int
    """Samples per device in one micro-batch."""
    devices: int = 1
    sharded: bool = False
    """Fully sharded (FSDP2), rather than the whole model on every device (DDP)."""
    accumulates: bool = False
    """Whether a step has several micro-batches. Gradients then share memory with the next one's activations."""


@dataclass(frozen=True)
class Memory:
    """What training keeps in memory, in bytes unless stated otherwise."""

    parameters: int
    """Number of parameters."""
    trained: int
    """Number of trained parameters."""
    whole: int
    """Number of parameters that a sharded device gathers at once: embeddings, the current layer and the next."""
    per_sample: int
    """Activations saved for the backward pass, per sample of a micro-batch."""
    layer: int
    """Activations of one layer per sample, which gradient checkpointing computes again."""
    passing: int
    """Gradients of activations that exist at once in a layer's backward pass, per sample."""
    copies: int
    """Half-precision copies of weights; independent of the micro-batch."""
    length: int
    """Tokens in a sample."""
    width: int
    vocabulary: int
    half: bool
    """Whether matrix products run in half precision."""
    checkpointing: bool
    logits_at_once: int
    single: int = 0
    """Number of trained parameters with one moment instead of two (Muon)."""

    def state(self, layout: Layout) -> int:
        """Bytes per device of the weights and the moments (two for AdamW, one for Muon), in fp32."""
        held = 4 * self.parameters + 8 * self.trained - 4 * self.single
        return -(-held // layout.devices) if layout.sharded else held

    def gradients(self, layout: Layout) -> int:
        """Bytes per device of the gradients in fp32. DDP keeps a second copy, in its buckets."""
        held = 4 * self.trained
        if layout.devices == 1:
            return held
        return -(-held // layout.devices) if layout.sharded else 2 * held

    def logits(self, layout: Layout) -> int:
        """Bytes of the current chunk of logits and of its gradients."""
        rows = layout.micro * self.length
        at_once = min(rows, max(1, self.logits_at_once // self.vocabulary))
        held = _LOGIT_BYTES * at_once * self.vocabulary + 4 * rows * self.width
        if self.half:
            held += 2 * self.vocabulary * self.width
        if at_once < rows:  # gradients of the head (of this chunk, and the sum) and of the hidden states
            held += 8 * self.vocabulary * self.width + 4 * rows * self.width
        return held

    def peak(self, layout: Layout) -> int:
        """Bytes per device at the peak, which is at the beginning or at the end of the backward pass."""
        gradients = self.gradients(layout)
        before = gradients
        if not layout.accumulates:  # before the backward pass, only DDP's buckets exist
            before = gradients - 4 * self.trained if layout.devices > 1 and not layout.sharded else 0
        at_layer = layout.micro * self.passing
        at_last = at_layer + layout.micro * self.layer
        begins = before + self.copies + layout.micro * self.per_sample
        begins += max(self.logits(layout), at_last if self.checkpointing else at_layer)
        # Gathered parameters and their gradients, in fp32.
        gathered = 8 * self.whole if layout.sharded and layout.devices > 1 else 0
        return self.state(layout) + gathered + max(begins, gradients + at_last)

    def largest_micro_batch(self, room: int, share: int, *, devices: int = 1, sharded: bool = False) -> int:
        """The largest micro-batch that divides a device's `share` of samples and fits into `room` bytes; 0 if none."""
        fitting = (
            micro
            for micro in range(share, 0, -1)
            if share % micro == 0 and self.peak(Layout(micro, devices, sharded, micro < share)) <= room
        )
        return next(fitting, 0)


def training_memory(
    model: PreTrainedModel,
    *,
    length: int,
    logits_at_once: int,
    precision: str = "fp32",
    dropout: float = 0.0,
    checkpointing: bool = False,
    on_cpu: bool = False,
    lean: bool = True,
    optimizer: str = "adamw",
) -> Memory:
    """Estimate the memory of training `model` on samples of `length` tokens, all of which are targets.

    The model may be on any device, including meta. The forward pass runs on fake tensors, under autocast for bf16 and
    fp16, and the storages that autograd saves are added up. With `checkpointing`, only the layers' inputs and one layer
    count. `on_cpu` states where the model will train: on CPUs, dropout in attention saves whole attention maps. `lean`
    MLPs (models/faster.py) save less; they are not used with checkpointing.
    """
    config = model.config
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    width, vocabulary = int(config.hidden_size), int(config.vocab_size)
    half = precision in ("bf16", "fp16")
    per_sample, copies = _kept(config.to_json_string(), length, precision, dropout, on_cpu, lean and not checkpointing)
    inner = int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width)
    if per_sample is None:
        # Attention and norms, and per chosen expert its input, gate, up projection, their product and its output.
        routed = chosen_experts(config) * (2 * width + 4 * int(getattr(config, "moe_intermediate_size", None) or inner))
        per_sample = layers * length * (10 * width + routed) * (2 if half else 4)
    return Memory(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        whole=_whole(model, layers),
        per_sample=layers * length * width * 4 if checkpointing else per_sample,
        layer=per_sample // layers,
        passing=2 * inner * length * (2 if half else 4),
        copies=copies,
        length=length,
        width=width,
        vocabulary=vocabulary,
        half=half,
        checkpointing=checkpointing,
        logits_at_once=logits_at_once,
        single=single_moments(model, optimizer),
    )


def single_moments(model: PreTrainedModel, optimizer: str) -> int:
    """Number of trained parameters for which `optimizer` keeps one moment instead of two."""
    if optimizer != "muon":
        return 0
    matrices = hidden_matrices(model)
    return sum(each.numel() for name, each in model.named_parameters() if each.requires_grad and name in matrices)


def _whole(model: PreTrainedModel, layers: int) -> int:
    """Number of parameters outside the layers and in two layers."""
    from proctool.models.components import components

    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    try:
        outside = sum(sizes[name] for name, place in components(model).items() if place.layer is None)
    except ModelError:
        outside = model.config.vocab_size * model.config.hidden_size
    return int(outside + 2 * (sum(sizes.values()) - outside) // layers)


@functools.lru_cache(maxsize=256)
def _kept(config: str, length: int, precision: str, dropout: float, on_cpu: bool, lean: bool) -> tuple[int | None, int]:
    """Bytes that autograd saves in a forward pass of the body: per sample, and independent of the number of samples.

    (None, 0) for families whose computation depends on values (routed experts), because fake tensors have none.
    """
    try:
        two, four = (_traced(config, samples, length, precision, dropout, on_cpu, lean) for samples in (2, 4))
    except Exception:  # a forward pass on fake tensors can fail in any way
        return None, 0
    return (four - two) // 2, max(0, 2 * two - four)


def _traced(written: str, samples: int, length: int, precision: str, dropout: float, on_cpu: bool, lean: bool) -> int:
    """Bytes that autograd saves in a forward pass of `samples` samples."""
    import json

    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    from proctool.models.attention import without_mask
    from proctool.models.build import config_of, set_dropout
    from proctool.models.faster import lean_mlp, one_gelu

    values = json.loads(written)
    config = config_of(values.pop("model_type"), values)
    # On GPUs, attention kernels draw dropout again in the backward pass instead of saving it.
    set_dropout(config, dropout if on_cpu else 0.0)
    kept: dict[int, Any] = {}
    own: set[int] = set()
    masked = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (number := storage_number(tensor)) not in own:
            kept[number] = tensor.untyped_storage()  # keep it alive, so that its number is not reused
        return tensor

    def count(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        nonlocal masked
        masked += given[0].numel()  # one byte per element of a dropout mask

    with fake_tensors():
        with without_initialising():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.train()
        if dropout and not on_cpu:
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.register_forward_pre_hook(count)
        own.update(storage_number(each) for each in (*model.parameters(), *model.buffers()))
        tokens = torch.zeros((samples, length), dtype=torch.long)
        with (
            one_gelu(model),
            lean_mlp(model) if lean else contextlib.nullcontext(),
            without_mask(model),
            torch.autocast(
                "cpu",
                torch.float16 if precision == "fp16" else torch.bfloat16,
                enabled=precision in ("bf16", "fp16"),
            ),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    del hidden
    return masked + sum(int(storage.nbytes()) for storage in kept.values())
