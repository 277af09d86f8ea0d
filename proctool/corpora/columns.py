"""Documents in columns: parquet and arrow files. The field may be nested in another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from proctool.corpora.documents import Document
from proctool.corpora.fields import MISSING, field_of, missing_field, names_of, of_record
from proctool.errors import CorpusError, first_line


def parquet(path: str) -> Any:
    """Open a parquet file. Raises CorpusError if it is not valid."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.OSFile(os.fsencode(path)))
        _ = file.schema_arrow.names  # this decodes the schema
        return file
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path}: not a complete parquet file ({first_line(error)}); download or copy it again"
        ) from None


def read_parquet(path: str, start: int, stop: int | None, text_field: str) -> Iterator[Document]:
    """The column `text_field` of row groups start..stop - 1."""
    import pyarrow

    file = parquet(path)
    column = _column(path, file.schema_arrow, text_field)
    groups = list(range(start, file.num_row_groups if stop is None else stop))
    try:
        batches = file.iter_batches(batch_size=256, row_groups=groups, columns=[text_field])
        yield from _documents(path, batches, column, text_field)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: damaged ({first_line(error)}); download or copy it again") from None


def read_arrow(path: str, start: int, stop: int | None, text_field: str) -> Iterator[Document]:
    """The column `text_field` of an arrow file or stream written by `datasets`."""
    import pyarrow

    try:
        with pyarrow.memory_map(os.fsencode(path)) as source:
            if source.read(6) == b"ARROW1":
                file = pyarrow.ipc.open_file(source)
                batches = (file.get_batch(number) for number in range(file.num_record_batches))
                schema = file.schema
            else:
                source.seek(0)
                stream = pyarrow.ipc.open_stream(source)
                batches, schema = iter(stream), stream.schema
            column = _column(path, schema, text_field)
            pieces = (batch.slice(first, 256) for batch in batches for first in range(0, len(batch), 256))
            yield from _documents(path, (piece.select([column]) for piece in pieces), column, text_field)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path}: not a complete arrow file ({first_line(error)}); download or copy it again"
        ) from None


def _documents(path: str, batches: Iterable[Any], column: str, text_field: str) -> Iterator[Document]:
    for batch in batches:
        for value in batch.column(batch.schema.get_field_index(column)).to_pylist():
            yield of_record({column: value}, text_field, path)


def _column(path: str, schema: Any, text_field: str) -> str:
    """The column of the field, or the column that contains it. Raises CorpusError."""
    shape = {field.name: _shape(field.type) for field in schema}
    if field_of(shape, text_field) is MISSING:
        raise CorpusError(missing_field(path, text_field, names_of(shape)))
    if text_field in shape:
        return text_field
    within = [name for name in shape if text_field.startswith(f"{name}.") and isinstance(shape[name], dict)]
    return str(max(within, key=len))


def _shape(kind: Any) -> Any:
    """A struct as a mapping of its fields; any other value unchanged."""
    import pyarrow

    if not pyarrow.types.is_struct(kind):
        return kind
    return {kind.field(place).name: _shape(kind.field(place).type) for place in range(kind.num_fields)}
