"""Corpora that every machine has: installed Python sources, and the English in their docstrings."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool.corpora.documents import Document, Part
from proctool.corpora.fields import utf8
from proctool.corpora.files import File, listed

_SOURCE_PER_PART = 16 << 20
"""Bytes of source per part of `docstrings`; parsing takes most of the time (about 2 MB/s)."""


def standard_library() -> list[File]:
    """The .py files of the standard library, including its tests, sorted by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    apart = ("site-packages", "dist-packages", "__pycache__")
    return listed(_sources(root, apart))


def site_packages() -> list[File]:
    """The .py files of installed packages, sorted by name."""
    root = Path(sysconfig.get_paths()["purelib"])
    return listed(_sources(root, ("__pycache__",)))


def _sources(root: Path, apart: tuple[str, ...]) -> list[tuple[Path, str]]:
    found = []
    for folder, below, names in os.walk(root):
        # Do not enter site-packages: it may be inside the standard library's folder and large.
        below[:] = [name for name in below if name not in apart]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(
        ((path, path.relative_to(root).as_posix()) for path in found if path.is_file()), key=lambda pair: pair[1]
    )


@dataclass(frozen=True)
class DocstringsPart(Part):
    """The English in the docstrings of consecutive source files, one document per file."""

    files: tuple[File, ...]
    split: str | None = None

    @property
    def label(self) -> str:
        """The first file and the number of others."""
        return f"docstrings of {self.files[0].path} and {len(self.files) - 1} more"

    @property
    def identity(self) -> dict[str, Any]:
        """Files by name and contents, and the rules that detect prose."""
        # ast uses the running Python's grammar, so whether a file can be parsed depends on the version.
        grammar = list(sys.version_info[:2])
        return {"docstrings": [file.identity for file in self.files], "rules": 1, "grammar": grammar} | (
            {"split": self.split} if self.split else {}
        )

    @property
    def size(self) -> int | None:
        """About a tenth of the source is prose."""
        return sum(file.size for file in self.files) // 10

    @property
    def work(self) -> int | None:
        """Size of the source, because all of it is parsed."""
        return sum(file.size for file in self.files)

    def documents(self) -> Iterator[Document]:
        """One document per file with prose, in order."""
        for file in self.files:
            file.check_unchanged()
            prose = "\n\n".join(dict.fromkeys(_prose(Path(file.path).read_bytes())))
            if prose:
                yield Document(utf8(prose + "\n"))


def docstrings(found: list[File]) -> tuple[DocstringsPart, ...]:
    """Source files grouped into parts of about equal work."""
    parts: list[DocstringsPart] = []
    group: list[File] = []
    filled = 0
    for file in found:
        group.append(file)
        filled += file.size
        if filled >= _SOURCE_PER_PART:
            parts.append(DocstringsPart(tuple(group)))
            group, filled = [], 0
    return (*parts, DocstringsPart(tuple(group))) if group else tuple(parts)


def _prose(source: bytes) -> Iterator[str]:
    """The paragraphs of docstrings that look like English: long enough, mostly letters, no doctests, no tables."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # this Python cannot parse it (templates, tests of bad syntax), so it gives no docstrings
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            kept = [paragraph for paragraph in text.split("\n\n") if _is_english(paragraph)]
            if kept:
                yield "\n\n".join(kept)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements of the tree in order, without expressions: three times as fast as ast.walk."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in ("finalbody", "orelse", "handlers", "cases", "body"):
            below = getattr(node, name, None)
            if isinstance(below, list):
                waiting.extend(reversed(below))


def _is_english(paragraph: str) -> bool:
    letters = sum(map(str.isalpha, paragraph)) + paragraph.count(" ")
    return ">>>" not in paragraph and len(paragraph.split()) >= 4 and letters >= 0.85 * len(paragraph)
