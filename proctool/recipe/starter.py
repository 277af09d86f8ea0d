"""The text of a first recipe for the user's own corpus and model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

_TEMPLATE = """\
# An experiment for `proctool run`. Every key: docs/recipes.md, or `proctool run --schema`.
name: {name}
title: Does a warm-up help on my data?

model: {model}         # LAYERSxHEADSxWIDTH, a preset, or a configuration file
corpus: {corpus}
tokenizer: {tokenizer}
context: {context}     # tokens in a row
seeds: {seeds}         # an interval needs three

# The warm-up on procedural data; all arms share these options.
warmup: {{steps: {warmup_steps}, batch_size: 64, lr: 1e-3, ramp_steps: {warmup_ramp}}}

# The pretraining on the corpus. Tune `lr` of the cold arm first: a warm-up can help at a bad
# learning rate and not at a good one.
pretrain: {{{text_field}steps: {steps}, batch_size: 32, lr: 6e-3, ramp_steps: {ramp}, schedule: cosine}}

# The arms to compare. Each arm gives only its differences.
arms:
  cold: {{}}
{arms}baseline: cold

# Controls test other explanations of a gain: a warm-up on natural text, shuffled tokens, fresh
# weights at the same scale, longer training. Each adds a pretraining per seed, which
# `proctool run FILE --dry-run` counts.
controls: standard
"""


@dataclass(frozen=True)
class Starter:
    """The parts of a first recipe that depend on the user."""

    name: str
    corpus: str
    model: str = "4x4x64"
    tokenizer: str = "bytes"
    context: int = 128
    tasks: Sequence[str] = ("set:inputs=24",)
    steps: int = 800
    warmup_steps: int = 600
    seeds: int = 3
    text_field: str | None = None

    def text(self) -> str:
        """The recipe, with comments."""
        arms = "".join(
            f"  {name}: {{warmup: {{task: {json.dumps(task)}}}, embeddings: scale}}\n"
            for name, task in zip(_arm_names(self.tasks), self.tasks, strict=True)
        )
        return _TEMPLATE.format(
            name=json.dumps(self.name, ensure_ascii=False),
            model=json.dumps(self.model, ensure_ascii=False),
            corpus=json.dumps(self.corpus, ensure_ascii=False),
            tokenizer=json.dumps(self.tokenizer, ensure_ascii=False),
            context=self.context,
            seeds=list(range(self.seeds)),
            warmup_steps=self.warmup_steps,
            warmup_ramp=max(1, self.warmup_steps // 12),
            text_field=f"text_field: {json.dumps(self.text_field, ensure_ascii=False)}, " if self.text_field else "",
            steps=self.steps,
            ramp=max(1, self.steps // 10),
            arms=arms,
        )


def _arm_names(tasks: Sequence[str]) -> list[str]:
    """A short name for each arm: its task, with a number if two arms would have the same name."""
    names: list[str] = []
    for task in tasks:
        stem = "".join(each if each.isalnum() or each == "-" else " " for each in task).split()
        name = stem[0] if stem else "arm"
        names.append(name if name not in (*names, "cold") else f"{name}-{len(names) + 1}")
    return names
