"""The files of a path, a folder or a pattern. Links are followed, and each file is listed once."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proctool.corpora import kinds, repository
from proctool.errors import CorpusError
from proctool.paths import user_path


@dataclass(frozen=True)
class Found:
    """The files of a corpus, sorted by name, and notes about them."""

    files: list[tuple[Path, str]]
    """Each file with its name relative to the opened folder."""
    notes: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)
    """The split of each file by name, if the names of a folder's files give splits."""


def find(pattern: str) -> Found:
    """The files of a path, a folder or a glob pattern.

    A folder gives all files below it with a supported suffix, except hidden files. Links to files and folders are
    followed; a file reached twice is read once, under its own name if it is in the folder.
    Raises CorpusError if there are no files, a link is broken or a folder cannot be read.
    """
    path = user_path(pattern)
    if path.is_file():
        kinds.require_known(str(path))
        return Found([(path, path.name)])
    if path.is_dir():
        return _below(path)
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(match)]
    if not matches:
        what = "no file matches this pattern" if glob.has_magic(pattern) else _missing(path)
        raise CorpusError(f"{pattern}: {what}")
    for match in matches:
        kinds.require_known(str(match))
    root = Path(os.path.commonpath([match.parent for match in matches]))
    kept, notes = _once([(match, match.relative_to(root).as_posix()) for match in matches])
    return Found(kept, notes)


def _missing(path: Path) -> str:
    if path.is_symlink():
        return f"a link to {os.readlink(path)}, which does not exist"
    if path.exists():
        return "is a pipe or a device; give a file or a folder"
    while not path.parent.is_dir():
        path = path.parent
    try:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
    except OSError:
        near = []
    return "no such file or folder" + (f" (did you mean {path.with_name(near[0])}?)" if near else "")


@dataclass
class _Tree:
    """A folder being walked: first its files, then the targets of its links, so that real names come first."""

    root: Path
    files: list[tuple[Path, str]] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Real paths of the walked folders; they stop a cycle of links."""

    def walk(self, folder: Path) -> None:
        """Add the files below `folder` and remember its links for later."""
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            real = os.path.realpath(folder)
            if real in self.seen:
                continue
            self.seen.add(real)
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                    self._take(entry, waiting)

    def _take(self, entry: os.DirEntry[str], waiting: list[Path]) -> None:
        if entry.name.startswith("."):
            return
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            waiting.append(path)
        elif entry.is_file():
            self.files.append((path, path.relative_to(self.root).as_posix()))
        elif entry.is_symlink():
            (self.links if entry.is_dir() else self.broken).append(path)


def _below(folder: Path) -> Found:
    tree = _Tree(folder)
    try:
        tree.walk(folder)
        while tree.links:
            tree.links.sort(reverse=True)
            tree.walk(tree.links.pop())
    except OSError as error:
        raise CorpusError(f"{error.filename or folder}: {error.strerror or error}") from None
    for path in sorted(tree.broken):
        if kinds.kind_of(path.name) is not None:
            raise CorpusError(f"{path}: {_missing(path)}; restore the file, or remove the link")
    notes = tuple(f"{path}: {_missing(path)}; skipped" for path in sorted(tree.broken))
    known = [(path, name) for path, name in repository.data_files(tree.files) if kinds.kind_of(name) is not None]
    if not known:
        seen = ", ".join(sorted({path.suffix or path.name for path, _ in tree.files})[:8]) or "nothing"
        raise CorpusError(f"{folder}: no files to read in this folder (it has {seen}); {kinds.WE_READ}")
    kept, twice = _once(known)
    splits, line = repository.splits_of([name for _, name in kept])
    return Found(kept, (*notes, *twice, *((f"{folder}: {line}",) if line else ())), splits)


def _once(files: list[tuple[Path, str]]) -> tuple[list[tuple[Path, str]], tuple[str, ...]]:
    """The files in the order of their names, without those that links reach again, and a note about these."""
    folders: dict[Path, str] = {}  # cache of real paths, because finding them for every file is slow

    def real(path: Path) -> str:
        if path.is_symlink():
            return os.path.realpath(path)
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        return os.path.join(folders[path.parent], path.name)

    reals = {file: real(file[0]) for file in files}
    # A name without links comes first, then the shortest.
    plainest = sorted(files, key=lambda file: (reals[file] != os.path.abspath(file[0]), file[1].count("/"), file[1]))
    chosen: dict[str, tuple[Path, str]] = {}
    for file in plainest:
        chosen.setdefault(reals[file], file)
    kept = sorted(chosen.values(), key=lambda file: file[1])
    left_out = len(files) - len(kept)
    if not left_out:
        return kept, ()
    return kept, (f"{left_out} file{'s' if left_out > 1 else ''} reached twice through links; read once",)
