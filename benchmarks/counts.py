"""Kernels, bytes and host waits of one training step, counted on fake tensors: no memory is taken, no GPU is needed.

`python -m benchmarks.counts [--ops 12]`. A step is what `training/engine.py` does: forward, loss, backward, clip and
AdamW. Each operation that computes counts as a kernel, and moves the bytes of all tensors that it is given and returns;
views count as nothing. A host wait is a number that Python asks of a tensor: a GPU is idle until it is known. Tensors
claim to be on a CPU, so what the code does for CUDA alone is not seen, nor how a library splits an operation up.

The second table is of one layer under torch.compile: the operations in its graphs, which the compiler fuses further.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from proctool.models.build import build_model, model_config
from proctool.models.faster import faster
from proctool.training.batch import Batch
from proctool.training.engine import Engine
from proctool.training.guard import Guard
from proctool.training.loss import TargetLoss
from proctool.training.optimiser import make_optimiser

_ASKS = torch.ops.aten._local_scalar_dense.default
_NO_KERNEL = ("aten.empty", "aten.detach", "aten._unsafe_view", "aten.new_empty", "prim.", "profiler.")


@dataclass(frozen=True)
class Workload:
    """A step whose cost is counted."""

    model: str
    """A preset, or layers x heads x width."""
    vocabulary: int
    samples: int
    """In one micro-batch."""
    length: int
    """Tokens of a sample."""
    targets: int
    """Targets of a sample."""
    precision: str
    family: str = "gpt2"


WORKLOADS = {
    "GPT-2 small, 32 x 1024": Workload("gpt2", 50257, 32, 1024, 1023, "bf16"),
    "1.3B, 2 x 2048": Workload("paper-large", 50257, 2, 2048, 2047, "bf16"),
    "haystack 2x4x16, 1000 x 62": Workload("2x4x16", 256, 1000, 62, 1, "fp32"),
}


@dataclass(frozen=True)
class StepCost:
    """What one step asks of a device."""

    kernels: int
    moved: int
    """Bytes read and written."""
    waits: int
    """Times that the host waits for the device."""
    by_operation: Mapping[str, tuple[int, int]]
    """Kernels and bytes of each."""


class Counting(TorchDispatchMode):
    """Counts what it sees on its way to the fake tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ASKS:
            self.waits += 1
            return args[0].dtype.is_floating_point * 1.0 or 1  # fake tensors have no values
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if not name.startswith(_NO_KERNEL) and not _is_view(func):
            self.kernels[name] += 1
            tensors = {id(each): each for each in _pytree.tree_leaves((args, kwargs, out)) if isinstance(each, Tensor)}
            self.moved[name] += sum(_bytes(each) for each in tensors.values())
        return out

    def cost(self) -> StepCost:
        names = {name: (count, self.moved[name]) for name, count in self.kernels.most_common()}
        return StepCost(sum(self.kernels.values()), sum(self.moved.values()), self.waits, names)


def _is_view(func: Any) -> bool:
    """Whether what it returns is its input, seen otherwise."""
    return any(found.alias_info is not None and not found.alias_info.is_write for found in func._schema.returns)


def _bytes(tensor: Tensor) -> int:
    """Of the elements that exist: those of an expanded dimension are one."""
    present = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(present) * tensor.element_size()


def step_cost(work: Workload, change: Callable[[Any], contextlib.AbstractContextManager[Any]] = faster) -> StepCost:
    """The cost of one step, after one that makes the optimiser's state. `change` is put around the model (faster)."""
    with fake_tensors():
        config = model_config(work.model, vocab_size=work.vocabulary, context=work.length, family=work.family)
        module = TargetLoss(build_model(config, seed=0).train())
        optimiser = make_optimiser(module, lr=1e-3, weight_decay=0.1, beta2=0.95)
        AcceleratorState._reset_state()
        precision = "bf16" if work.precision == "bf16" else "no"
        engine = Engine(Accelerator(cpu=True, device_placement=False, mixed_precision=precision), module, optimiser)
        guard = Guard(None)
        with change(module.model):
            with Counting():
                _step(engine, guard, 1, 8, 1)
            with Counting() as counter:
                _step(engine, guard, work.samples, work.length, work.targets)
        AcceleratorState._reset_state()
    return counter.cost()


def _step(engine: Engine, guard: Guard, samples: int, length: int, targets: int) -> None:
    chosen = torch.zeros(samples * targets, dtype=torch.long)
    batch = Batch(torch.zeros(samples, length, dtype=torch.long), chosen, chosen.clone())
    loss = engine.add_gradients(batch, samples * targets, is_last=True)
    guard.judge(loss, engine.clip_or_step(1.0))
    engine.step(guard.stopped)


@contextlib.contextmanager
def fake_tensors() -> Iterator[None]:
    """Fake tensors, taken by all code for real ones."""
    from torch.utils import _foreach_utils
    from transformers import masking_utils
    from transformers.initialization import no_init_weights

    with (
        mock.patch.object(masking_utils, "is_tracing", return_value=False),
        mock.patch.object(
            _foreach_utils, "_foreach_supported_types", [*_foreach_utils._foreach_supported_types, FakeTensor]
        ),
        mock.patch.object(TargetLoss, "_require_own_logits"),  # looks at values
        FakeTensorMode(),
        no_init_weights(),
    ):
        yield


def layer_operations(family: str) -> tuple[int, int]:
    """Operations in the forward and the backward graph of a compiled layer, in bf16; views count as nothing.

    Sizes do not matter to it, so the layer is small and real. Raises RuntimeError where a graph breaks.
    """
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.decomposition import select_decomp_table

    from proctool.training.compiling import compile_parts

    found: list[int] = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
        found.append(sum(hasattr(call, "_schema") and not _is_view(call) for call in calls))
        return make_boxed_func(graph.forward)  # type: ignore[no-any-return, no-untyped-call]

    model = build_model(model_config("5x2x64", vocab_size=32, context=16, family=family), seed=0).train()
    with faster(model), torch.autocast("cpu", torch.bfloat16):
        backend = aot_autograd(fw_compiler=count, bw_compiler=count, decompositions=select_decomp_table())
        compile_parts(model, backend=backend, fullgraph=True)
        model.base_model(input_ids=torch.zeros(2, 16, dtype=torch.long), use_cache=False)[0].sum().backward()
    if len(found) != 2:
        raise RuntimeError(f"{family}: {len(found)} graphs, not one forward and one backward")
    return found[0], found[1]


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", type=int, default=0, help="also show that many operations that move the most (0)")
    chosen = parser.parse_args()
    print("| one step | precision | kernels | GB moved | host waits |\n|---|---|---:|---:|---:|", flush=True)
    tables = {}
    for name, work in WORKLOADS.items():
        cost = tables[name] = step_cost(work)
        print(f"| {name} | {work.precision} | {cost.kernels} | {cost.moved / 1e9:.2f} | {cost.waits} |", flush=True)
    print("\n| compiled layer | forward operations | backward operations |\n|---|---:|---:|", flush=True)
    for family in ("gpt2", "llama", "qwen3"):
        forward, backward = layer_operations(family)
        print(f"| {family} | {forward} | {backward} |", flush=True)
    for name, cost in tables.items() if chosen.ops else ():
        print(f"\n| {name} | kernels | GB moved |\n|---|---:|---:|")
        for operation, (kernels, moved) in sorted(cost.by_operation.items(), key=lambda each: -each[1][1])[
            : chosen.ops
        ]:
            print(f"| {operation} | {kernels} | {moved / 1e9:.2f} |")


if __name__ == "__main__":
    main()
