"""Reading documents out of files: plain text, source code and records, compressed or not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import IO

from proctool.corpora import columns, compression, tables
from proctool.corpora.documents import Document
from proctool.corpora.fields import RECODE_HINT, SKIP_HINT, of_record
from proctool.corpora.kinds import kind_of, require_text
from proctool.errors import CorpusError

VERSION = 2
"""Part of every corpus's identity. Increase it when the same file gives other documents."""

TEXT_DOCUMENT, SMALLEST_PIECE = 64 << 10, 4 << 10
"""Bytes up to which a text file is one document, and the smallest piece of a longer file."""


def stretches(path: str, size: int, block: int, reading: str | None) -> list[tuple[int, int | None]]:
    """Ranges of about `block` bytes that divide one file: [(start, stop), ...]."""
    kind = reading or kind_of(path) or "text"
    if size <= block:
        return [(0, None)]
    if kind == "parquet":
        groups: int = columns.parquet(path).num_row_groups
        step = max(1, groups * block // size)
        return [(start, min(start + step, groups)) for start in range(0, groups, step)]
    if kind not in ("text", "lines") or compression.of(path) or tables.holds_a_list(path):
        return [(0, None)]
    return [(start, min(start + block, size)) for start in range(0, size, block)]


def read(path: str, start: int, stop: int | None, text_field: str, reading: str | None = None) -> Iterator[Document]:
    """The documents of one file, or of its range start..stop. Empty documents are skipped.

    Raises CorpusError if reading cannot continue; a single bad document is yielded with its `problem`.
    """
    kind = reading or kind_of(path) or "text"
    try:
        if kind in ("text", "source", "lines", "table"):
            require_text(path)
        for document in READERS[kind](path, start, stop, text_field):
            if document.content or document.problem:
                yield document
    except compression.broken_file_errors() as error:
        raise CorpusError(damaged(path, error)) from None
    except OSError as error:
        if error.errno is None and compression.of(path):  # bz2 raises this for damaged data
            raise CorpusError(damaged(path, error)) from None
        raise CorpusError(f"{path}: {error.strerror or error}") from None


def damaged(path: str, error: BaseException) -> str:
    """The error line for a damaged compressed file."""
    return (
        f"{path}: its compressed data is damaged or cut off ({error}); the text before is kept; "
        "get the file again, or take less with --budget"
    )


def checked_utf8(content: bytes, where: str, offset: int = 0) -> Document:
    """A text document, with a problem if it is not UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start}"
        return Document(b"", problem=f"{where}: not UTF-8 at {place} (0x{content[error.start]:02x}); {RECODE_HINT}")
    return Document(content)


def _lines(file: IO[bytes], start: int, stop: int | None, longest: int = -1) -> Iterator[tuple[int, bytes]]:
    """The lines that start in start..stop - 1, each with its offset; longer lines than `longest` are split."""
    position = start
    if start:
        file.seek(start - 1)
        position -= 1
        piece = b""
        while not piece.endswith(b"\n"):
            piece = file.readline(1 << 20)
            position += len(piece)
            if not piece:
                return
    at_line_start = True
    while not (at_line_start and stop is not None and position >= stop):
        line = file.readline(longest)
        if not line:
            return
        yield position, line
        position += len(line)
        at_line_start = line.endswith(b"\n")


def _read_text(path: str, start: int, stop: int | None, text_field: str) -> Iterator[Document]:
    """A text file up to 64 KiB is one document; a longer file is split at blank lines, if it has any."""
    gathered, begin, wanted = b"", start, _piece_size(path)
    with compression.opened(path) as file:
        pieces: list[bytes] = []
        filled = 0
        for offset, line in _lines(file, start, stop, longest=wanted):
            if offset == 0 and line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
            if not pieces:
                begin = offset
            pieces.append(line)
            filled += len(line)
            blank = not line.strip()
            if (filled >= wanted and blank) or filled >= 2 * wanted:
                gathered = b"".join(pieces)
                kept = len(gathered) if line.endswith(b"\n") else _whole_characters(gathered)
                yield checked_utf8(gathered[:kept], path, begin)
                begin += kept
                pieces, filled = ([gathered[kept:]], len(gathered) - kept) if kept < len(gathered) else ([], 0)
    if pieces:
        yield checked_utf8(b"".join(pieces), path, begin)


def _piece_size(path: str) -> int:
    """Bytes after which a text is split at the next blank line (at most twice as many).

    About a 256th of the file, so that some pieces of a single book go to validation.
    """
    size = os.path.getsize(path)
    return TEXT_DOCUMENT if size <= TEXT_DOCUMENT else min(TEXT_DOCUMENT, max(SMALLEST_PIECE, size // 256))


def _whole_characters(content: bytes) -> int:
    """The number of leading bytes that end with a complete UTF-8 character."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte & 0xC0 != 0x80:  # the last character starts here
            width = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(content) - back if width > back else len(content)
    return len(content)


def _read_source(path: str, start: int, stop: int | None, text_field: str) -> Iterator[Document]:
    """A source file is one document, byte for byte; it may declare any encoding (PEP 263)."""
    with compression.opened(path) as file:
        yield Document(file.read())


def _read_lines(path: str, start: int, stop: int | None, text_field: str) -> Iterator[Document]:
    """JSON lines: one object per line, with its text in `text_field`; a .json file may be one list of objects."""
    if tables.holds_a_list(path):
        yield from tables.read_list(path, text_field)
        return
    with compression.opened(path) as file:
        for number, (offset, line) in enumerate(_lines(file, start, stop), 1):
            if line.isspace():
                continue
            where = f"{path}: line {number}" if start == 0 else f"{path}: the line at byte {offset}"
            try:
                record = json.loads(line)
            except UnicodeDecodeError as error:
                yield Document(b"", problem=f"{where}: not UTF-8 at byte {offset + error.start}; {RECODE_HINT}")
                continue
            except (ValueError, RecursionError) as error:
                reason = getattr(error, "msg", str(error))
                problem = f"{where}: not a JSON object on one line ({reason}); {SKIP_HINT}"
                yield Document(b"", problem=problem)
                continue
            yield of_record(record, text_field, where)


READERS: dict[str, Callable[[str, int, int | None, str], Iterator[Document]]] = {
    "text": _read_text,
    "source": _read_source,
    "lines": _read_lines,
    "table": tables.read_table,
    "parquet": columns.read_parquet,
    "arrow": columns.read_arrow,
}
