"""The formats that `proctool generate` writes samples in.

The suffix of a file gives its format. Safetensors, Parquet and Arrow files have their own metadata; other files have a
description beside them, `FILE.json` (see artifact/sidecar.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from proctool import artifact
from proctool.errors import OptionError
from proctool.outputs import Output
from proctool.procedural.formats.lines import write_jsonl
from proctool.procedural.formats.part import Progress, StreamPart
from proctool.procedural.formats.tables import write_arrow, write_parquet
from proctool.procedural.formats.tensors import write_tensors
from proctool.procedural.formats.token_files import megatron_files, write_megatron, write_nanogpt
from proctool.procedural.registry import Task

__all__ = ["FORMATS", "Format", "Progress", "StreamPart", "format_of"]


@dataclass(frozen=True)
class Format:
    """A file format for samples."""

    ending: str
    """Its file suffix."""
    write: Callable[[StreamPart, Path, Progress], str]
    """Writes the file and returns the content hash."""
    kind: str
    """How `outputs.py` recognises a file of this format written by proctool."""
    described: bool = False
    """Whether the file has a description beside it, because the format has no metadata."""
    bytes_per_token: Callable[[Task], int] | None = None
    """Its token dtype; None if it depends on the samples."""
    files: Callable[[Path], tuple[Path, ...]] = lambda path: (path,)
    """The files written for a path, without the description."""

    def outputs(self, path: Path) -> list[Output]:
        """All files written for a path."""
        files = self.files(path)
        found = [Output(file, "--output", self.kind) for file in files]
        if self.described:
            found.append(Output(artifact.sidecar_of(files[0]), "--output", "description"))
        return found


def _width(task: Task) -> int:
    return task.dtype().itemsize


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(".safetensors", write_tensors, "data", bytes_per_token=lambda task: _width(task) + 1),
    "parquet": Format(".parquet", write_parquet, "parquet"),
    "arrow": Format(".arrow", write_arrow, "arrow", bytes_per_token=lambda task: 8),
    "jsonl": Format(".jsonl", write_jsonl, "jsonl", described=True),
    "nanogpt": Format(".bin", write_nanogpt, "nanogpt", described=True, bytes_per_token=lambda task: 2),
    "megatron": Format(".idx", write_megatron, "megatron", True, _width, megatron_files),
}
DEFAULT = "safetensors"


def format_of(path: Path | None, name: str | None = None) -> str:
    """The format by `--format` or by the suffix of a file; DEFAULT for a name without a suffix.

    Raises OptionError listing the known suffixes.
    """
    if name is not None or path is None or not path.suffix:
        return name or DEFAULT
    if (found := _BY_ENDING.get(path.suffix)) is None:
        known = ", ".join(f"{ending} ({name})" for ending, name in _BY_ENDING.items())
        raise OptionError(f"{path}: unknown suffix; use one of {known}, or give a --format")
    return found


_BY_ENDING = {each.ending: name for name, each in FORMATS.items()}
