"""Models on disk whose tensors are read one at a time."""

from __future__ import annotations

import functools
import hashlib
import mmap
from typing import TYPE_CHECKING, Any

from proctool.artifact import TensorCopy
from proctool.errors import ArtifactError, ModelError
from proctool.models.build import outline
from proctool.models.components import Place, anatomy
from proctool.models.saved import SavedModel

if TYPE_CHECKING:
    import torch

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Donor:
    """Reads a saved model tensor by tensor. An artifact's tensors are copied in pieces, or memory-mapped and released,
    so that a transplant holds a few at a time; transformers loads a Hugging Face folder as a whole."""

    def __init__(self, saved: SavedModel) -> None:
        self.saved = saved
        self.label = saved.name
        """Its name in messages; longer if two donors' files have the same name."""
        self.config: Any = saved.config
        self.depth = int(getattr(saved.config, "num_hidden_layers", 0))

    def __str__(self) -> str:
        return self.label

    @property
    def content(self) -> str | None:
        """Content hash of its weights; None for a model that is not on disk."""
        return self.saved.content

    @functools.cached_property
    def places(self) -> dict[str, Place]:
        """The component of every saved tensor. Raises ModelError for a family with unknown modules."""
        parts = anatomy(outline(self.config))
        return parts.parameters | parts.buffers

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by name."""
        if self.saved.artifact is not None:
            return {name: info.shape for name, info in self.saved.artifact.tensors.items()}
        return {name: tuple(tensor.shape) for name, tensor in self._folder.items()}

    @functools.cached_property
    def _folder(self) -> dict[str, torch.Tensor]:
        return self.saved.weights()

    def read(self, name: str) -> torch.Tensor:
        """One tensor in float32 with its hash checked; do not write to it.

        Raises ArtifactError if it is damaged, ModelError if it has NaN or infinities, or no floating-point numbers.
        """
        tensor = self._folder[name] if self.saved.artifact is None else self._mapped(name)
        self._require_finite(name, tensor)
        return tensor.detach().float()

    def _require_finite(self, name: str, values: torch.Tensor) -> None:
        import torch

        if values.numel() and not all(torch.isfinite(bound) for bound in torch.aminmax(values)):
            raise ModelError(
                f"{self.saved.path}: tensor {name} has NaN or infinite values; nothing was carried over; use another "
                "donor"
            )

    def verbatim(self, name: str) -> TensorCopy | None:
        """One tensor to copy from file to file, with the checks of `read`; None if it is not in float32."""
        import torch

        if self.saved.artifact is None or self.saved.artifact.tensors[name].dtype != "F32":
            return None

        def examine(piece: memoryview) -> None:
            self._require_finite(name, torch.frombuffer(piece, dtype=torch.float32))

        return TensorCopy(self.saved.artifact, name, examine)

    def _mapped(self, name: str) -> torch.Tensor:
        import torch

        assert self.saved.artifact is not None
        info = self.saved.artifact.tensors[name]
        if info.dtype not in _FLOATS:
            raise ModelError(f"{self.saved.path}: tensor {name} has type {info.dtype}, not floating-point numbers")
        kind = getattr(torch, _FLOATS[info.dtype])
        size = info.stop - info.start
        if size == 0:
            return torch.empty(info.shape, dtype=kind)
        begin = info.start - info.start % mmap.ALLOCATIONGRANULARITY
        with self.saved.path.open("rb") as file:
            # Copy-on-write, because torch needs writable memory, and the file must not change. The mapping covers only
            # this tensor and ends with it: pages of a whole file would count as memory of this process.
            try:
                mapping = mmap.mmap(file.fileno(), info.stop - begin, access=mmap.ACCESS_COPY, offset=begin)
            except ValueError:
                raise ArtifactError(f"{self.saved.path}: the file became shorter while it was read") from None
        data = memoryview(mapping)[info.start - begin :]
        if hashlib.sha256(data).hexdigest() != info.sha256:
            raise ArtifactError(
                f"{self.saved.path}: tensor {name} is damaged (its hash does not match); create the file again"
            )
        return torch.frombuffer(data, dtype=kind, count=size // kind.itemsize).reshape(info.shape)
