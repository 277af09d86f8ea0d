"""`proctool eval`: every evaluation is listed here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import typer

from proctool.cli.lazy import LazyGroup, group, single
from proctool.errors import notice
from proctool.evaluation.options import DIAGNOSTICS

# name: (line of help, module under proctool.cli, the function there)
_EVALUATIONS = {
    **{name: (options.line, "diagnostics", "command") for name, options in DIAGNOSTICS.items()},
    "perplexity": ("Loss, perplexity and bits per byte of a model on a corpus.", "perplexity", "perplexity"),
    "mathematics": ("Accuracy on DeepMind Mathematics questions, by module.", "mathematics", "mathematics"),
    "blimp": ("Grammar: accuracy on BLiMP's minimal pairs of sentences.", "blimp", "blimp"),
    "harness": ("Run tasks of EleutherAI's lm-evaluation-harness.", "harness", "harness"),
    "interpret": ("Score attention heads and measure how far weights moved.", "interpret", "interpret"),
    "finetune": ("Fine-tune on WikiText, a GLUE task or PY150, and score.", "finetune", "finetune"),
}
# Former names: hidden, kept for one release.
_RENAMED = {"inside": "interpret"}


class EvalGroup(LazyGroup):
    """One subcommand per evaluation."""

    def entries(self) -> Mapping[str, str]:
        """Every evaluation with its line."""
        return {name: line for name, (line, _, _) in _EVALUATIONS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, by its present or its former name."""
        name = _RENAMED.get(args[0], args[0])
        if name != args[0]:
            notice(f"eval {args[0]} is now called eval {name}; the next release removes the old name")
        return super().resolve_command(ctx, [name, *args[1:]])

    def load(self, name: str) -> typer.Typer:
        """The command of one evaluation, from its module."""
        line, module, function = _EVALUATIONS[name]
        found = getattr(importlib.import_module(f"proctool.cli.{module}"), function)
        return single(name, found(name) if name in DIAGNOSTICS else found, line)


app = group(EvalGroup, "Measure what a model can do.")
