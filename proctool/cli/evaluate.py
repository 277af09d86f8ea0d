"""`proctool eval`: diagnostics trained from an init, and perplexity on a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from proctool.cli import display
from proctool.cli.lazy import LazyGroup, group, single
from proctool.cli.options import Common, argument, with_options
from proctool.cli.training import do, quiet_libraries
from proctool.evaluation.options import HaystackOptions, PerplexityOptions
from proctool.units import format_count


def _haystack(options: HaystackOptions, common: Common) -> None:
    quiet_libraries()
    from proctool.evaluation.diagnostic import diagnostic_job

    do(diagnostic_job("haystack", options), common)


def _perplexity(options: PerplexityOptions, common: Common, model: Path) -> None:
    quiet_libraries()
    from proctool.evaluation.perplexity import perplexity

    with display.store_progress() as listen:
        result = perplexity(model, options, listen)
    display.say(
        f"{model} on {result['corpus']} ({result['split']}): loss {result['loss']:.4f} nats per token, "
        f"perplexity {result['perplexity']:.3f}, {result['accuracy']:.1%} right, "
        f"{format_count(result['targets'])} tokens"
    )
    if common.json:
        display.emit(result)


class EvalGroup(LazyGroup):
    """One subcommand per evaluation."""

    def entries(self) -> Mapping[str, str]:
        """Every evaluation with its line."""
        return {
            "haystack": "Train on haystack from an init; report recall on held-out samples.",
            "perplexity": "Loss, perplexity and accuracy of a model on a corpus.",
        }

    def load(self, name: str) -> typer.Typer:
        """The command of one evaluation."""
        if name == "haystack":
            function = with_options(HaystackOptions, _haystack)
        else:
            model = argument("model", Path, "A model artifact or a Hugging Face folder.")
            function = with_options(PerplexityOptions, _perplexity, arguments=[model], dry_run=False)
        return single(name, function, self.entries()[name])


app = group(EvalGroup, "Measure what a model can do.")
