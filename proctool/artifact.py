"""Self-describing safetensors files: what every step leaves for the next.

A file is ordinary safetensors (https://github.com/huggingface/safetensors#format): 8 bytes of header length, a JSON
header, the tensors' bytes. Its metadata holds one JSON document under the key `proctool`:

    format    version of this layout
    kind      "data", "model", ...
    about     what it is: configuration, task or corpus, seed, tokens seen, metrics (free of clocks and paths,
              so that the same work gives the same bytes)
    parents   [{"name", "kind", "content"}]: the artifacts it was made from
    versions  of proctool and the libraries that made it
    tensors   {name: {"dtype", "shape", "sha256"}}
    content   SHA-256 over `tensors`: the identity of the contents, used in lineages
    seal      SHA-256 over everything above

Reading checks structure before it allocates anything, and every hash before it hands anything out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import platform
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool import __version__
from proctool.errors import ArtifactError

if TYPE_CHECKING:
    import torch

FORMAT = 1
HEADER_LIMIT = 64 << 20
"""Bytes of JSON header accepted: a model of 100 000 tensors needs about half of it."""

_DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_NUMPY_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
}  # fmt: skip


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
    about: dict[str, Any]
    parents: tuple[dict[str, Any], ...]
    versions: dict[str, str]
    content: str
    tensors: dict[str, TensorInfo] = field(repr=False)

    @property
    def as_parent(self) -> dict[str, Any]:
        """How a child records this artifact, its own parents included: the whole lineage travels with the file."""
        return {
            "name": self.path.name,
            "kind": self.kind,
            "content": self.content,
            "about": _summary(self.about),
            "parents": list(self.parents),
        }


def _summary(about: Mapping[str, Any]) -> dict[str, Any]:
    return {key: about[key] for key in ("task", "corpus", "seed", "tokens", "steps", "components") if key in about}


def versions() -> dict[str, str]:
    """Versions of proctool, Python and the libraries whose change may change results."""
    found = {"proctool": __version__, "python": platform.python_version()}
    for library in ("numpy", "torch", "transformers", "accelerate", "safetensors"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[library] = metadata.version(library)
    return found


def write(
    path: Path,
    tensors: Mapping[str, NDArray[Any] | torch.Tensor | Callable[[], Any]],
    *,
    kind: str,
    about: Mapping[str, Any],
    parents: Sequence[Artifact | Mapping[str, Any]] = (),
    shapes: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
) -> Artifact:
    """Write an artifact atomically and return its header.

    A tensor may be a function that makes it, called once when its turn to be written comes, so that only one is in
    memory at a time; `shapes` then gives its (dtype, shape). The file appears under its name complete or not at all.
    Raises ArtifactError when the folder does not exist, OSError when it cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ArtifactError(f"{path}: the folder {path.parent} does not exist; create it or write elsewhere")
    if path.is_dir():
        raise ArtifactError(f"{path}: is a folder; give the name of a file to write")
    described = {name: _describe(tensor, (shapes or {}).get(name)) for name, tensor in sorted(tensors.items())}
    header = json_header = b""
    listed = {
        name: {"dtype": dtype, "shape": list(shape), "sha256": "0" * 64} for name, (dtype, shape) in described.items()
    }
    offsets: dict[str, tuple[int, int]] = {}
    position = 0
    for name, (dtype, shape) in described.items():
        size = _DTYPE_BYTES[dtype] * math.prod(shape)
        offsets[name] = (position, position + size)
        position += size
    document: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "about": dict(about),
        "parents": [parent.as_parent if isinstance(parent, Artifact) else dict(parent) for parent in parents],
        "versions": versions(),
        "tensors": listed,
        "content": "0" * 64,
        "seal": "0" * 64,
    }

    def encode() -> bytes:
        entries: dict[str, Any] = {"__metadata__": {"format": "pt", "proctool": canonical(document)}}
        for name, (dtype, shape) in described.items():
            entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets[name])}
        encoded = canonical(entries).encode()
        return encoded + b" " * (-len(encoded) % 8)  # tensors start aligned

    json_header = encode()
    with replacing(path) as file:
        # The hashes stand in the header, before the bytes they cover: leave room, then fill it in.
        file.write(struct.pack("<Q", len(json_header)) + json_header)
        for name, tensor in sorted(tensors.items()):
            data = _bytes_of(tensor() if callable(tensor) else tensor)
            if len(data) != offsets[name][1] - offsets[name][0]:
                raise ValueError(f"{name}: made {len(data)} bytes where {described[name]} was announced")
            listed[name]["sha256"] = hashlib.sha256(data).hexdigest()
            file.write(data)
        document["content"] = _digest(listed)
        document["seal"] = _digest({key: value for key, value in document.items() if key != "seal"})
        header = encode()
        assert len(header) == len(json_header), "hashes have a fixed width"
        file.seek(8)
        file.write(header)
    return read_header(path)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """A binary file that takes the name `path`, fsynced, when the block ends well, and vanishes otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes it private
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename in (None, name):  # name the file that was asked for
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def read_header(path: Path) -> Artifact:
    """The checked header of an artifact; tensors' bytes are not read.

    Raises ArtifactError when the file is missing, truncated, not safetensors, or not written by proctool.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(HEADER_LIMIT, size - 8):
                raise ArtifactError(f"{path}: not a safetensors file, or cut off within its header")
            raw = file.read(length)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ArtifactError(f"{path}: is a folder, not an artifact") from None
    try:
        entries = json.loads(raw)
        own = entries.pop("__metadata__", {}).get("proctool")
        entries = {name: _entry(entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise ArtifactError(f"{path}: its safetensors header is damaged; make the file again") from None
    if own is None:
        raise ArtifactError(f"{path}: a safetensors file, but not one of proctool's (no `proctool` metadata)")
    end = 8 + length
    for name, (_, _, first, last) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise ArtifactError(f"{path}: damaged: tensor {name} does not start where the one before it ends")
        end = last
    if end != size:
        lost = f"{end - size} bytes are missing (a copy or download cut short?)" if end > size else "bytes were added"
        raise ArtifactError(f"{path}: expected {end} bytes, found {size}: {lost}")
    return _artifact(path, own, entries)


def _entry(entry: Any, base: int) -> tuple[str, tuple[int, ...], int, int]:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    whole = all(type(number) is int and 0 <= number < 1 << 62 for number in (*shape, first, last))
    if not whole or last - first != _DTYPE_BYTES[dtype] * math.prod(shape):
        raise ValueError
    return dtype, shape, base + first, base + last


def _artifact(path: Path, own: str, entries: Mapping[str, tuple[str, tuple[int, ...], int, int]]) -> Artifact:
    try:
        document = json.loads(own)
        if document["format"] > FORMAT:
            raise ArtifactError(
                f"{path}: written by a newer proctool (format {document['format']}); upgrade to read it"
            )
        sealed = document.pop("seal")
        if sealed != _digest(document):
            raise ArtifactError(f"{path}: its metadata was altered or damaged (seal does not match)")
        if document["content"] != _digest(document["tensors"]):
            raise ArtifactError(f"{path}: its list of hashes was altered or damaged")
        hashes = {}
        for name, listed in document["tensors"].items():
            dtype, shape, _, _ = entries[name]
            if [dtype, list(shape)] != [listed["dtype"], listed["shape"]]:
                raise ArtifactError(f"{path}: damaged: tensor {name} is not of the recorded type and shape")
            hashes[name] = listed["sha256"]
        if hashes.keys() != entries.keys():
            raise ArtifactError(f"{path}: damaged: tensors and recorded hashes differ")
        return Artifact(
            path=path,
            kind=document["kind"],
            about=document["about"],
            parents=tuple(document["parents"]),
            versions=document["versions"],
            content=document["content"],
            tensors={name: TensorInfo(*entry, hashes[name]) for name, entry in entries.items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ArtifactError(f"{path}: its `proctool` metadata is damaged; make the file again") from None


def open_artifact(path: Path, kind: str) -> Artifact:
    """`read_header`, and an ArtifactError unless the artifact is of `kind`."""
    found = read_header(path)
    if found.kind != kind:
        raise ArtifactError(f"{path}: holds {found.kind}, expected {kind}")
    return found


@contextlib.contextmanager
def _mapped(artifact: Artifact) -> Iterator[memoryview]:
    with artifact.path.open("rb") as file:
        # Private copy-on-write: torch wants writable memory, and the file is never written through.
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def _checked(artifact: Artifact, name: str, view: memoryview) -> memoryview:
    info = artifact.tensors[name]
    data = view[info.start : info.stop]
    if hashlib.sha256(data).hexdigest() != info.sha256:
        raise ArtifactError(f"{artifact.path}: tensor {name} is damaged (its hash does not match); make the file again")
    return data


def verify(artifact: Artifact) -> None:
    """Check every tensor's hash. Raises ArtifactError naming the first that fails."""
    with _mapped(artifact) as view:
        for name in artifact.tensors:
            _checked(artifact, name, view)


def read_numpy(artifact: Artifact, *, check: bool = True) -> dict[str, NDArray[Any]]:
    """The tensors as memory-mapped numpy arrays (no bfloat16), hashes checked unless `check` is false."""
    kinds = {name: np.dtype(kind) for kind, name in _NUMPY_NAMES.items() if kind != "bfloat16"}
    arrays = {}
    with _mapped(artifact) as view:
        for name, info in artifact.tensors.items():
            data = _checked(artifact, name, view) if check else view[info.start : info.stop]
            arrays[name] = np.frombuffer(data, kinds[info.dtype]).reshape(info.shape)
    return arrays


def read_torch(artifact: Artifact, *, check: bool = True) -> dict[str, torch.Tensor]:
    """The tensors as memory-mapped torch tensors, hashes checked unless `check` is false."""
    import torch

    kinds = {name: getattr(torch, kind) for kind, name in _NUMPY_NAMES.items()}
    tensors = {}
    with _mapped(artifact) as view:
        for name, info in artifact.tensors.items():
            data = _checked(artifact, name, view) if check else view[info.start : info.stop]
            flat = (
                torch.frombuffer(data, dtype=kinds[info.dtype])
                if len(data)
                else torch.empty(0, dtype=kinds[info.dtype])
            )
            tensors[name] = flat.reshape(info.shape)
    return tensors


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same value always gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def _describe(tensor: Any, announced: tuple[str, tuple[int, ...]] | None) -> tuple[str, tuple[int, ...]]:
    if announced is not None:
        return announced
    return _NUMPY_NAMES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape)


def _bytes_of(tensor: Any) -> memoryview:
    if not isinstance(tensor, np.ndarray):
        import torch

        # numpy has no bfloat16, so torch tensors travel as bytes.
        tensor = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
