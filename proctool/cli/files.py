"""`proctool inspect` and `proctool export`: artifacts, read and handed on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from proctool.cli import display
from proctool.units import format_bytes, format_count


def inspect(
    file: Annotated[Path, typer.Argument(help="An artifact of proctool.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Draw the family tree, back to the tasks and corpora that made it.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON on standard output.")] = False,
) -> None:
    """Show what an artifact is, where it came from, and check every hash in it."""
    from proctool import artifact

    found = artifact.read_header(file)
    artifact.verify(found)
    if json:
        display.emit(
            {
                "path": str(file),
                "kind": found.kind,
                "content": found.content,
                "about": found.about,
                "parents": list(found.parents),
                "versions": found.versions,
                "tensors": {name: [info.dtype, list(info.shape)] for name, info in found.tensors.items()},
            }
        )
        return
    from rich.console import Console
    from rich.tree import Tree

    console = Console()
    if lineage:
        console.print(_family_tree(found.as_parent), highlight=False, markup=False, soft_wrap=True)
        return
    numbers = sum(_size(info.shape) for info in found.tensors.values())
    console.print(
        f"[bold]{file}[/bold]: {found.kind}, {len(found.tensors)} tensors, {format_count(numbers)} numbers, "
        f"{format_bytes(file.stat().st_size)}; every hash is right",
        highlight=False,
    )
    console.print(f"  content {found.content}", highlight=False)
    for key, value in found.about.items():
        if not isinstance(value, dict | list):
            console.print(f"  {key:<16}{value}", highlight=False, markup=False)
    console.print(f"  {'made with':<16}{', '.join(f'{k} {v}' for k, v in found.versions.items())}", highlight=False)
    if found.parents:
        tree = Tree("made from")
        for parent in found.parents:
            _grow(tree, parent)
        console.print(tree)
    if tensors:
        origins = found.about.get("origins") or {}
        for name, info in found.tensors.items():
            origin = origins.get(name)
            whence = f"  {origin['source']}: {origin['how']}" if origin else ""
            console.print(f"  {name:<50}{info.dtype:<6}{list(info.shape)}{whence}", highlight=False, markup=False)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _grow(tree: Any, parent: dict[str, Any]) -> None:
    about = ", ".join(f"{key} {value}" for key, value in (parent.get("about") or {}).items())
    branch = tree.add(f"{parent['name']} ({parent['kind']}, content {str(parent['content'])[:12]}) {about}")
    for older in parent.get("parents") or []:
        _grow(branch, older)


_SAID_APART = ("task", "corpus", "components")


def _family_tree(node: Mapping[str, Any], tree: Any = None) -> Any:
    """An artifact with all it was made from below it, down to the tasks and corpora, as a Rich tree."""
    from rich.text import Text
    from rich.tree import Tree

    about, parents = node.get("about") or {}, node.get("parents") or []
    content = f" {str(node['content'])[:12]}" if node.get("content") else ""
    facts = ", ".join(
        f"{key} {format_count(value) if isinstance(value, int) else value}"
        for key, value in about.items()
        if key not in _SAID_APART
    )
    label = Text(f"{node['name']} ({node['kind']}{content}) {facts}".rstrip())
    components = about.get("components")
    for component, whence in components.items() if isinstance(components, Mapping) else ():
        label.append(f"\n  {component:<11}{whence}")
    branch = Tree(label) if tree is None else tree.add(label)
    for parent in parents:
        _family_tree(parent, branch)
    if "corpus" in about:
        branch.add(Text(f"corpus {about['corpus']}"))
    # A model trained on a generated file has the file's task; the file says it itself.
    if "task" in about and all((parent.get("about") or {}).get("task") != about["task"] for parent in parents):
        branch.add(Text(f"task {about['task']}"))
    return branch


def export(
    file: Annotated[Path, typer.Argument(help="A model artifact.")],
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
) -> None:
    """Write a Hugging Face folder that AutoModelForCausalLM and AutoTokenizer load."""
    from proctool.cli.training import quiet_libraries

    quiet_libraries()
    from proctool.models.saved import export as write_folder
    from proctool.models.saved import open_model

    write_folder(open_model(file), folder)
    display.say(f"wrote {folder}: load it with transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})")
