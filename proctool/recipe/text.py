"""The warm-up on natural text: the tokens of an arm's procedural warm-up, spent on a corpus instead."""

from __future__ import annotations

import math
from dataclasses import fields

from proctool.recipe.form import Values
from proctool.training.options import TrainingOptions, WarmupOptions

CORPUS = ("corpus", "text_field", "validation", "skip_bad", "budget")
"""Options that choose the text: the keys of `controls.text`."""
SEEDS = 10**6
"""The text warm-up of seed s trains with the seed s + SEEDS, so that its rows come in another order than those of the
pretraining after it."""


def text_values(warmup: WarmupOptions, tokens: int, text: Values, processes: int) -> Values:
    """Options of `pretrain` on `tokens` tokens of text, with the model, steps, rate and schedule of `warmup`.

    `text` has the corpus, the tokenizer and the context. Rows have another length than the task's samples, so the batch
    changes to keep tokens per step. Then as many steps are taken as the tokens need, rounded up.
    """
    shared = {each.name: getattr(warmup, each.name) for each in fields(TrainingOptions)}
    rows = tokens / (warmup.steps * text["context"])
    micro = math.lcm(warmup.accumulate, warmup.micro_batch if isinstance(warmup.micro_batch, int) else 1)
    # A multiple of up to 8 suits the usual numbers of processes, so that these rarely change what is trained.
    unit = math.lcm(micro * min(8, max(1, 2 ** int(math.log2(max(1, rows / micro / 4))))), micro * processes)
    batch = max(1, round(rows / unit)) * unit
    steps = math.ceil(tokens / (batch * text["context"]))
    cut = {"batch_size": batch, "steps": steps, "ramp_steps": min(warmup.ramp_steps, steps)}
    return shared | text | cut
