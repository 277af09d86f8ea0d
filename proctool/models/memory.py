"""The memory that training takes at its peak, estimated from a model's graph without any of it being allocated."""

from __future__ import annotations

import contextlib
import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError
from proctool.models.components import hidden_matrices
from proctool.models.flops import chosen_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGIT_BYTES = 12
"""For each logit at once: its logarithm, and the gradients of both, in fp32."""


@dataclass(frozen=True)
class Layout:
    """How one step is spread."""

    micro: int
    """Samples that a device works on at once."""
    devices: int = 1
    sharded: bool = False
    """Fully sharded (FSDP2) rather than a whole model on every device (DDP)."""
    accumulates: bool = False
    """Whether a step has several micro-batches, so that gradients stand beside the activations of the next."""


@dataclass(frozen=True)
class Memory:
    """What training holds, in bytes where nothing else is said."""

    parameters: int
    """Their number."""
    trained: int
    """How many of them are trained."""
    whole: int
    """Parameters that a sharded device has whole for a moment: the embeddings, the layer at work and the next."""
    per_sample: int
    """Activations kept for the backward pass, for each sample of a micro-batch."""
    layer: int
    """Activations of one layer, for each sample: gradient checkpointing computes them again."""
    passing: int
    """Gradients of activations that a layer's backward pass has at once, for each sample."""
    copies: int
    """What is kept whatever the micro-batch: half-precision copies of weights."""
    length: int
    """Tokens in a sample."""
    width: int
    vocabulary: int
    half: bool
    """Whether products are in half precision."""
    checkpointing: bool
    logits_at_once: int
    single: int = 0
    """How many trained parameters have one moment instead of two: Muon's."""

    def state(self, layout: Layout) -> int:
        """Weights, AdamW's two moments and Muon's one, in fp32."""
        held = 4 * self.parameters + 8 * self.trained - 4 * self.single
        return -(-held // layout.devices) if layout.sharded else held

    def gradients(self, layout: Layout) -> int:
        """Gradients in fp32; DDP keeps them a second time, in its buckets."""
        held = 4 * self.trained
        if layout.devices == 1:
            return held
        return -(-held // layout.devices) if layout.sharded else 2 * held

    def logits(self, layout: Layout) -> int:
        """The chunk of logits at work, with what its gradients need."""
        rows = layout.micro * self.length
        at_once = min(rows, max(1, self.logits_at_once // self.vocabulary))
        held = _LOGIT_BYTES * at_once * self.vocabulary + 4 * rows * self.width
        if self.half:
            held += 2 * self.vocabulary * self.width
        if at_once < rows:  # the head's gradient, of one chunk and of all so far; the hidden states'
            held += 8 * self.vocabulary * self.width + 4 * rows * self.width
        return held

    def peak(self, layout: Layout) -> int:
        """All of it at the worst moment: where the backward pass begins, or where it ends."""
        gradients = self.gradients(layout)
        before = gradients
        if not layout.accumulates:  # before the backward pass there are none, apart from DDP's buckets
            before = gradients - 4 * self.trained if layout.devices > 1 and not layout.sharded else 0
        at_layer = layout.micro * self.passing
        at_last = at_layer + layout.micro * self.layer
        begins = before + self.copies + layout.micro * self.per_sample
        begins += max(self.logits(layout), at_last if self.checkpointing else at_layer)
        # Each of them whole, and its gradient.
        gathered = 8 * self.whole if layout.sharded and layout.devices > 1 else 0
        return self.state(layout) + gathered + max(begins, gradients + at_last)

    def largest_micro_batch(self, room: int, share: int, *, devices: int = 1, sharded: bool = False) -> int:
        """The most samples at once that fit into `room` bytes, of the divisors of a device's `share`; 0 if none."""
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
    """The memory of training `model` (on any device, meta too) on samples of `length` tokens, all of them targets.

    The forward pass is run on fake tensors, under autocast for bf16 and fp16, and what autograd keeps is added up,
    each storage once. With `checkpointing`, layers' inputs and one layer. `on_cpu` says where it will train: dropout
    inside attention keeps whole maps there. `lean` MLPs (models/faster.py) keep less; checkpointing goes without.
    """
    config = model.config
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    width, vocabulary = int(config.hidden_size), int(config.vocab_size)
    half = precision in ("bf16", "fp16")
    per_sample, copies = _kept(config.to_json_string(), length, precision, dropout, on_cpu, lean and not checkpointing)
    inner = int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width)
    if per_sample is None:
        # Attention and norms; and for each chosen expert its input, gate, other half, their product and its output.
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
    """How many trained parameters `optimizer` keeps one moment of instead of two."""
    if optimizer != "muon":
        return 0
    matrices = hidden_matrices(model)
    return sum(each.numel() for name, each in model.named_parameters() if each.requires_grad and name in matrices)


def _whole(model: PreTrainedModel, layers: int) -> int:
    """Parameters outside the stack of layers, and in two of them."""
    from proctool.models.components import components

    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    try:
        outside = sum(sizes[name] for name, place in components(model).items() if place.layer is None)
    except ModelError:
        outside = model.config.vocab_size * model.config.hidden_size
    return int(outside + 2 * (sum(sizes.values()) - outside) // layers)


@functools.lru_cache(maxsize=256)
def _kept(config: str, length: int, precision: str, dropout: float, on_cpu: bool, lean: bool) -> tuple[int | None, int]:
    """Bytes that autograd keeps of a forward pass through the body: for each sample, and whatever their number.

    (None, 0) for families that look at values (routed experts), which cannot be followed without them.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        two, four = (_traced(config, samples, length, precision, dropout, on_cpu, lean) for samples in (2, 4))
    except Exception:  # anything at all can go wrong in a forward pass without values
        return None, 0
    finally:
        log.setLevel(level)
    return (four - two) // 2, max(0, 2 * two - four)


def _traced(written: str, samples: int, length: int, precision: str, dropout: float, on_cpu: bool, lean: bool) -> int:
    """Bytes that autograd keeps of a forward pass of that many samples."""
    import json

    import torch
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    from proctool.models.attention import without_mask
    from proctool.models.build import config_of, set_dropout
    from proctool.models.faster import lean_mlp, one_gelu

    values = json.loads(written)
    config = config_of(values.pop("model_type"), values)
    # A GPU's kernels draw attention's dropout again in the backward pass.
    set_dropout(config, dropout if on_cpu else 0.0)
    kept: dict[int, Any] = {}
    own: set[int] = set()
    masked = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its address is not used again
        return tensor

    def count(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        nonlocal masked
        masked += given[0].numel()  # a byte each

    with FakeTensorMode():
        with no_init_weights():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.train()
        if dropout and not on_cpu:
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.register_forward_pre_hook(count)
        own.update(each.untyped_storage()._cdata for each in (*model.parameters(), *model.buffers()))
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
