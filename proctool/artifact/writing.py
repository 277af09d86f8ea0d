"""Writing artifacts: bytes are hashed while they are written; a file appears complete or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.artifact.files import BlockWriter, replacing
from proctool.artifact.layout import (
    DOCUMENT_LIMIT,
    DOCUMENT_LIMIT_PER_TENSOR,
    DTYPE_BYTES,
    DTYPE_NAMES,
    FORMAT,
    Artifact,
    canonical,
    digest,
    versions,
)
from proctool.artifact.reading import read_header
from proctool.errors import ArtifactError
from proctool.locks import Taken, claimed
from proctool.untrusted import require_shallow

if TYPE_CHECKING:
    import torch

_AT_ONCE = 1 << 20
"""Bytes copied and hashed at once, small enough to stay in the processor's cache."""


@dataclass(frozen=True)
class TensorCopy:
    """A tensor copied unchanged from another artifact, with its hash checked while it is read and written."""

    source: Artifact
    name: str
    examine: Callable[[memoryview], None] | None = None
    """Called with every piece of the tensor; raises an error to reject it."""

    @property
    def described(self) -> tuple[str, tuple[int, ...]]:
        """Its dtype and shape."""
        return self.source.tensors[self.name].dtype, self.source.tensors[self.name].shape

    def copy(self, out: BlockWriter) -> str:
        """Write it and return its SHA-256. Raises ArtifactError when the source does not match its header."""
        info, path = self.source.tensors[self.name], self.source.path
        hashed, position = hashlib.sha256(), info.start
        with path.open("rb", buffering=0) as file:
            while position < info.stop:
                piece = out.room[: min(_AT_ONCE, info.stop - position)]
                filled = 0
                while filled < len(piece):
                    count = os.preadv(file.fileno(), [piece[filled:]], position + filled)
                    if count == 0:
                        raise ArtifactError(f"{path}: was cut short while it was being read")
                    filled += count
                hashed.update(piece)
                if self.examine is not None:
                    self.examine(piece)
                out.advance(len(piece))
                position += len(piece)
        if hashed.hexdigest() != info.sha256:
            raise ArtifactError(f"{path}: tensor {self.name} is damaged (its hash does not match); make the file again")
        return info.sha256


def write(
    path: Path,
    tensors: Mapping[str, NDArray[Any] | torch.Tensor | TensorCopy | Callable[[], Any]],
    *,
    kind: str,
    metadata: Mapping[str, Any],
    parents: Sequence[Artifact | Mapping[str, Any]] = (),
    shapes: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
) -> Artifact:
    """Write an artifact atomically and return its header.

    A tensor may be a function that returns it; `shapes` then gives its (dtype, shape). Each function is called once,
    in the order of names, so that only one tensor is in memory at a time. It may return an iterator of arrays: the
    tensor's pieces in order. A tensor may also be a `TensorCopy` from another artifact. The file appears complete or
    not at all. Raises ArtifactError when the folder does not exist or another process is writing the file, OSError
    when it cannot be written.
    """
    with output(Path(path)):
        return _write(Path(path), tensors, kind, metadata, parents, shapes)


@contextlib.contextmanager
def output(path: Path) -> Iterator[None]:
    """Reserve `path` for a file that a command writes at its end, before its work begins.

    Raises ArtifactError when the folder does not exist or another process has reserved the name.
    """
    if not path.parent.is_dir():
        raise ArtifactError(f"{path}: the folder {path.parent} does not exist; create it or choose another path")
    if path.is_dir():
        raise ArtifactError(f"{path}: is a folder; give the path of a file")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(claimed(path))
        except Taken as holder:
            raise ArtifactError(f"{path}: is being written by {holder}; wait for it or choose another path") from None
        yield


def _write(
    path: Path,
    tensors: Mapping[str, NDArray[Any] | torch.Tensor | TensorCopy | Callable[[], Any]],
    kind: str,
    metadata: Mapping[str, Any],
    parents: Sequence[Artifact | Mapping[str, Any]],
    shapes: Mapping[str, tuple[str, tuple[int, ...]]] | None,
) -> Artifact:
    described = {name: _describe(tensor, (shapes or {}).get(name)) for name, tensor in sorted(tensors.items())}
    listed = {
        name: {"dtype": dtype, "shape": list(shape), "sha256": "0" * 64} for name, (dtype, shape) in described.items()
    }
    sizes = {name: DTYPE_BYTES[dtype] * math.prod(shape) for name, (dtype, shape) in described.items()}
    document: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "about": dict(metadata),
        "parents": [parent.as_parent if isinstance(parent, Artifact) else dict(parent) for parent in parents],
        "versions": versions(),
        "tensors": listed,
        "content": "0" * 64,
        "seal": "0" * 64,
    }

    def encode() -> bytes:
        entries: dict[str, Any] = {"__metadata__": {"format": "pt", "proctool": canonical(document)}}
        position = 0
        for name, (dtype, shape) in described.items():
            entries[name] = {
                "dtype": dtype, "shape": list(shape), "data_offsets": [position, position + sizes[name]],
            }  # fmt: skip
            position += sizes[name]
        encoded = canonical(entries).encode()
        encoded += b" " * (-len(encoded) % 8)  # tensors start aligned
        return struct.pack("<Q", len(encoded)) + encoded

    # The header has the hashes and comes before the bytes: leave room for it, then fill it in.
    room = encode()
    # Do not write a file that cannot be read back.
    require_shallow(document)
    if len(canonical(document)) > DOCUMENT_LIMIT + DOCUMENT_LIMIT_PER_TENSOR * len(described):
        raise ArtifactError(f"{path}: the metadata is too large for one file ({len(canonical(document))} bytes)")
    with replacing(path) as file:
        with BlockWriter(file.fileno(), len(room) + sum(sizes.values())) as out:
            _copy(memoryview(room), out, hashlib.sha256())
            for name, tensor in sorted(tensors.items()):
                if isinstance(tensor, TensorCopy):
                    listed[name]["sha256"] = tensor.copy(out)
                    continue
                made = tensor() if callable(tensor) else tensor
                hashed, count = hashlib.sha256(), 0
                for piece in made if isinstance(made, Iterator) else (made,):
                    data = _bytes_of(piece)
                    count += len(data)
                    if count <= sizes[name]:
                        _copy(data, out, hashed)
                if count != sizes[name]:
                    raise ValueError(f"{name}: made {count} bytes where {described[name]} was announced")
                listed[name]["sha256"] = hashed.hexdigest()
        document["content"] = digest(listed)
        document["seal"] = digest({key: value for key, value in document.items() if key != "seal"})
        header = encode()
        assert len(header) == len(room), "hashes have a fixed width"
        file.write(header)
    return read_header(path)


def _copy(data: memoryview, out: BlockWriter, hashed: Any) -> None:
    """Write `data` and add it to a hash."""
    while data:
        piece = out.room[: min(_AT_ONCE, len(data))]
        piece[:] = data[: len(piece)]
        hashed.update(piece)
        out.advance(len(piece))
        data = data[len(piece) :]


def _describe(tensor: Any, announced: tuple[str, tuple[int, ...]] | None) -> tuple[str, tuple[int, ...]]:
    if announced is not None:
        return announced
    if isinstance(tensor, TensorCopy):
        return tensor.described
    return DTYPE_NAMES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape)


def _bytes_of(tensor: Any) -> memoryview:
    if not isinstance(tensor, np.ndarray):
        import torch

        # numpy has no bfloat16, so torch tensors are written as bytes.
        tensor = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
