"""`proctool recipes` and `proctool init`: the bundled recipes, and a first recipe for your own data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from proctool.cli.display import emit, say
from proctool.cli.lazy import LazyGroup, group, single
from proctool.errors import ArtifactError, describe_os_error
from proctool.paths import AS_PATH

_Name = Annotated[str, typer.Argument(help="A name from `proctool recipes list`: demo, laptop/python.", metavar="NAME")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def _list(as_json: _Json = False) -> None:
    from proctool.cli import tables
    from proctool.recipe.check import load_recipe
    from proctool.recipe.library import library

    titles = {name: load_recipe(file).title for name, file in library().items()}
    if as_json:
        emit({"recipes": [{"name": name, "title": title} for name, title in titles.items()]})
        return
    tables.show({"recipe": "left", "question": "left"}, titles.items())


def _show(name: _Name) -> None:
    from proctool.recipe.library import recipe_file

    print(recipe_file(name).read_text(encoding="utf-8"), end="")


def _copy(
    name: _Name,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write (default: NAME.yaml).", **AS_PATH)
    ] = None,
) -> None:
    from proctool.recipe.library import recipe_file

    source = recipe_file(name)
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    # The comment names a schema file that is not beside the copy.
    text = "".join(line for line in lines if not line.startswith("# yaml-language-server:"))
    target = output or Path(source.name)
    _write_new(target, text)
    say(f"wrote {target}; run it with: proctool run {target}")


def init(
    corpus: Annotated[str, typer.Option(help="A corpus by name, a file, folder or pattern, or a hub id.")] = "python",
    model: Annotated[str, typer.Option(help="LAYERSxHEADSxWIDTH, a preset or a configuration file.")] = "4x4x64",
    tokenizer: Annotated[str, typer.Option(help="bytes, characters, a folder or a hub id.")] = "bytes",
    context: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens per row (default: 128, or more if a task needs it).", show_default=False),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Task to warm up on (repeatable; default: set:inputs=24).")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each pretraining run.")] = 800,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; use at least 3 for intervals.")] = 3,
    text_field: Annotated[
        str | None, typer.Option(help="Field that holds a record's text.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Recipe file to write.", **AS_PATH)] = Path(
        "recipe.yaml"
    ),
) -> None:
    """Write a commented recipe for your corpus and model.

    Example: proctool init --corpus articles.jsonl --model 4x4x128 --task set --task dyck
    """
    from proctool.corpora.catalog import is_local, open_corpus
    from proctool.procedural.mixture import parse_tasks
    from proctool.recipe.check import build_recipe
    from proctool.recipe.starter import Starter
    from proctool.untrusted import parse_yaml

    if is_local(corpus):
        open_corpus(corpus, text_field=text_field)  # a missing file is an error before the recipe is written
    tasks = tuple(task or ("set:inputs=24",))
    text = Starter(
        name=output.stem,
        corpus=corpus,
        model=model,
        tokenizer=tokenizer,
        context=context or max(128, *(parse_tasks([each]).length for each in tasks)),
        tasks=tasks,
        steps=steps,
        seeds=seeds,
        text_field=text_field,
    ).text()
    build_recipe(parse_yaml(text, str(output)))
    _write_new(output, text)
    command = f"proctool run {shlex.quote(str(output))}"
    say(f"wrote {output}; see its stages and how long they take with: {command} --dry-run")
    say(f"try it in a minute or two with: {command} --smoke")


def _write_new(path: Path, text: str) -> None:
    made = False
    try:
        with path.open("x", encoding="utf-8") as file:
            made = True
            file.write(text)
    except FileExistsError:
        raise ArtifactError(f"{path}: exists already; choose another --output") from None
    except OSError as error:
        if made:  # half a recipe on a full disk
            path.unlink(missing_ok=True)
        raise ArtifactError(describe_os_error(error)) from None


class RecipesGroup(LazyGroup):
    """The subcommands for bundled recipes."""

    def entries(self) -> Mapping[str, str]:
        """The commands."""
        return {
            "list": "List all recipes with the question each one answers.",
            "show": "Print a recipe.",
            "copy": "Copy a recipe to a file that you can edit.",
        }

    def load(self, name: str) -> typer.Typer:
        """The command."""
        return single(name, {"list": _list, "show": _show, "copy": _copy}[name], self.entries()[name])


app = group(RecipesGroup, "List, show and copy bundled recipes. `proctool run NAME` runs one.")
