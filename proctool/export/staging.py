"""Atomic writing of a folder, and conversion of tensors to the requested number format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from proctool import artifact
from proctool.errors import ArtifactError, ModelError

if TYPE_CHECKING:
    import torch

Dtype = Literal["fp32", "bf16", "fp16"]
_TORCH = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into; it is renamed to `folder` at the end, with the umask's permissions.

    Raises ArtifactError if `folder` exists and is not empty, or its parent is missing.
    """
    folder = Path(folder)
    require_free(folder)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    try:
        yield unfinished
        unfinished.chmod(0o777 & ~artifact.umask())  # mkdtemp and safetensors create private files
        for path in unfinished.rglob("*"):
            path.chmod((0o777 if path.is_dir() else 0o666) & ~artifact.umask())
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def require_free(folder: Path) -> None:
    """Raise ArtifactError unless a folder can be created with this name."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder}: exists and is not an empty folder; export to a new one")
    if not folder.absolute().parent.is_dir():
        raise ArtifactError(f"{folder}: the folder {folder.absolute().parent} does not exist; create it first")


def torch_dtype(dtype: str) -> torch.dtype:
    """torch's number format for fp32, bf16 or fp16."""
    import torch

    found: torch.dtype = getattr(torch, _TORCH[dtype])
    return found


def cast(name: str, value: torch.Tensor, dtype: str) -> torch.Tensor:
    """A copy of a tensor in `dtype`. Raises ModelError if a number is too large for `dtype`."""
    made = value.to(torch_dtype(dtype), copy=True).contiguous()
    if dtype != "fp32" and not made.isfinite().all():
        raise ModelError(f"tensor {name} has numbers too large for {dtype}; export as bf16 or fp32")
    return made
