"""`proctool eval`: every evaluation is listed here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import typer

from proctool.cli.lazy import LazyGroup, group, single
from proctool.evaluation.options import DIAGNOSTICS

# name: (line of help, module under proctool.cli, the function there)
_EVALUATIONS = {
    **{name: (options.line, "diagnostics", "command") for name, options in DIAGNOSTICS.items()},
    "perplexity": ("Loss, perplexity and bits per byte of a model on a corpus.", "perplexity", "perplexity"),
    "mathematics": ("Answers to DeepMind Mathematics questions, module by module.", "mathematics", "mathematics"),
    "blimp": ("Grammatical knowledge: minimal pairs of sentences.", "blimp", "blimp"),
    "harness": ("Tasks of EleutherAI's lm-evaluation-harness, on an artifact as it is.", "harness", "harness"),
    "inside": ("Induction, copying and previous-token heads; how far weights have moved.", "inside", "inside"),
    "finetune": ("Fine-tune on WikiText, a GLUE task or PY150, and score.", "finetune", "finetune"),
}


class EvalGroup(LazyGroup):
    """One subcommand per evaluation."""

    def entries(self) -> Mapping[str, str]:
        """Every evaluation with its line."""
        return {name: line for name, (line, _, _) in _EVALUATIONS.items()}

    def load(self, name: str) -> typer.Typer:
        """The command of one evaluation, from its module."""
        line, module, function = _EVALUATIONS[name]
        found = getattr(importlib.import_module(f"proctool.cli.{module}"), function)
        return single(name, found(name) if name in DIAGNOSTICS else found, line)


app = group(EvalGroup, "Measure what a model can do.")
