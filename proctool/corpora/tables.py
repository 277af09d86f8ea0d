"""Records of CSV and TSV files, and of JSON files with one list."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from typing import IO, Any

from proctool.corpora import compression
from proctool.corpora.documents import Document
from proctool.corpora.fields import RECODE_HINT, SKIP_HINT, missing_field, of_record
from proctool.errors import CorpusError

_LONGEST_FIELD = (1 << 31) - 1
_CHUNK = 1 << 20


class _Lines:
    """The lines of a file as text for `csv`; records the position of the first byte that is not UTF-8."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = 0
        self.bad: int | None = None

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            start, self._position = self._position, self._position + len(line)
            if start == 0:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                self.bad = start + error.start if self.bad is None else self.bad
                yield line.decode(errors="replace")


def read_table(path: str, start: int, stop: int | None, text_field: str) -> Iterator[Document]:
    """CSV or TSV: the first row names the fields, every other row is a record. Raises CorpusError."""
    csv.field_size_limit(_LONGEST_FIELD)
    with compression.opened(path) as file:
        lines = _Lines(file)
        tabs = compression.without_suffix(path).lower().endswith(".tsv")
        rows = csv.reader(lines, delimiter="\t" if tabs else ",", strict=True)
        header: list[str] | None = None
        while True:
            line = rows.line_num + 1
            where = f"{path}: line {line}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Document(b"", problem=f"{where}: not {'TSV' if tabs else 'CSV'} ({error}); {SKIP_HINT}")
                continue
            bad, lines.bad = lines.bad, None
            if header is None:
                header = row
                if text_field not in header:
                    raise CorpusError(missing_field(where, text_field, header))
                place = header.index(text_field)
            elif bad is not None:
                yield Document(b"", problem=f"{where}: not UTF-8 at byte {bad}; {RECODE_HINT}")
            elif row and len(row) != len(header):
                problem = f"{where}: {len(row)} fields, but the first line has {len(header)}; {SKIP_HINT}"
                yield Document(b"", problem=problem)
            elif row:
                yield Document(row[place].encode())


def holds_a_list(path: str) -> bool:
    """Whether a .json file begins with a list instead of a record."""
    if not compression.without_suffix(path).lower().endswith(".json"):
        return False
    with compression.opened(path) as file:
        head = file.read(1 << 12).removeprefix(codecs.BOM_UTF8).lstrip()
    return head.startswith(b"[")


def read_list(path: str, text_field: str) -> Iterator[Document]:
    """A JSON list of records, read in pieces. Raises CorpusError if it is malformed."""
    with compression.opened(path) as file:
        for number, record in enumerate(_elements(path, file), 1):
            yield of_record(record, text_field, f"{path}: record {number}")


class _Reader:
    """Reads consecutive JSON values from a stream; `text` from `at` on is not read yet."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._values = json.JSONDecoder()
        self._ended = False
        self.text, self.at = "", 0

    def more(self) -> bool:
        """Read as much again as is waiting, so that a long record is not parsed too often."""
        if not self._ended:
            piece = self._file.read(max(_CHUNK, len(self.text) - self.at))
            self._ended = not piece
            self.text, self.at = self.text[self.at :] + self._decode(piece, final=self._ended), 0
        return not self._ended

    def peek(self) -> str:
        """The next character that is not whitespace; "" at the end."""
        while True:
            while self.at < len(self.text):
                if not self.text[self.at].isspace():
                    return self.text[self.at]
                self.at += 1
            if not self.more():
                return ""

    def take(self, *wanted: str) -> str:
        """Read the next character, which must be in `wanted`. Raises ValueError."""
        found = self.peek()
        if found not in wanted or not found:
            raise ValueError(f"expected {' or '.join(wanted)}, found {found or 'its end'}")
        self.at += 1
        return found

    def value(self) -> Any:
        """Read the next value. Raises ValueError."""
        self.peek()
        while True:
            try:
                found, stop = self._values.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not self.more():
                    raise ValueError(error.msg) from None
                continue
            if stop == len(self.text) and self.more():
                continue  # a number may continue
            self.at = stop
            return found


def _elements(path: str, file: IO[bytes]) -> Iterator[Any]:
    reader, count = _Reader(file), 0
    try:
        reader.take("[")
        if reader.peek() == "]":
            return
        while True:
            yield reader.value()
            count += 1
            if reader.take(",", "]") == "]":
                break
        if reader.peek():
            raise ValueError("text follows the list")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 after record {count} ({error.reason}); convert it to UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: not a JSON list of records after record {count} ({error}); fix it") from None
