"""`proctool inspect` and `proctool export`: artifacts, read and handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from proctool.cli import display
from proctool.units import format_bytes, format_count


def inspect(
    file: Annotated[Path, typer.Argument(help="An artifact of proctool.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
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
        for name, info in found.tensors.items():
            console.print(f"  {name:<50}{info.dtype:<6}{list(info.shape)}", highlight=False, markup=False)


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
