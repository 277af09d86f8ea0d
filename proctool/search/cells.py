"""The recipes of trials: a trial is one arm of a recipe, with one seed, on a small model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool.experiment.graph import Plan, plan
from proctool.models.shapes import Shape
from proctool.procedural.mixture import parse_tasks
from proctool.recipe.check import build_recipe
from proctool.search.options import REPORTS, SearchOptions
from proctool.search.space import Candidate, Cold, rate_at, std_at, target_of

WARMUP_BATCH, WARMUP_RATE = 64, 1e-3
"""Samples per step of a warm-up, and its rate at width 64."""
COLD = "cold"


@dataclass(frozen=True)
class Setting:
    """What all trials of a search share."""

    options: SearchOptions
    steps: int
    """Pretraining steps; a multiple of REPORTS."""
    eval_samples: int
    """Validation rows that choose. As many others, after them, are for the last measurement."""
    tasks: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Corpus tokens of a trial."""
        return self.steps * self.options.batch_size * self.options.context


@dataclass(frozen=True)
class Warmed:
    """A candidate on top of the tuned cold start."""

    candidate: Candidate
    cold: Cold


def planned(
    setting: Setting,
    shape: Shape,
    arms: Mapping[str, Cold | Warmed],
    seeds: Sequence[int],
    root: Path,
    *,
    controls: Mapping[str, Any] | None = None,
) -> Plan:
    """The stages of these arms on a small model. Raises OptionError."""
    options = setting.options
    values = {
        "name": f"search-{shape}",
        "model": str(shape),
        "family": target_of(options)[1],
        "baseline": COLD if COLD in arms else next(iter(arms)),
        "seeds": list(seeds),
        **shared(options, setting.steps, shape.width, setting.steps // REPORTS, setting.eval_samples),
        "arms": {name: arm_values(arm, shape.width, setting.tokens) for name, arm in arms.items()},
    }
    if controls is not None:
        values["controls"] = dict(controls)
    return plan(build_recipe(values), root)


def shared(
    options: SearchOptions, steps: int, width: int, eval_every: int, eval_samples: int | None = None
) -> dict[str, Any]:
    """The keys of a recipe that all arms share, at a width. Without `eval_samples`, as many as by default."""
    given = {"tokenizer": options.tokenizer, "end_of_text": options.end_of_text}
    return {
        "corpus": options.corpus,
        **{name: value for name, value in given.items() if value is not None},
        "context": options.context,
        "warmup": {"batch_size": WARMUP_BATCH, "lr": rate_at(WARMUP_RATE, width), "eval_samples": 256},
        "pretrain": {
            **({} if options.text_field is None else {"text_field": options.text_field}),
            "steps": steps,
            "batch_size": options.batch_size,
            "ramp_steps": max(1, steps // 10),
            "schedule": "cosine",
            "eval_every": eval_every,
            **({} if eval_samples is None else {"eval_samples": eval_samples}),
        },
    }


def arm_values(arm: Cold | Warmed, width: int, tokens: int) -> dict[str, Any]:
    """The keys of an arm at a width, whose pretraining takes so many corpus tokens."""
    if isinstance(arm, Cold):
        return {"pretrain": {"lr": rate_at(arm.rate, width), "init_std": std_at(arm.std, width)}}
    candidate, std = arm.candidate, std_at(arm.cold.std, width)
    length = parse_tasks([candidate.task]).length
    steps = max(1, round(candidate.dose * tokens / (WARMUP_BATCH * length)))
    return {
        "warmup": {
            "task": candidate.task,
            "steps": steps,
            "ramp_steps": max(1, steps // 12),
            "eval_every": steps,
            "init_std": std,
        },
        "components": candidate.components.split(","),
        "embeddings": candidate.embeddings,
        "pretrain": {"lr": rate_at(candidate.rate, width), "init_std": std},
    }
