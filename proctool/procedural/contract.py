"""Rules that every task must keep, checked by `proctool generate TASK --check` and by the tests.

A rule takes a task and yields one line for each violation.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from proctool.errors import OptionError, ProctoolError, first_line, one_line
from proctool.procedural.controls import Control, as_mapping
from proctool.procedural.mixture import Mixture, parse_tasks
from proctool.procedural.registry import Task, build_task, option_help, task_class
from proctool.procedural.render import spelling
from proctool.procedural.samples import Samples
from proctool.procedural.streams import BLOCK, SPLITS, Stream, content_hash
from proctool.procedural.task_code import block_hash

Rule = Callable[[Task], Iterator[str]]

_CHANCE_BITS = 30
"""Bits of entropy above which two blocks of samples share a sequence in less than one of 1000 cases."""
_FEW, _SOME, _MANY = 16, 300, 4000
_MOST_TOKENS = 1 << 22


@dataclass(frozen=True)
class Broken:
    """A rule that a task breaks."""

    rule: str
    reason: str

    def __str__(self) -> str:
        return one_line(f"{self.rule}: {self.reason}")


def broken_rules(task: Task) -> list[Broken]:
    """Every rule that the task breaks. An exception in its code also breaks a rule."""
    found = []
    for name, rule in RULES.items():
        try:
            found += [Broken(name, reason) for reason in rule(task)]
        except ProctoolError as error:
            found.append(Broken(name, str(error)))
        except Exception as error:  # code of another package may raise anything
            found.append(Broken(name, f"raises {type(error).__name__}: {first_line(error)}"))
    return found


def generator(seed: int = 0) -> np.random.Generator:
    """A random generator for sampling."""
    return np.random.Generator(np.random.PCG64(seed))


def shapes(task: Task) -> Iterator[str]:
    """`sample` returns n samples of the right length and dtypes, with ids in the vocabulary."""
    for n in (1, 2, 7, _FEW):
        samples = task.sample(generator(), n)
        tokens, targets = samples.tokens, samples.targets
        for name, array in (("tokens", tokens), ("targets", targets)):
            if array.shape != (n, task.length):
                yield f"sample(rng, {n}) returns {name} of shape {array.shape}, not {(n, task.length)}"
                return
        if tokens.dtype != task.dtype:
            yield f"tokens have dtype {tokens.dtype}; return self.dtype, {np.dtype(task.dtype)}"
        if targets.dtype != bool:
            yield f"targets have dtype {targets.dtype}, not bool"
            return
        if tokens.max() >= task.vocab_size or tokens.min() < 0:
            yield f"token ids {tokens.min()}..{tokens.max()} are not all in 0..{task.vocab_size - 1}"
        if not tokens.flags.c_contiguous:
            yield "tokens are not contiguous in memory; end with np.ascontiguousarray"
        if targets[:, 0].any():
            yield "the first token is a target, but no token before it could predict it"
    if not targets.any():
        yield f"{_FEW} samples have no target"


def layout(task: Task) -> Iterator[str]:
    """`layout` divides the ids 0..vocab_size - 1."""
    ids = [token for part in task.layout.values() for token in part]
    if sorted(ids) != list(range(task.vocab_size)):
        yield f"layout {task.layout} does not give each id of 0..{task.vocab_size - 1} exactly one role"
    for role, part in task.layout.items():
        if not len(part):
            yield f'layout: role "{role}" has no ids; leave it out'
    if len(words := spelling(task)) != task.vocab_size or not all(words):
        yield "some token ids cannot be printed"


def specification(task: Task) -> Iterator[str]:
    """Parsing the task's specification gives the same task."""
    for written in (task.spec, as_mapping(task)):
        found = parse_tasks(written)
        if found != task or hash(found) != hash(task):
            yield f"{written} is parsed as another task, {found.spec}"


