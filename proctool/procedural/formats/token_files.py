"""Samples as one stream of tokens, without targets: for nanoGPT and for Megatron-LM.

nanoGPT (https://github.com/karpathy/nanoGPT, train.py) reads `train.bin` and `val.bin` as uint16 numbers.

Megatron-LM (megatron/core/datasets/indexed_dataset.py) reads NAME.bin, the tokens, with NAME.idx, little-endian:

    MMIDIDX\\0\\0, version (uint64) 1, type of the tokens (uint8) 8: uint16, 4: int32
    number of sequences (uint64), number of document indices (uint64)
    length of each sequence (int32), its first byte in NAME.bin (int64)
    the first sequence of each document, and the number of sequences (int64)

Each sample is a sequence and a document of its own.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from proctool import artifact
from proctool.errors import OptionError
from proctool.procedural.formats.part import ContentHash, Progress, StreamPart

_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
_CODES = {"<u2": 8, "<i4": 4}
_ROWS = 1 << 18


def write_nanogpt(part: StreamPart, path: Path, progress: Progress) -> str:
    """Write the tokens as uint16, and the description. Returns the content hash. Raises OptionError, OSError."""
    task = part.stream.task
    if task.vocab_size > 1 << 16:
        raise OptionError(
            f"{task.spec}: {task.vocab_size} tokens do not fit nanoGPT's 16 bits; choose another --format"
        )
    return _write(part, [path], progress, "<u2")


def write_megatron(part: StreamPart, path: Path, progress: Progress) -> str:
    """Write NAME.bin, NAME.idx and the description. Returns the content hash. Raises OSError."""
    tokens = "<u2" if part.stream.task.vocab_size <= 1 << 16 else "<i4"
    return _write(part, list(megatron_files(path)), progress, tokens)


def megatron_files(path: Path) -> tuple[Path, Path]:
    """NAME.bin and NAME.idx, whichever of NAME, NAME.bin and NAME.idx is given."""
    name = path.name.removesuffix(".idx").removesuffix(".bin")
    return path.with_name(f"{name}.bin"), path.with_name(f"{name}.idx")


def _write(part: StreamPart, paths: list[Path], progress: Progress, tokens: str) -> str:
    content = ContentHash(part.shape, part.stream.task.dtype)
    about = {**part.metadata, "dtype": np.dtype(tokens).name, "length": part.shape[1]}
    described = artifact.described(
        paths, artifact.sidecar_of(paths[0]), kind="data", about=about, content=content.digest
    )
    with described as (out, *index):
        for samples in part.pieces(progress):
            out.write(content.add(samples).tokens.astype(tokens).tobytes())
        for file in index:
            _write_index(part.shape, tokens, file)
    return content.digest()


def _write_index(shape: tuple[int, int], tokens: str, out: artifact.Hashed) -> None:
    n, length = shape
    out.write(_MAGIC + struct.pack("<QBQQ", _VERSION, _CODES[tokens], n, n + 1))
    width = length * np.dtype(tokens).itemsize
    for values, kind, count in ((0, "<i4", n), (width, "<i8", n), (1, "<i8", n + 1)):
        for first in range(0, count, _ROWS):
            rows = np.arange(first, min(first + _ROWS, count), dtype=kind)
            out.write((rows * values if values else np.full_like(rows, length)).astype(kind).tobytes())
