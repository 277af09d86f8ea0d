"""Checks a command's outputs against its inputs before any work starts.

A command never overwrites its inputs, nor files that proctool did not write. One table lists the options that name
input files; each command lists its outputs as `Output`s and calls `require_safe`. Commands that write models also call
`require_own_model`: they replace a model of another command only with --force.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from proctool.artifact.layout import HEADER_LIMIT, Artifact
from proctool.artifact.reading import read_header
from proctool.artifact.sidecar import is_described, is_sidecar, sidecar_of
from proctool.errors import ArtifactError, OptionError
from proctool.paths import user_path
from proctool.results import holds_results


class Reads(Enum):
    """How the path of an option is read."""

    MODEL = "the files of a model or a tokenizer, directly in its folder"
    TEXT = "a file, all readable files below a folder, or all files that match a pattern"


# Option or argument: how its path is read. The same in every command.
READS: Mapping[str, Reads] = {
    **dict.fromkeys(
        ("init", "base", "model", "against", "beside", "tokenizer", "file", "embeddings_from"), Reads.MODEL
    ),
    **dict.fromkeys(("attention", "mixer", "mlp", "norms", "positions"), Reads.MODEL),
    **dict.fromkeys(("corpus", "validation", "apart_from", "data", "source"), Reads.TEXT),
}

# The outputs of each command. Locks and temporary files are in the same folders.
#
#   generate                       output, and its description FILE.json for some formats
#   warmup, pretrain, eval TASK    output (two with --save both), run folder, token stores in cache_dir
#   eval TASK with several runs    the experiment's folder, and results.jsonl in it: run_dir
#   eval perplexity                per_position
#   eval harness                   output
#   eval interpret                 pictures in figures
#   transplant                     output
#   export, tokenizer train        a new folder
#   corpus build, merge            token stores in cache_dir
#   run                            the experiment's folder below runs
#   choose                         output, and files of options beside it
#   search                         a folder: output, and token stores in cache_dir
#   report, compare                a page, and figures beside a report's
#   plan, inspect, other eval      nothing


@dataclass(frozen=True)
class Output:
    """A file that a command will write."""

    path: Path
    option: str
    """The flag that names it."""
    kind: str
    """The kind of its contents: of an artifact (data, model), or a key of `WRITTEN`."""
    makes_folder: bool = False
    """Whether the command creates a missing folder."""


FIGURE_MARK = "proctool figure"
"""Mark in the metadata of every figure that proctool draws, in any format."""
FIGURE_METADATA: Mapping[str, Mapping[str, str | None]] = {
    "png": {"Software": FIGURE_MARK},
    "svg": {"Creator": FIGURE_MARK, "Date": None},
    "pdf": {"Creator": FIGURE_MARK, "CreationDate": None},
}
"""Metadata for matplotlib by figure format: the mark and no date."""
OPTIONS_HEAD = "# Written by `proctool choose`"
"""First words of a file of options that a sweep chose."""
CSV_HEAD = "position,targets,loss"


def _begins_with(path: Path, mark: bytes, within: int) -> bool:
    with path.open("rb") as file:
        return mark in file.read(within)


def _is_table(path: Path) -> bool:
    from proctool.procedural.formats.tables import is_arrow_of_ours, is_parquet_of_ours

    return is_parquet_of_ours(path) or is_arrow_of_ours(path)


def _is_of_megatron(path: Path) -> bool:
    return is_described(path, sidecar_of(path.with_suffix(".bin")))


WRITTEN: Mapping[str, Callable[[Path], bool]] = {
    "page": lambda path: _begins_with(path, b'<meta name="generator" content="proctool ', 4096),
    "figure": lambda path: _begins_with(path, FIGURE_MARK.encode(), -1),
    "table": lambda path: _begins_with(path, CSV_HEAD.encode() + b"\n", len(CSV_HEAD) + 1),
    "results": holds_results,
    **dict.fromkeys(("parquet", "arrow"), _is_table),
    **dict.fromkeys(("jsonl", "nanogpt"), is_described),
    "megatron": _is_of_megatron,
    "description": is_sidecar,
    "options": lambda path: _begins_with(path, OPTIONS_HEAD.encode(), len(OPTIONS_HEAD)),
    "script": lambda path: _begins_with(path, b"proctool", -1),
}
"""For files other than artifacts: checks whether proctool wrote them."""


def is_artifact(path: Path) -> bool:
    """Whether proctool wrote this safetensors file, even if it is damaged: its header has our metadata."""
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return False
        length = min(struct.unpack("<Q", start)[0], HEADER_LIMIT)
        return b'"__metadata__":{"format":"pt","proctool":"' in file.read(length)


def require_safe(
    outputs: Sequence[Output],
    reads: Sequence[Read] = (),
    *,
    run_folder: Path | None = None,
    cache_dir: Path | None = None,
) -> None:
    """Raise ArtifactError unless every output is a new file, or replaces one of its kind that proctool wrote.

    No output, file of a run folder or file of a cache may be an input or change one.
    """
    for output in outputs:
        _require_place(output)
        for read in reads:
            if said := read.touched_by(output.path):
                raise ArtifactError(f"{output.path}: {said}; choose another {output.option}")
        _require_ours(output)
        if run_folder is not None:
            _require_outside(output, run_folder)
    if run_folder is not None:
        require_apart(run_folder, RUN_FILES, "--run-dir", reads)
    if cache_dir is not None:
        require_apart(cache_dir, ("index.json",), "--cache-dir", reads)


RUN_FILES = ("metrics.jsonl", "config.json", "run.log", "log.txt")
"""Files of a run folder that a corpus could read as text."""


def require_apart(folder: Path, names: Sequence[str], option: str, reads: Sequence[Read]) -> None:
    """Raise ArtifactError if a file with one of the `names` in `folder` would be an input or change one."""
    for read in reads:
        for name in names:
            if said := read.touched_by(folder / name):
                raise ArtifactError(f"{folder}: its {name} {said}; choose another {option}")


def _require_place(output: Output) -> None:
    path = output.path
    if path.is_dir():
        raise ArtifactError(f"{path}: is a folder; {output.option} takes the name of a file")
    parent = path.absolute().parent
    if parent.exists() and not parent.is_dir():
        raise ArtifactError(f"{path}: {path.parent} is not a folder; choose another {output.option}")
    if not parent.is_dir() and not output.makes_folder:
        raise ArtifactError(f"{path}: the folder {path.parent} does not exist; create it first")


def _require_ours(output: Output) -> None:
    path = output.path
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    if not path.is_file():
        raise ArtifactError(f"{path}: is a pipe or a device, not a file; choose another {output.option}")
    if status.st_size == 0:
        return  # an empty file is safe to overwrite
    if not WRITTEN.get(output.kind, is_artifact)(path):
        raise ArtifactError(
            f"{path}: exists, and proctool did not write it as {output.kind}; "
            f"choose another {output.option}, or remove it"
        )
    if output.kind not in WRITTEN:
        with contextlib.suppress(ArtifactError):  # a damaged artifact may be replaced
            if (found := read_header(path).kind) != output.kind:
                raise _OtherKind(
                    f"{path}: holds {found}, but {output.option} writes {output.kind}; "
                    f"choose another {output.option}, or remove it"
                )


class _OtherKind(OptionError):
    """The file holds another kind. Not an ArtifactError, because the file is not damaged."""


def require_own_model(path: Path, option: str, is_own: Callable[[Artifact], bool], *, force: bool) -> None:
    """Raise ArtifactError if `path` is a model that another command wrote, unless `force` replaces it.

    `is_own` says from its header whether the same command wrote it. Missing and damaged files may be written.
    """
    if force or not path.is_file():
        return
    try:
        found = read_header(path)
    except ArtifactError:
        return
    if not is_own(found):
        raise ArtifactError(
            f"{path}: has a model that another command wrote (content {found.content[:12]}); "
            f"choose another {option}, or --force to replace it"
        )


_OF_A_RUN = re.compile(r"config\.json|metrics\.jsonl|run\.log|identity|\.lock|state-\d+\.safetensors|checkpoints(/.*)?")


def _require_outside(output: Output, run_folder: Path) -> None:
    """Raise ArtifactError if the output is the run folder or one of the run's files in it."""
    path, folder = _real(output.path), _real(run_folder)
    if path == folder:
        raise ArtifactError(f"{output.path}: is also the run folder; choose another {output.option} or --run-dir")
    if path.is_relative_to(folder) and _OF_A_RUN.fullmatch(path.relative_to(folder).as_posix()):
        raise ArtifactError(f"{output.path}: is a file of the run in {run_folder}; choose another {output.option}")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