def options(task: Task) -> Iterator[str]:
    """Every option has a default and a description, and every preset is valid."""
    if isinstance(task, Control | Mixture):
        return
    cls = task_class(task.name)
    if not task.description:
        yield f"{cls.__qualname__} has no docstring; add one, because its first line describes the task in lists"
    described = option_help(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if not described.get(field.name):
            yield f"option {field.name} has no description; write a string below its field"
    if build_task(task.name) != cls():
        yield "the defaults are parsed as another task"
    for preset in cls.presets:
        build_task(task.name, preset=preset)


def padding(task: Task) -> Iterator[str]:
    """Padding is never a target."""
    samples = task.sample(generator(), _FEW if task.name == "nca" else _SOME)
    if samples.targets[np.isin(samples.tokens, list(task.layout.get("pad", ())))].any():
        yield "padding is a target"


def entropy(task: Task) -> Iterator[str]:
    """No sequence is more frequent than `min_entropy_bits` allows."""
    bits = task.min_entropy_bits
    if not bits >= 0:
        yield f"min_entropy_bits is {bits}; it must be at least 0"
        return
    n = _FEW if task.name == "nca" else max(_SOME, min(_MANY, _MOST_TOKENS // task.length))
    most = int(np.unique(content_hash(task.sample(generator(), n).tokens), return_counts=True)[1].max())
    expected = n * 2.0**-bits
    if most > expected + 5 * expected**0.5 + 2:
        yield f"{most} of {n} samples are equal, more than min_entropy_bits = {bits:g} allows; lower min_entropy_bits"


def determinism(task: Task) -> Iterator[str]:
    """Samples depend only on the random generator, and a stream only on seed, split and position."""
    once, again = (task.sample(generator(5), _FEW) for _ in range(2))
    if not _same(once, again):
        yield "the same generator gives different samples; use no other randomness than rng"
    stream = Stream(task, seed=3)
    whole = stream.read(0, 2 * BLOCK + 5)
    edges = [0, 1, 700, BLOCK, BLOCK + 1, 2 * BLOCK + 5]
    for start, stop in [*reversed(list(itertools.pairwise(edges))), (BLOCK - 3, BLOCK + 3), (0, 2 * BLOCK)]:
        if not _same(stream.read(start, stop), Samples(whole.tokens[start:stop], whole.targets[start:stop])):
            yield f"samples {start}..{stop - 1} differ between one batch and several batches"


def processes(task: Task) -> Iterator[str]:
    """Another process, with another string hash seed, makes the same samples."""
    program = (
        "import sys; from proctool.procedural.contract import *; "
        "print(block_hash(Stream(parse_tasks(sys.argv[1])).read(0, BLOCK)))"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", program, task.spec], env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        yield f"another process cannot make its samples: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}"
    elif done.stdout.split()[-1:] != [block_hash(Stream(task).read(0, BLOCK))]:
        yield "another process makes different samples; use only rng, and do not depend on the order of a set"


def splits(task: Task) -> Iterator[str]:
    """Splits share no sequence; seeds and blocks share sequences only by chance."""
    hashes = {split: content_hash(Stream(task, 0, split).read(0, BLOCK).tokens) for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        if shared := len(np.intersect1d(hashes[one], hashes[other])):
            yield f"the splits {one} and {other} share {shared} sequences; lower min_entropy_bits"
    others = [content_hash(Stream(task, *which).read(*rows).tokens) for which, rows in (
        ((1, "train"), (0, BLOCK)), ((0, "train"), (BLOCK, 2 * BLOCK)),
    )]  # fmt: skip
    for these, those in itertools.combinations([hashes["train"], *others], 2):
        shared = len(np.intersect1d(these, those))
        if np.array_equal(these, those) or (task.min_entropy_bits > _CHANCE_BITS and shared > 1):
            yield f"two seeds, or two blocks of a seed, share {shared} sequences"


def growth(task: Task) -> Iterator[str]:
    """A larger size makes samples longer and does not change the meaning of ids, as a length curriculum needs."""
    if isinstance(task, Control | Mixture):
        return
    size = getattr(task, task.size_option)
    try:
        grown = task.resized(size * 2)
    except OptionError:
        return  # the task already has its largest size
    if grown.length <= task.length:
        yield f"{task.size_option} = {size * 2} gives {grown.length} tokens, not more than {size} gives"
    back = grown.resized(size)
    if back.length != task.length:
        yield f"{task.size_option} = {size} gives {back.length} tokens after a larger size, but {task.length} before"
    for role, ids in back.layout.items():
        if role not in grown.layout or grown.layout[role].start != ids.start:
            yield f'role "{role}" has other ids at {task.size_option} = {size * 2}'


def _same(one: Samples, other: Samples) -> bool:
    return np.array_equal(one.tokens, other.tokens) and np.array_equal(one.targets, other.targets)


RULES: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        shapes, layout, specification, options, padding, entropy, determinism, processes, splits, growth,
    )
}  # fmt: skip
