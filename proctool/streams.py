"""Standard output and error as a command may find them: without a reader, closed, full, or without a symbol it prints.

Results go to standard output, so one that cannot be written is an error; a reader that has gone (`| head`) has what it
wants, and ends the command with 0, as other tools do. Messages go to standard error, and nobody to read them is no
reason to stop.
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
    """A symbol in ASCII. What stands for a byte of a file's name becomes that byte again."""
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
    """A standard stream whose symbols can be written in any encoding and whose failures are told by `_fail`."""

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
        """As any stream's."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop()
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """As any stream's."""
        try:
            super().flush()
        except OSError as error:
            self._drop()
            self._fail(error)

    def _drop(self) -> None:
        """What is still to be written goes nowhere, and fails no more."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)

    def _fail(self, error: OSError) -> None:
        """Messages that nobody reads are dropped."""


class _Results(_Stream):
    def _fail(self, error: OSError) -> NoReturn:
        if error.errno == errno.EPIPE:
            raise SystemExit(0) from None
        closed = "closed; send it to a file or a pipe"
        raise OutputError(
            f"standard output: {closed if error.errno == errno.EBADF else describe_os_error(error)}"
        ) from None


def guard() -> None:
    """From here on, standard streams fail in one line or not at all."""
    for number in range(3):  # a closed one's number would go to the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    sys.stdout, sys.stderr = _Results(1, _real(sys.stdout)), _Stream(2, _real(sys.stderr))


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """What was printed in the block is written when it ends well, so that a failure is found while it can be told."""
    try:
        yield
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _real(stream: object) -> io.TextIOWrapper | None:
    return stream if isinstance(stream, io.TextIOWrapper) else None