# -- what is read --


@dataclass(frozen=True)
class Read:
    """A file, a folder or a pattern that an option names for reading."""

    option: str
    path: Path
    how: Reads

    def touched_by(self, target: Path) -> str | None:
        """How writing the file `target` would change this input; None if it would not."""
        if glob.has_magic(str(self.path)) and not self.path.exists():
            pattern = Path(os.path.abspath(self.path)).parts
            matches = _matches(Path(os.path.abspath(target)).parts, pattern)
            return f"matches {self.path}, which {self.option} reads" if matches else None
        if not self.path.is_dir():
            return f"is the file that {self.option} reads" if _same(self.path, target) else None
        folder = _real(self.path)
        if self.how is Reads.MODEL:
            if _real(target).parent == folder:
                return f"lies in the folder that {self.option} reads"
            linked = target.exists() and any(_same(each, target) for each in folder.iterdir())
            return f"is a file of the folder that {self.option} reads" if linked else None
        from proctool.corpora.kinds import kind_of

        inside = _real(target).is_relative_to(folder) and kind_of(target.name) is not None
        return f"lies in the folder {self.path}, which {self.option} reads" if inside else None


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are the same file, also through symbolic and hard links."""
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return _real(one) == _real(other)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob pattern, both split at slashes; ** matches any number of folders."""
    from fnmatch import fnmatchcase

    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def reads_of(options: object = None, **arguments: Any) -> list[Read]:
    """The inputs of a command: existing paths in its options (`options`, a dataclass, and `arguments`); see `READS`."""
    given = {name: getattr(options, name, None) for name in READS} | arguments
    found = []
    for name, value in given.items():
        flag = name.upper() if name in arguments else "--" + name.replace("_", "-")
        for written in value if isinstance(value, tuple | list) else (value,):
            if written is not None:
                found += [Read(flag, path, READS[name]) for path in _paths(str(written), READS[name])]
    return found


