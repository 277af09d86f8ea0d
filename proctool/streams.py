"""Safe standard output and error: they may be closed or full, have no reader, or not support a symbol.

Results go to standard output, so a failed write is an error. If the reader is gone (`| head`), the command exits with
0, like other tools. Messages go to standard error, and a failed write there does not stop the command.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from proctool.errors import ProctoolError, describe_os_error

_PLAIN = {
    **dict.fromkeys("–—−‐", "-"), "·": ".", "…": "...", "×": "x", "±": "+-", "→": "->", "←": "<-", "≥": ">=", "≤": "<=",
    "≈": "~", **dict.fromkeys("►▶▸›", ">"), **dict.fromkeys("│┃║╎┆", "|"), **dict.fromkeys("─━═╌┄╺╸╴╶", "-"),
    **dict.fromkeys("•●○▪", "*"), **dict.fromkeys("✓✔", "ok"), **dict.fromkeys("✗✘", "no"),
    **dict.fromkeys("‘’′", "'"), **dict.fromkeys("“”″", '"'), "\N{NO-BREAK SPACE}": " ", "µ": "u",
    **{chr(0x2080 + digit): str(digit) for digit in range(10)},
}  # fmt: skip


class OutputError(ProctoolError):
    """Standard output that cannot be written."""


def _plain(symbol: str) -> bytes:
    """Replace symbols that the encoding lacks by ASCII. Escaped bytes of file names become these bytes again."""
    if "\udc80" <= symbol <= "\udcff":
        return bytes([ord(symbol) - 0xDC00])
    if "\u2500" <= symbol <= "\u259f":
        return _PLAIN.get(symbol, "+" if symbol <= "\u257f" else "#").encode()
    return _PLAIN.get(symbol, ascii(symbol)[1:-1]).encode()


def _readable(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return b"".join(map(_plain, error.object[error.start : error.end])), error.end


codecs.register_error("proctool.readable", _readable)


class _Stream(io.TextIOWrapper):
    """A standard stream that writes any symbol in any encoding and reports failures through `_fail`."""

    def __init__(self, number: int, like: io.TextIOWrapper | None) -> None:
        unbuffered = like is not None and like.write_through
        buffer = open(number, "wb", closefd=False, buffering=0 if unbuffered else -1)  # noqa: SIM115 - the stream's own
        super().__init__(
            buffer,
            encoding=like.encoding if like else "utf-8",
            errors="proctool.readable",
            line_buffering=like.line_buffering if like else False,
            write_through=unbuffered,
        )

    def write(self, text: str) -> int:
        """Write text; a failure goes to `_fail`."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop()
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; a failure goes to `_fail`."""
        try:
            super().flush()
        except OSError as error:
            self._drop()
            self._fail(error)

    def _drop(self) -> None:
        """Send buffered and later output to the null device, so that it cannot fail again."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)

    def _fail(self, error: OSError) -> None:
        """Ignore the failure: messages without a reader are dropped."""


class _Results(_Stream):
    def _fail(self, error: OSError) -> NoReturn:
        if error.errno == errno.EPIPE:
            raise SystemExit(0) from None
        closed = "closed; send it to a file or a pipe"
        raise OutputError(
            f"standard output: {closed if error.errno == errno.EBADF else describe_os_error(error)}"
        ) from None


def guard() -> None:
    """Make the standard streams safe: from now on they fail with one line or not at all."""
    for number in range(3):  # otherwise the next opened file would get the number of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    sys.stdout, sys.stderr = _Results(1, _real(sys.stdout)), _Stream(2, _real(sys.stderr))


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Flush standard output at the end of the block, while a failure can still be reported."""
    try:
        yield
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _real(stream: object) -> io.TextIOWrapper | None:
    return stream if isinstance(stream, io.TextIOWrapper) else None
