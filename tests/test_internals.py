"""Private names of other libraries are in proctool/internals only, and their libraries have upper pins."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "proctool"
ADAPTERS = PACKAGE / "internals"
FILES = sorted(PACKAGE.rglob("*.py"))
ALLOWED = {
    "os._exit": "documented",
    "space._weights": "mathematics-dataset, which has had no release since 2019",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(trees: list[ast.Module]) -> set[str]:
    """Private names that proctool defines: functions, classes, fields, attributes of self."""
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return {name for name in found if is_private(name)}


def test_private_names_of_other_libraries_are_in_the_adapters() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES if ADAPTERS not in path.parents}
    own = own_names(list(trees.values())) | {"_replace", "_asdict", "_fields"}
    strange = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
                strange.append((path.name, ast.unparse(node)))
            if isinstance(node, ast.ImportFrom | ast.Import):
                named = node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")]
                modules = [each.name for each in named]
                strange += [(path.name, name) for name in modules if any(map(is_private, name.split(".")))]
    assert [(path, name) for path, name in strange if name not in ALLOWED and not name.startswith("proctool.")] == []


@pytest.mark.parametrize("library", ["torch", "transformers", "accelerate", "lm-eval"])
def test_a_library_with_an_adapter_is_pinned_to_the_tested_version_and_the_next(library: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(each for group in project["optional-dependencies"].values() for each in group)]
    pins = {tuple(map(int, found[1].split("."))) for each in asked
            if (found := re.fullmatch(rf"{library}>=[\d.]+,<([\d.]+)", each))}  # fmt: skip
    assert len(pins) == 1, f"{library}: one upper pin, the same wherever it is named"
    tested = re.search(rf"^{library.replace('-', '_')}==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert tested is not None
    *before, last = map(int, tested[1].split(".")[: len(*pins)])
    assert pins == {(*before, last + 2)}
    assert (
        (ADAPTERS / f"of_{library.replace('-', '_')}.py")
        .read_text()
        .count(f"Tested with {tested[1].removesuffix('.0')}")
    )
    assert version(library)
