"""Samples as an artifact: safetensors with `tokens` and `targets`, which `warmup --data` reads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proctool import artifact
from proctool.artifact.layout import DTYPE_NAMES
from proctool.procedural.formats.part import Progress, StreamPart

_READ_AT_ONCE = 1 << 22


def write_tensors(part: StreamPart, path: Path, progress: Progress) -> str:
    """Write the artifact in bounded memory. Returns its content hash. Raises ArtifactError, OSError."""
    dtype = part.stream.task.dtype
    # All targets come before the first token in the file, so tokens wait in a temporary file.
    with tempfile.TemporaryFile(dir=path.parent) as waiting:

        def targets() -> Iterator[NDArray[np.bool_]]:
            for samples in part.pieces(progress):
                waiting.write(samples.tokens.tobytes())
                yield samples.targets

        def tokens() -> Iterator[NDArray[Any]]:
            waiting.seek(0)
            while piece := waiting.read(_READ_AT_ONCE):
                yield np.frombuffer(piece, np.uint8)

        shapes = {"targets": ("BOOL", part.shape), "tokens": (DTYPE_NAMES[dtype.__name__], part.shape)}
        made = {"targets": targets, "tokens": tokens}
        return artifact.write(path, made, kind="data", metadata=part.metadata, shapes=shapes).content
