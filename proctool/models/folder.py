"""A Hugging Face folder's weights on disk: which files are read, their tensors and hashes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.artifact import digest, read_layout
from proctool.errors import ArtifactError, some_of
from proctool.models.hashes import tensor_hashes
from proctool.untrusted import parse_json

if TYPE_CHECKING:
    import torch

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file; `name` is its name in the file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FolderWeights:
    """The tensors of a folder's weight files, by name."""

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    stray: tuple[str, ...] = ()
    """Weight files in the folder that are not part of the model."""

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of every tensor's bytes, by name. Raises ArtifactError, OSError."""
        found = {file: tensor_hashes(file) for file in self.files}
        return {name: found[tensor.file][tensor.name] for name, tensor in self.tensors.items()}

    @functools.cached_property
    def content(self) -> str:
        """The content hash: that of an artifact with the same tensors."""
        return digest(
            {
                name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "sha256": self.hashes[name]}
                for name, tensor in self.tensors.items()
            }
        )

    @contextlib.contextmanager
    def slices(self) -> Iterator[dict[str, Any]]:
        """Tensors by name as safetensors' slices: read when they are indexed."""
        from safetensors import safe_open

        with contextlib.ExitStack() as opened:
            readers = {file: opened.enter_context(safe_open(file, framework="pt")) for file in self.files}
            yield {name: readers[tensor.file].get_slice(tensor.name) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> torch.Tensor:
        """One tensor as it is stored."""
        from safetensors import safe_open

        tensor = self.tensors[name]
        with safe_open(tensor.file, framework="pt") as reader:
            found: torch.Tensor = reader.get_tensor(tensor.name)
        return found


def read_folder(folder: Path, strip: Sequence[str] = ()) -> FolderWeights:
    """The tensors of `folder`, with the prefixes `strip` removed from their names, one after the other.

    Raises ArtifactError for an adapter, a missing or damaged file, a broken link, a folder with two sets of weights,
    and a prefix that no tensor has.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if (folder / name).exists():
            raise ArtifactError(
                f"{folder}: has an adapter ({name}) instead of a whole model; merge it into its model first"
            )
    names, stray = _files(folder)
    for name in ("config.json", *names):
        require_file(folder / name)
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        _, entries = read_layout(folder / name)
        for tensor, (dtype, shape, _, _) in entries.items():
            if tensor in tensors:
                raise ArtifactError(
                    f"{folder}: tensor {tensor} is in both {tensors[tensor].file.name} and {name}; remove one"
                )
            tensors[tensor] = StoredTensor(folder / name, tensor, dtype, shape)
    for prefix in strip:
        tensors = _stripped(folder, tensors, prefix)
    return FolderWeights(folder, tuple(folder / name for name in names), tensors, stray)


def has_weights(folder: Path) -> bool:
    """Whether a folder has safetensors weights, not only a configuration."""
    return any((folder / name).is_file() for name in (WEIGHTS, INDEX))


def require_file(path: Path) -> None:
    """Raise ArtifactError unless `path` is a regular file or a link to one."""
    if path.is_symlink() and not path.exists():
        raise ArtifactError(f"{path}: is a broken link to {path.readlink()}; restore that file or copy it here")
    if path.exists() and not path.is_file():
        raise ArtifactError(f"{path}: is not a file")
    if not path.exists():
        raise ArtifactError(f"{path.parent}: has no {path.name}")


def _files(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """The weight files that make up the model, and those that do not."""
    there = sorted(path.name for path in folder.glob("*.safetensors"))
    indexed = _indexed(folder) if (folder / INDEX).exists() else []
    if WEIGHTS in there and indexed != [WEIGHTS]:
        if twice := [name for name in indexed if name in there]:
            raise ArtifactError(
                f"{folder}: has two sets of weights, {WEIGHTS} and the {len(indexed)} files of {INDEX} "
                f"({twice[0]}, ...); remove one set"
            )
        indexed = []
    if not indexed and not (folder / WEIGHTS).is_symlink() and WEIGHTS not in there:
        raise ArtifactError(
            f"{folder}: has no {WEIGHTS}; proctool reads only safetensors, so convert the weights first"
        )
    files = indexed or [WEIGHTS]
    links = {name for name in files if (folder / name).is_symlink()}
    if absent := [name for name in files if name not in there and name not in links]:
        raise ArtifactError(
            f"{folder}: {INDEX} lists {len(files)} files, of which {some_of(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} missing; download the folder again"
        )
    return files, tuple(name for name in there if name not in files)


def _indexed(folder: Path) -> list[str]:
    """The files that an index names. Raises ArtifactError."""
    index = folder / INDEX
    try:
        require_file(index)
        if index.stat().st_size > 64 << 20:
            raise ValueError("too large")
        names = set(parse_json(index.read_bytes())["weight_map"].values())
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("names that are not text")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{index}: damaged ({error}); download the folder again") from None
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ArtifactError(f"{index}: lists {name!r}, which is not a safetensors file of this folder")
    return sorted(names)


def _stripped(folder: Path, tensors: Mapping[str, StoredTensor], prefix: str) -> dict[str, StoredTensor]:
    if not any(name.startswith(prefix) for name in tensors):
        raise ArtifactError(f"{folder}: no tensor name starts with {prefix!r}; they are {some_of(sorted(tensors))}")
    renamed: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix(prefix)
        if short in renamed:
            raise ArtifactError(
                f"{folder}: without {prefix!r}, two tensors have the name {short}; strip another prefix"
            )
        renamed[short] = tensor
    return renamed
