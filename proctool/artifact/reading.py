"""Reading artifacts: the structure is checked before memory is allocated, hashes before data is returned."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.artifact.layout import (
    DOCUMENT_LIMIT,
    DOCUMENT_LIMIT_PER_TENSOR,
    DTYPE_BYTES,
    DTYPE_NAMES,
    FORMAT,
    HEADER_LIMIT,
    Artifact,
    TensorInfo,
    digest,
)
from proctool.errors import ArtifactError
from proctool.untrusted import parse_json, require_shallow

if TYPE_CHECKING:
    import torch

_MOST_DIMENSIONS = 16


def read_header(path: Path) -> Artifact:
    """Read and check the header of an artifact; the tensors are not read.

    Raises ArtifactError when the file is missing, truncated, not safetensors, or not written by proctool.
    """
    path = Path(path)
    metadata, entries = read_layout(path)
    own = metadata.get("proctool")
    if own is None:
        raise ArtifactError(f"{path}: a safetensors file, but not written by proctool (it has no `proctool` metadata)")
    return _artifact(path, own, entries)


Entry = tuple[str, tuple[int, ...], int, int]
"""A tensor's dtype, shape, first byte in the file and the byte after its last."""


def read_layout(path: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """The metadata of any safetensors file and the position of each tensor, checked against the file's size.

    Raises ArtifactError when the file is missing, truncated or not safetensors.
    """
    try:
        status = path.stat()
        size = status.st_size
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise ArtifactError(f"{path}: is a pipe or device; give a regular file")  # opening a pipe can block forever
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(HEADER_LIMIT, size - 8):
                raise ArtifactError(f"{path}: not a safetensors file, or its header is truncated")
            raw = file.read(length)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ArtifactError(f"{path}: is a folder, not an artifact") from None
    try:
        listed = parse_json(raw)
        metadata = listed.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise ValueError
        for name, entry in listed.items():
            if isinstance(entry["dtype"], str) and entry["dtype"] not in DTYPE_BYTES:
                raise ArtifactError(f"{path}: tensor {name} holds {entry['dtype']}, which proctool does not support")
        entries = {name: _entry(entry, 8 + length) for name, entry in listed.items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ArtifactError(f"{path}: its safetensors header is damaged; make the file again") from None
    end = 8 + length
    for name, (_, _, first, last) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise ArtifactError(f"{path}: damaged: tensor {name} does not start where the previous one ends")
        end = last
    if end != size:
        lost = (
            f"{end - size} bytes are missing (was a copy or download interrupted?)"
            if end > size
            else "bytes were added"
        )
        raise ArtifactError(f"{path}: expected {end} bytes, found {size}: {lost}")
    return metadata, entries


def _entry(entry: Any, base: int) -> Entry:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError
    whole = all(type(number) is int and 0 <= number < 1 << 62 for number in (*shape, first, last))
    if not whole or last - first != DTYPE_BYTES[dtype] * math.prod(shape):
        raise ValueError
    return dtype, shape, base + first, base + last


def _artifact(path: Path, own: str, entries: Mapping[str, tuple[str, tuple[int, ...], int, int]]) -> Artifact:
    try:
        if len(own) > DOCUMENT_LIMIT + DOCUMENT_LIMIT_PER_TENSOR * len(entries):
            raise ArtifactError(
                f"{path}: {len(own)} bytes of `proctool` metadata exceed the limit; the file is damaged"
            )
        document = parse_json(own)
        if document["format"] > FORMAT:
            raise ArtifactError(
                f"{path}: written by a newer proctool (format {document['format']}); upgrade proctool to read it"
            )
        sealed = document.pop("seal")
        if sealed != digest(document):
            raise ArtifactError(f"{path}: its metadata is changed or damaged (the seal does not match)")
        if document["content"] != digest(document["tensors"]):
            raise ArtifactError(f"{path}: its list of hashes is changed or damaged")
        hashes = {}
        for name, listed in document["tensors"].items():
            dtype, shape, _, _ = entries[name]
            if [dtype, list(shape)] != [listed["dtype"], listed["shape"]]:
                raise ArtifactError(f"{path}: damaged: tensor {name} does not have the recorded dtype and shape")
            hashes[name] = listed["sha256"]
        if hashes.keys() != entries.keys():
            raise ArtifactError(f"{path}: damaged: its tensors and its recorded hashes have different names")
        _require_types(document)
        return Artifact(
            path=path,
            kind=document["kind"],
            metadata=document["about"],
            parents=tuple(document["parents"]),
            versions=document["versions"],
            content=document["content"],
            tensors={name: TensorInfo(*entry, hashes[name]) for name, entry in entries.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ArtifactError(f"{path}: its `proctool` metadata is damaged; make the file again") from None


def _require_types(document: Mapping[str, Any]) -> None:
    """Raise ValueError unless every field has the expected type: the seal detects corruption, not tampering."""
    require_shallow(document)
    metadata, parents, libraries = document["about"], document["parents"], document["versions"]
    written = [document["kind"], *libraries, *libraries.values(), *(each["kind"] for each in parents)]
    if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in written):
        raise ValueError
    ancestors = list(parents)
    while ancestors:
        parent = ancestors.pop()
        named = isinstance(parent["name"], str) and isinstance(parent["kind"], str)
        if not named or not isinstance(parent["content"], str | None):
            raise ValueError
        if not isinstance(parent.get("about") or {}, dict):
            raise ValueError
        ancestors += parent.get("parents") or []


def open_artifact(path: Path, kind: str) -> Artifact:
    """`read_header`, and an ArtifactError unless the artifact is of `kind`."""
    found = read_header(path)
    if found.kind != kind:
        raise ArtifactError(f"{path}: holds {found.kind}, expected {kind}")
    return found


@contextlib.contextmanager
def _mapped(artifact: Artifact) -> Iterator[memoryview]:
    with artifact.path.open("rb") as file:
        # Copy-on-write: torch needs writable memory, and the file must never change.
        try:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        except ValueError:  # the file has become empty
            raise ArtifactError(f"{artifact.path}: was cut short while it was being read") from None
        yield view


def _checked(artifact: Artifact, name: str, view: memoryview) -> memoryview:
    info = artifact.tensors[name]
    data = view[info.start : info.stop]
    if hashlib.sha256(data).hexdigest() != info.sha256:
        raise ArtifactError(f"{artifact.path}: tensor {name} is damaged (its hash does not match); make the file again")
    return data


def _read(
    artifact: Artifact, kinds: Mapping[str, Any], lack: str, check: bool
) -> Iterator[tuple[str, TensorInfo, Any, memoryview]]:
    """Each tensor's name, description, dtype from `kinds` and bytes; the hash is checked if `check` is true.

    Raises ArtifactError, ending in `lack`, at the first tensor of another dtype.
    """
    with _mapped(artifact) as view:
        for name, info in artifact.tensors.items():
            if info.dtype not in kinds:
                raise ArtifactError(f"{artifact.path}: tensor {name} holds {info.dtype}, {lack}")
            data = _checked(artifact, name, view) if check else view[info.start : info.stop]
            yield name, info, kinds[info.dtype], data


def verify(artifact: Artifact) -> None:
    """Check every tensor's hash. Raises ArtifactError naming the first that fails."""
    with _mapped(artifact) as view:
        for name in artifact.tensors:
            _checked(artifact, name, view)


def read_numpy(artifact: Artifact, *, check: bool = True) -> dict[str, NDArray[Any]]:
    """The tensors as memory-mapped numpy arrays (no bfloat16), hashes checked unless `check` is false."""
    kinds = {name: np.dtype(kind) for kind, name in DTYPE_NAMES.items() if kind != "bfloat16"}
    found = _read(artifact, kinds, "which numpy does not support", check)
    return {name: np.frombuffer(data, kind).reshape(info.shape) for name, info, kind, data in found}


def read_torch(artifact: Artifact, *, check: bool = True) -> dict[str, torch.Tensor]:
    """The tensors as memory-mapped torch tensors, hashes checked unless `check` is false."""
    import torch

    kinds = {name: getattr(torch, kind) for kind, name in DTYPE_NAMES.items()}
    tensors = {}
    for name, info, kind, data in _read(artifact, kinds, "which proctool does not support", check):
        flat = torch.frombuffer(data, dtype=kind) if len(data) else torch.empty(0, dtype=kind)
        tensors[name] = flat.reshape(info.shape)
    return tensors
