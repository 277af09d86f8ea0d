"""The recipe for the target, and what it costs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from proctool.experiment.cost import flops, outlined
from proctool.experiment.graph import plan
from proctool.experiment.plan_options import HardwareOptions
from proctool.experiment.planning import plan_stages
from proctool.recipe.check import build_recipe
from proctool.search.answer import Cost
from proctool.search.cells import COLD, Setting, Warmed, arm_values, shared
from proctool.search.measure import MOST_PASSES
from proctool.search.space import Candidate, Cold, short_task, target_of
from proctool.untrusted import parse_yaml

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al., "Training Compute-Optimal Large Language Models", 2022, arXiv:2203.15556."""

_HEAD = """\
# Written by `proctool search`; copy it before you change it. Run it with `proctool run`.
# The search ran at width {width}; from there, rates shrink with the width and standard deviations with its square root.
# Tune `lr` of the cold arm at full size if you can: a warm-up can help at a bad rate and not at a good one.
"""


def target_recipe(setting: Setting, candidate: Candidate, cold: Cold, small_width: int, rows: int) -> tuple[str, Cost]:
    """The recipe's text and the cost of its warmed arm. The corpus has `rows` training rows. Raises OptionError."""
    options = setting.options
    shape, family = target_of(options)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", options.output.name).strip("-._") or "search"
    arm = short_task(candidate.task)
    arm = "warmed" if arm == COLD or not re.fullmatch(r"[A-Za-z0-9._-]+", arm) else arm

    def values(steps: int) -> dict[str, Any]:
        tokens = steps * options.batch_size * options.context
        return {
            "name": name,
            "title": f"Does a warm-up on {arm} help {options.model}?",
            "model": options.model,
            "family": family,
            "seeds": [0, 1, 2],
            **shared(options, steps, shape.width, max(1, steps // 20)),
            "arms": {
                COLD: arm_values(cold, shape.width, tokens),
                arm: arm_values(Warmed(candidate, cold), shape.width, tokens),
            },
            "baseline": COLD,
            "controls": "standard",
            **({} if options.gpu is None else {"launch": {"precision": "bf16"}}),
        }

    steps = max(10, -(-_tokens(setting, values(10), rows) // (options.batch_size * options.context)))
    text = _HEAD.format(width=small_width) + yaml.safe_dump(
        values(steps), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    made = plan(build_recipe(parse_yaml(text, "recipe.yaml")), Path("runs") / name)
    last = made.arms[arm][0].pretrain
    donor = None if last is None else last.donor
    assert last is not None, "every arm pretrains"
    assert donor is not None, "the arm has a warm-up"
    seconds: dict[str, Any] = {}
    if options.gpu is not None:
        hardware = HardwareOptions(gpu=options.gpu, gpus=(options.gpus,))
        found = plan_stages([donor, last], hardware)
        seconds = dict(
            zip(("warmup_seconds", "pretrain_seconds"), (each.fits[0].seconds for each in found.stages), strict=True)
        )
        seconds |= {"gpu": found.gpu.name, "gpus": options.gpus}
    return text, Cost(donor.tokens, flops(donor), last.tokens, flops(last), **seconds)


def _tokens(setting: Setting, values: dict[str, Any], rows: int) -> int:
    """Corpus tokens of the target's training: those asked for, or 20 per parameter, within four passes."""
    if setting.options.tokens is not None:
        return setting.options.tokens
    last = plan(build_recipe(values), Path("runs") / "search").arms[COLD][0].pretrain
    assert last is not None, "cold pretrains"
    parameters: int = sum(each.numel() for each in outlined(last).parameters())
    return min(TOKENS_PER_PARAMETER * parameters, MOST_PASSES * rows * setting.options.context)
