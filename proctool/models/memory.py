"""The memory that training takes at its peak, estimated from a model's graph without any of it being allocated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_LAYER_VALUES = 34
"""Values that a layer keeps for a token and unit of width, where the graph cannot be followed (routed experts)."""


@dataclass(frozen=True)
class Memory:
    """What one device holds, in bytes. Multiply `per_sample` by the micro-batch."""

    parameters: int
    trained: int
    per_sample: int
    """Activations kept for the backward pass."""
    logits: int
    """Logits held at once, their logarithms and gradients, and the head's gradient where they come in chunks."""

    def state(self, devices: int = 1, *, sharded: bool = False) -> int:
        """Weights, gradients and AdamW's two moments in fp32; DDP keeps gradients a second time, in its buckets."""
        whole = 4 * self.parameters + 12 * self.trained
        if devices == 1:
            return whole
        return -(-whole // devices) if sharded else whole + 4 * self.trained

    def peak(self, micro: int, devices: int = 1, *, sharded: bool = False) -> int:
        """The estimate for a micro-batch of `micro` samples."""
        return self.state(devices, sharded=sharded) + micro * self.per_sample + self.logits

    def largest_micro_batch(self, room: int, devices: int = 1, *, sharded: bool = False) -> int:
        """The most samples at once that fit into `room` bytes; 0 where not even one does."""
        left = room - self.peak(0, devices, sharded=sharded)
        return max(0, left // max(self.per_sample, 1))


def training_memory(
    config: PretrainedConfig,
    *,
    length: int,
    micro: int,
    precision: str = "fp32",
    checkpointing: bool = False,
    parameters: int,
    trained: int,
    logits_at_once: int,
) -> Memory:
    """The memory of training `config` on samples of `length` tokens, `micro` at a time.

    The forward pass is run on fake tensors, under autocast for bf16 and fp16, and what autograd keeps is added up,
    each storage once. With `checkpointing`, layers' inputs and one layer. Raises ModelError.
    """
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    width, vocabulary = int(config.hidden_size), int(config.vocab_size)
    half = 2 if precision in ("bf16", "fp16") else 4
    try:
        kept = _kept(config, length, precision) // 2
    except ModelError:
        raise
    except Exception:  # families that look at values (routed experts) cannot be followed without them
        kept = layers * _LAYER_VALUES * width * length * half
    if checkpointing:
        kept = layers * length * width * 4 + kept // layers
    rows = min(micro * length, max(1, logits_at_once // vocabulary))
    logits = rows * vocabulary * (8 + half)
    if rows < micro * length:
        logits += 4 * width * (2 * vocabulary + micro * length)
    return Memory(parameters, trained, kept, logits)


def _kept(config: PretrainedConfig, length: int, precision: str) -> int:
    """Bytes that autograd keeps of a forward pass of two samples through the body."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    kept: dict[int, Any] = {}
    own: set[int] = set()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its address is not used again
        return tensor

    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    with FakeTensorMode():
        with no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.train()
        own.update(each.untyped_storage()._cdata for each in (*model.parameters(), *model.buffers()))
        tokens = torch.zeros((2, length), dtype=torch.long)
        with (
            torch.autocast("cpu", kind, enabled=precision in ("bf16", "fp16")),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    del hidden
    return sum(int(storage.nbytes()) for storage in kept.values())