def _paths(written: str, how: Reads) -> Iterator[Path]:
    """The paths in a value: the value itself, the part after a corpus name, or each of several donors."""
    from proctool.corpora.catalog import NAMES

    base, _, variant = written.partition(":")
    texts = [written, *written.split(",")] if how is Reads.MODEL else [variant] if base in NAMES else [written]
    for text in dict.fromkeys(filter(None, map(str.strip, texts))):
        with contextlib.suppress(OSError, OptionError, ValueError):  # no such user; too long; a zero byte
            path = user_path(text)
            if path.exists() or (how is Reads.TEXT and glob.has_magic(str(path))):
                yield path


# -- folders --

_LEFT_BY_US = re.compile(r"\.lock|\..+\.lock|\..+\.[a-z0-9_]{8}\.partial|log\.txt")
"""Files in the folder of a run or a stage that was stopped before it started; they are safe to overwrite."""


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is missing or has only files that are safe to overwrite."""
    if not folder.exists():
        return True
    for parent, folders, files in os.walk(folder, onerror=_raise):
        if any(not _LEFT_BY_US.fullmatch(name) for name in files):
            return False
        if any(os.path.islink(os.path.join(parent, name)) for name in folders):
            return False
    return True


def _raise(error: OSError) -> None:
    raise error


def require_new_folder(folder: Path, option: str, reads: Sequence[Read] = ()) -> None:
    """Raise ArtifactError unless `folder` is missing or empty, has a parent, and is not inside an input."""
    if folder.is_symlink() and not folder.exists():
        raise ArtifactError(f"{folder}: is a broken link; choose another {option}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists and is not an empty folder; choose another {option}")
    if not folder.absolute().parent.is_dir():
        raise ArtifactError(f"{folder}: the folder {folder.absolute().parent} does not exist; create it first")
    for read in reads:
        if said := read.touched_by(folder / "tokenizer.json"):
            raise ArtifactError(f"{folder}: {said}; choose another {option}")
