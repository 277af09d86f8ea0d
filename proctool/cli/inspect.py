"""`proctool inspect`: show what an artifact or a model folder contains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from proctool.cli import display
from proctool.errors import printable
from proctool.paths import AS_PATH
from proctool.units import counted, format_bytes, format_count

_LONGEST = 500
"""At most this many characters of one value are shown."""
_FILE_WIDTH = 10_000
"""Characters in a line where the output is not a terminal: more than a lineage needs."""


def inspect(
    file: Annotated[Path, typer.Argument(help="An artifact of proctool, or a model folder.", **AS_PATH)],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Draw the lineage, back to the tasks and corpora.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON on standard output.")] = False,
) -> None:
    """Show an artifact's contents and lineage, and verify its hashes."""
    from proctool import artifact

    if file.is_dir():
        _inspect_folder(file, tensors, json)
        return
    found = artifact.read_header(file)
    artifact.verify(found)
    if json:
        display.emit(
            {
                "path": str(file),
                "kind": found.kind,
                "content": found.content,
                "about": _readable(found.metadata),
                "parents": list(found.parents),
                "versions": found.versions,
                "tensors": {name: [info.dtype, list(info.shape)] for name, info in found.tensors.items()},
            }
        )
        return
    from rich.console import Console
    from rich.tree import Tree

    console = Console()
    if not console.is_terminal:  # lines as long as they need to be
        console = Console(width=_FILE_WIDTH)
    if lineage:
        console.print(_family_tree(found.as_parent), highlight=False, markup=False)
        return
    numbers = sum(_size(info.shape) for info in found.tensors.values())
    display.line(
        f"{_shown(file)}: {_shown(found.kind)}, {counted(len(found.tensors), 'tensor')}, {counted(numbers, 'value')}, "
        f"{format_bytes(file.stat().st_size)}; all hashes match"
    )
    print(f"  content {found.content}")
    for key, value in found.metadata.items():
        if not isinstance(value, dict | list):
            within = ", included in the file" if key == "tokenizer" and "tokenizer_json" in found.metadata else ""
            display.line(f"  {_shown(key):<16}{_shown(value)}{within}", hanging=18)
    made_with = ", ".join(f"{library} {version}" for library, version in found.versions.items())
    display.line(f"  {'made with':<16}{_shown(made_with)}", hanging=18)
    if found.parents:
        tree = Tree("made from")
        for parent in found.parents:
            _grow(tree, parent)
        console.print(tree)
    if tensors:
        from proctool.transplantation.origin import read_provenance

        origins = found.metadata.get("origins")
        names = max((len(_shown(name)) for name in found.tensors), default=0)
        for name, info in found.tensors.items():
            made = read_provenance(origins.get(name)) if isinstance(origins, dict) else None
            whence = "" if made is None else _shown(f"  {made.source}: {made.words()}".rstrip(": "))
            display.line(f"  {_shown(name):<{names}}  {info.dtype:<6}{list(info.shape)}{whence}", hanging=4)


def _inspect_folder(path: Path, tensors: bool, json: bool) -> None:
    """Show a Hugging Face folder: its configuration and its tensors."""
    from proctool.cli.training import quiet_libraries

    quiet_libraries()
    from proctool.models.saved import open_model

    saved = open_model(path)
    assert saved.folder is not None
    stored = saved.folder.tensors
    facts = {"family": saved.config.model_type, "tied": saved.config.tie_word_embeddings, **saved.oddities()}
    if json:
        listed = {name: [tensor.dtype, list(tensor.shape)] for name, tensor in stored.items()}
        display.emit({"path": str(path), "kind": "huggingface", "content": saved.content, **facts, "tensors": listed})
        return
    numbers = sum(_size(tensor.shape) for tensor in stored.values())
    display.line(
        f"{_shown(path)}: a Hugging Face folder, {counted(len(stored), 'tensor')}, {counted(numbers, 'value')}"
    )
    print(f"  content {saved.content}")
    for key, value in facts.items():
        display.line(f"  {key:<16}{_shown(value)}", hanging=18)
    names = max(map(len, stored), default=0)
    for name, tensor in stored.items() if tensors else ():
        display.line(_shown(f"  {name:<{names}}  {tensor.dtype:<6}{list(tensor.shape)}"), hanging=4)


def _shown(value: Any) -> str:
    """A value from a file as text that is safe on a terminal: without control codes, and short."""
    text = str(value)
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text)} characters)")


def _readable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata without the bytes of the tokenizer in the file."""
    return {key: _without_bytes(value) if key == "tokenizer_json" else value for key, value in metadata.items()}


def _without_bytes(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_bytes(each) for key, each in value.items() if key != "bz2"}


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _grow(tree: Any, parent: dict[str, Any]) -> None:
    from rich.text import Text

    metadata = ", ".join(f"{key} {value}" for key, value in (parent.get("about") or {}).items())
    said = f"{parent['name']} ({parent['kind']}, content {str(parent['content'])[:12]}) {metadata}"
    branch = tree.add(Text(_shown(said)))
    for older in parent.get("parents") or []:
        _grow(branch, older)


_SAID_APART = ("task", "corpus", "components")


def _family_tree(node: Mapping[str, Any], tree: Any = None) -> Any:
    """An artifact and its lineage, down to the tasks and corpora, as a Rich tree."""
    from rich.text import Text
    from rich.tree import Tree

    metadata, parents = node.get("about") or {}, node.get("parents") or []
    content = f" {str(node['content'])[:12]}" if node.get("content") else ""
    facts = ", ".join(
        f"{key} {format_count(value) if isinstance(value, int) else value}"
        for key, value in metadata.items()
        if key not in _SAID_APART
    )
    label = Text(_shown(f"{node['name']} ({node['kind']}{content}) {facts}".rstrip()))
    from proctool.transplantation.origin import component_words

    for component, whence in component_words(metadata.get("components")):
        label.append(f"\n  {_shown(component):<11}{_shown(whence)}")
    branch = Tree(label) if tree is None else tree.add(label)
    for parent in parents:
        _family_tree(parent, branch)
    if "corpus" in metadata:
        branch.add(Text(_shown(f"corpus {metadata['corpus']}")))
    # A model trained on a generated file has the file's task, which the file's own branch shows already.
    if "task" in metadata and all((parent.get("about") or {}).get("task") != metadata["task"] for parent in parents):
        branch.add(Text(_shown(f"task {metadata['task']}")))
    return branch
