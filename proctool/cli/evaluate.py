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
    "mathematics": ("Answers to DeepMind Mathematics questions, module by module.", "mathematics", "mathematics"),
    "blimp": ("Grammatical knowledge: minimal pairs of sentences.", "blimp", "blimp"),
    "harness": ("Tasks of EleutherAI's lm-evaluation-harness, on an artifact as it is.", "harness", "harness"),
    "interpret": ("Induction, copying and previous-token heads; how far weights have moved.", "interpret", "interpret"),
    "finetune": ("Fine-tune on WikiText, a GLUE task or PY150, and score.", "finetune", "finetune"),
}
# Former names, hidden; they work for one release.
_RENAMED = {"inside": "interpret"}


class EvalGroup(LazyGroup):
    """One subcommand per evaluation."""

    def entries(self) -> Mapping[str, str]:
        """Every evaluation with its line."""
        return {name: line for name, (line, _, _) in _EVALUATIONS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, under its present name or a former one."""
        name = _RENAMED.get(args[0], args[0])
        if name != args[0]:
            notice(f"eval {args[0]} is now called eval {name}; the old name goes with the next release")
        return super().resolve_command(ctx, [name, *args[1:]])

    def load(self, name: str) -> typer.Typer:
        """The command of one evaluation, from its module."""
        line, module, function = _EVALUATIONS[name]
        found = getattr(importlib.import_module(f"proctool.cli.{module}"), function)
        return single(name, found(name) if name in DIAGNOSTICS else found, line)


app = group(EvalGroup, "Measure what a model can do.")
