"""Samples as tables with the columns `input_ids` and `labels` (-100 off target): Parquet, and Arrow's IPC stream.

`datasets.load_dataset("parquet", data_files=FILE)` reads Parquet, `datasets.Dataset.from_file(FILE)` reads Arrow.
pyarrow writes both; the metadata of the schema describes the contents under the key `MARK`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proctool import artifact
from proctool.procedural.formats.part import ContentHash, Progress, StreamPart
from proctool.procedural.samples import Samples

if TYPE_CHECKING:
    import pyarrow

OFF_TARGET = -100
"""The label that the losses of torch and transformers ignore."""
MARK = "proctool.data"
_UNKNOWN = "0" * 64
"""Placeholder in the metadata of an Arrow file, which come first, until the content hash is known."""
_HEAD, _MOST_METADATA = 1 << 20, 64 << 20
"""Bytes that are searched for the mark: at the start of an Arrow stream, at the end of a Parquet file."""


def labels_of(samples: Samples) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Tokens if they are targets, OFF_TARGET elsewhere. (n, length), not shifted: Hugging Face models shift labels."""
    return np.where(samples.targets, samples.tokens.astype(np.int32), np.int32(OFF_TARGET))


def write_parquet(part: StreamPart, path: Path, progress: Progress) -> str:
    """Write a Parquet file in bounded memory. Returns the content hash. Raises OSError."""
    import pyarrow.parquet

    content = ContentHash(part.shape, part.stream.task.dtype)
    with artifact.replacing(path) as file, pyarrow.parquet.ParquetWriter(file, _schema({})) as writer:
        for samples in part.pieces(progress):
            writer.write_batch(_batch(content.add(samples)))
        writer.add_key_value_metadata({MARK: _document(part, content.digest())})
    return content.digest()


def write_arrow(part: StreamPart, path: Path, progress: Progress) -> str:
    """Write an Arrow IPC stream in bounded memory. Returns the content hash. Raises OSError."""
    import pyarrow

    content = ContentHash(part.shape, part.stream.task.dtype)
    with artifact.replacing(path) as file:
        with pyarrow.ipc.new_stream(file, _schema({MARK: _document(part, _UNKNOWN)})) as writer:
            for samples in part.pieces(progress):
                writer.write_batch(_batch(content.add(samples)))
        end = file.tell()
        file.seek(0)
        file.seek(file.read(_HEAD).index(_UNKNOWN.encode()))
        file.write(content.digest().encode())
        file.seek(end)
    return content.digest()


def _schema(metadata: dict[str, str]) -> pyarrow.Schema:
    import pyarrow

    numbers = pyarrow.list_(pyarrow.int32())
    return pyarrow.schema({"input_ids": numbers, "labels": numbers}, metadata)


def _batch(samples: Samples) -> pyarrow.RecordBatch:
    import pyarrow

    n, length = samples.tokens.shape
    offsets = pyarrow.array(np.arange(0, n * length + 1, length, dtype=np.int32))
    columns = [
        pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values.reshape(-1)))
        for values in (samples.tokens.astype(np.int32), labels_of(samples))
    ]
    return pyarrow.record_batch(columns, schema=_schema({}))


def _document(part: StreamPart, content: str) -> str:
    return artifact.canonical({"about": part.metadata, "content": content, "versions": artifact.versions()})


# -- recognising --


def is_parquet_of_ours(path: Path) -> bool:
    """Whether proctool wrote this Parquet file and its samples are unchanged."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        end = file.read(8)
        if end[4:] != b"PAR1":
            return False
        length = min(int.from_bytes(end[:4], "little"), size - 8, _MOST_METADATA)
        file.seek(size - 8 - length)
        if MARK.encode() not in file.read(length):
            return False
    return _unchanged(path, _read_parquet)


def is_arrow_of_ours(path: Path) -> bool:
    """Whether proctool wrote this Arrow stream and its samples are unchanged."""
    with path.open("rb") as file:
        if MARK.encode() not in file.read(_HEAD):
            return False
    return _unchanged(path, _read_arrow)


def _read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        yield file.metadata.metadata or {}
        yield from file.iter_batches(batch_size=1024)


def _read_arrow(path: Path) -> Iterator[Any]:
    import pyarrow

    with ExitStack() as opened:
        mapped = opened.enter_context(pyarrow.memory_map(str(path)))
        stream = opened.enter_context(pyarrow.ipc.open_stream(mapped))
        yield stream.schema.metadata or {}
        yield from stream


def _unchanged(path: Path, read: Any) -> bool:
    """Whether the samples in a table have the content hash in its metadata."""
    import pyarrow

    try:
        batches = read(path)
        document = json.loads(next(batches)[MARK.encode()])
        about = document["about"]
        dtype = np.uint16 if about["vocab_size"] <= 1 << 16 else np.uint32
        content = None
        for batch in batches:
            tokens, labels = (_rows(batch.column(name)) for name in ("input_ids", "labels"))
            if content is None:
                start, stop = about["samples"]
                content = ContentHash((stop - start, tokens.shape[1]), dtype)
            content.add(Samples(tokens.astype(dtype), labels != OFF_TARGET))
            if not np.array_equal(tokens[labels != OFF_TARGET], labels[labels != OFF_TARGET]):
                return False
        return content is not None and content.digest() == document["content"]
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, AttributeError):
        return False


def _rows(column: Any) -> Any:
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
