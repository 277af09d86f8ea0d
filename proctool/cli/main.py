"""The `proctool` command: every subcommand is listed here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Annotated

import typer

from proctool import __version__, errors
from proctool.cli.lazy import LazyGroup, single

_TEXT = "Procedural pretraining: warm language models up on abstract data, then measure what it saves."

# name: (line of help, module under proctool.cli, what it holds: an application or a function)
_COMMANDS = {
    "generate": ("Generate procedural data: one subcommand per task.", "generate", "app"),
    "warmup": ("Train a model on procedural data.", "training", "warmup"),
    "transplant": (
        "Build a model from components of one or more donor models.",
        "transplant",
        "transplant",
    ),
    "pretrain": ("Train a model on a corpus, from scratch or from a warmed model.", "training", "pretrain"),
    "eval": ("Measure what a model can do: one subcommand per evaluation.", "evaluate", "app"),
    "sample": ("Print what a model writes after a prompt.", "sample", "sample"),
    "run": ("Run a recipe: every arm and seed of an experiment; then report.", "run", "run"),
    "choose": ("Choose the best cell of a sweep; a stage of `run`.", "choose", "choose"),
    "recipes": ("List, show and copy the recipes that come with proctool.", "recipes", "app"),
    "init": ("Write a commented recipe for your corpus and model.", "recipes", "init"),
    "search": ("Find the warm-up that helps on your corpus and model, if any.", "search", "search"),
    "plan": ("Estimate FLOPs, memory and hours of a recipe or run on given GPUs.", "plan", "plan"),
    "compare": ("Compare pretraining runs: tokens saved, gain at equal tokens.", "compare", "compare"),
    "report": ("Rebuild an experiment's table, verdicts and HTML page.", "report", "report"),
    "corpus": ("Build, merge, measure and inspect token stores of corpora.", "corpus", "app"),
    "tokenizer": ("Train a tokenizer.", "tokenizer", "app"),
    "doctor": ("Check this machine's software, device, speed and folders.", "doctor", "doctor"),
    "inspect": ("Show an artifact's contents and lineage; verify its hashes.", "inspect", "inspect"),
    "export": ("Export a model to Hugging Face, nanoGPT, litgpt or torchtitan.", "export", "export"),
}


class Root(LazyGroup):
    """The commands of the table above."""

    def entries(self) -> Mapping[str, str]:
        """Every command with its line."""
        return {name: line for name, (line, _, _) in _COMMANDS.items()}

    def load(self, name: str) -> typer.Typer:
        """The command's application, from its module."""
        line, module, holds = _COMMANDS[name]
        found = getattr(importlib.import_module(f"proctool.cli.{module}"), holds)
        return found if isinstance(found, typer.Typer) else single(name, found, line)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"proctool {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="proctool",
    cls=Root,
    help=_TEXT,
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(help=_TEXT)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line in this process; a user's mistake ends with one line and exit code 1."""
    with errors.reported(), errors.notices_shown():
        app(prog_name="proctool")
