"""The stack transduction: pushes and pops, then what is left."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from proctool.procedural.draws import Mask
from proctool.procedural.registry import require, task
from proctool.procedural.samples import Samples
from proctool.procedural.transduction import Transduction

_LIKELY = 0.75


@task("stack")
@dataclass(frozen=True)
class Stack(Transduction):
    """The final stack, top first, after pushes and pops.

        tokens   7 3 POP 9 5 POP | 9 7 _ _ _ _      (n, 2 * inputs + 1)
        targets  . . .   . . .   . x x . . . .

    A pushed symbol is drawn uniformly from those not on the stack. With at most one element on the stack, push.
    Otherwise push with probability 3/4 in the first two thirds of the steps, and pop with probability 3/4 in the last
    third. The last step pops if the stack has more than one element; a stack with all symbols always pops.

    Source: Procedural Pretraining (arXiv 2601.21725), section 3.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.symbols >= 3, self, "symbols", "must be at least 3: POP and two to push")

    @property
    def min_entropy_bits(self) -> float:
        """-log2 of the exact probability of the likeliest sequence of operations and symbols."""
        return _min_entropy_bits(self.inputs, self.symbols)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw n samples."""
        pushes, depth = self._walk(rng, n)
        # Each row has the stack of a sample, bottom first, then the other symbols in any order. A push swaps one of
        # those to the top; a pop only moves the top.
        free = self.symbols - 1
        rows = np.tile(np.arange(1, self.symbols, dtype=self.dtype), n)
        end = np.arange(free, n * free + 1, free)
        rows = np.append(
            rows, rows[:1]
        )  # room for the top of a full stack; a full stack pops, so the cell is never used
        top = end - free
        uniform = rng.random((self.inputs, n), dtype=np.float32)
        operations = np.zeros((self.inputs, n), self.dtype)
        for step, pushing in enumerate(pushes):
            chosen = (uniform[step] * ((end - top) * pushing)).astype(np.intp)
            chosen += top
            symbol = rows.take(chosen)
            rows[chosen] = rows.take(top)
            rows[top] = symbol
            np.multiply(symbol, pushing, out=operations[step])
            top += pushing
            top -= ~pushing
        deepest = min(self.inputs, free)
        stacks = rows[:-1].reshape(n, free)[:, :deepest][:, ::-1]
        kept = np.arange(deepest - 1, -1, -1) < depth[:, None]
        return self.written(np.ascontiguousarray(operations.T), output=stacks, kept=kept)

    def _walk(self, rng: np.random.Generator, n: int) -> tuple[Mask, np.ndarray[tuple[int], np.dtype[np.int32]]]:
        """Which steps push, (inputs, n), and the final depth, (n,)."""
        uniform = rng.random((self.inputs, n), dtype=np.float32)
        pushes = np.empty(uniform.shape, bool)
        depth = np.zeros(n, np.int32)
        for step, pushing in enumerate(pushes):
            np.less(uniform[step], _push_probability(step, self.inputs), out=pushing)
            pushing |= depth < 2
            pushing &= depth < self.symbols - 1
            depth += pushing
            depth -= ~pushing
        return pushes, depth


def _push_probability(step: int, steps: int) -> float:
    """Probability of a push at `step` of 0..steps-1 when push and pop are both allowed."""
    if step == steps - 1:
        return 0.0
    return _LIKELY if step < 2 * steps // 3 else 1 - _LIKELY


@functools.lru_cache
def _min_entropy_bits(steps: int, symbols: int) -> float:
    bits = {0: 0.0}  # the smallest sum so far that leads to each depth
    for step in range(steps):
        likely = _push_probability(step, steps)
        onward: dict[int, float] = {}
        for depth, spent in bits.items():
            push = 1.0 if depth < 2 else likely if depth < symbols - 1 else 0.0
            if push > 0:
                cost = spent - math.log2(push) + math.log2(symbols - 1 - depth)
                onward[depth + 1] = min(cost, onward.get(depth + 1, math.inf))
            if push < 1:
                onward[depth - 1] = min(spent - math.log2(1 - push), onward.get(depth - 1, math.inf))
        bits = onward
    return min(bits.values())
