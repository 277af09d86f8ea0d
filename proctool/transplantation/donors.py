"""Models on disk that tensors are taken from, one at a time."""

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
    """Reads a saved model tensor by tensor. An artifact's tensors are copied piece by piece, or memory-mapped and let
    go again, so that a transplant holds a few at a time; a Hugging Face folder is loaded whole, by transformers."""

    def __init__(self, saved: SavedModel) -> None:
        self.saved = saved
        self.label = saved.name
        """What people call it; longer where two donors' files are named alike."""
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
        """The component of every tensor that is saved. Raises ModelError for a family whose parts are not known."""
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
        """One tensor in float32, not to be written to, its hash checked.

        Raises ArtifactError when it is damaged, ModelError when it holds NaN or infinities, or no real numbers.
        """
        tensor = self._folder[name] if self.saved.artifact is None else self._mapped(name)
        self._require_finite(name, tensor)
        return tensor.detach().float()

    def _require_finite(self, name: str, values: torch.Tensor) -> None:
        import torch

        if values.numel() and not all(torch.isfinite(bound) for bound in torch.aminmax(values)):
            raise ModelError(
                f"{self.saved.path}: tensor {name} holds values that are not finite (NaN or infinity); "
                "nothing was carried over"
            )

    def verbatim(self, name: str) -> TensorCopy | None:
        """One tensor to be copied from file to file, with the checks of `read`; None where it is not in float32."""
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
            raise ModelError(f"{self.saved.path}: tensor {name} holds {info.dtype}, not real numbers")
        kind = getattr(torch, _FLOATS[info.dtype])
        size = info.stop - info.start
        if size == 0:
            return torch.empty(info.shape, dtype=kind)
        begin = info.start - info.start % mmap.ALLOCATIONGRANULARITY
        with self.saved.path.open("rb") as file:
            # Private copy-on-write: torch wants writable memory, and the file is never written through. The mapping
            # is of this tensor only and ends with it: pages of a whole file would count as this process's memory.
            try:
                mapping = mmap.mmap(file.fileno(), info.stop - begin, access=mmap.ACCESS_COPY, offset=begin)
            except ValueError:
                raise ArtifactError(f"{self.saved.path}: was cut short while it was being read") from None
        data = memoryview(mapping)[info.start - begin :]
        if hashlib.sha256(data).hexdigest() != info.sha256:
            raise ArtifactError(
                f"{self.saved.path}: tensor {name} is damaged (its hash does not match); make the file again"
            )
        return torch.frombuffer(data, dtype=kind, count=size // kind.itemsize).reshape(info.shape)
