"""The structure of an artifact, shared by reading and writing."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from proctool import __version__
from proctool.errors import OptionError, in_utf8
from proctool.paths import user_path

FORMAT = 1
HEADER_LIMIT = 64 << 20
"""Largest accepted JSON header in bytes: a model of 100 000 tensors needs about half of it."""
DOCUMENT_LIMIT, DOCUMENT_LIMIT_PER_TENSOR = 16 << 20, 1 << 10
"""Largest accepted metadata in bytes: for the file (with tokenizer and lineage), and per tensor (hash, origin)."""

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
DTYPE_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
}  # fmt: skip
"""The dtype names of safetensors for numpy's and torch's dtypes."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's place in a file: `start` and `stop` are byte offsets from the file's beginning."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """A checked header. Tensors are read with `read_numpy` or `read_torch`."""

    path: Path
    kind: str
    metadata: dict[str, Any]
    parents: tuple[dict[str, Any], ...]
    versions: dict[str, str]
    content: str
    tensors: dict[str, TensorInfo] = field(repr=False)

    @property
    def as_parent(self) -> dict[str, Any]:
        """The entry that a child stores for this artifact. It includes the parents, so a file has its full lineage."""
        return {
            "name": self.path.name,
            "kind": self.kind,
            "content": self.content,
            "about": _summary(self.metadata),
            "parents": list(self.parents),
        }


_IN_LINEAGE = (
    "task", "code", "corpus", "datasets", "seed", "tokens", "steps", "components", "extended_from", "spent_tokens",
)  # fmt: skip


def _summary(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metadata[key] for key in _IN_LINEAGE if key in metadata}


def versions() -> dict[str, str]:
    """Versions of proctool, Python and the libraries that can change results."""
    return dict(_versions())


@functools.cache
def _versions() -> Mapping[str, str]:
    found = {"proctool": __version__, "python": platform.python_version()}
    for library in ("numpy", "torch", "transformers", "accelerate", "safetensors"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same value always gives the same text.

    A file name that is not UTF-8 is escaped as it is printed (`x\\xff.jsonl`), because the text must be UTF-8.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return in_utf8(text, backslash="\\\\")


def digest(value: Any) -> str:
    """SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def bare_name(name: str) -> str:
    """The last part of a path. Names without folders are returned unchanged."""
    return Path(name).name if name.startswith(("/", "~", ".")) else name


def name_given(value: str) -> str:
    """A command's argument (a file, a folder or a name) without its folders, as metadata store it."""
    with contextlib.suppress(OSError, ValueError, OptionError):
        if user_path(value).exists():
            return Path(value).name
    return bare_name(value)
