"""Opening files that may be compressed: .gz, .bz2 and .xz with the standard library, .zst with the extra `[zstd]`."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, cast

from proctool.errors import CorpusError

_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


def of(name: str) -> str | None:
    """The compression suffix of a file, such as ".gz"; None if it has none."""
    return next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), None)


def without_suffix(name: str) -> str:
    """The name without its compression suffix: a.jsonl.gz -> a.jsonl."""
    return name[: -len(of(name) or "")] if of(name) else name


def opened(path: str) -> IO[bytes]:
    """Open a file and decompress it while reading. Raises CorpusError if .zst is not supported here."""
    kind = of(path)
    if kind == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if kind == ".bz2":
        return bz2.open(path, "rb")
    if kind == ".xz":
        return lzma.open(path, "rb")
    if kind == ".zst":
        try:
            import zstandard
        except ImportError:
            raise CorpusError(f"{path}: .zst files need zstandard; pip install 'proctool[zstd]'") from None
        return io.BufferedReader(_Frames(open(path, "rb"), zstandard.ZstdDecompressor), 1 << 20)
    return open(path, "rb")


class _Frames(io.RawIOBase):
    """Reads consecutive Zstandard frames. Unlike zstandard's own reader, it raises an error on a truncated frame."""

    def __init__(self, file: IO[bytes], decompressor: type) -> None:
        self._file = file
        self._new = decompressor
        self._frame = decompressor().decompressobj()
        self._ready = memoryview(b"")
        self._within = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` and return the number of bytes, 0 at the end. Raises EOFError inside a frame."""
        while not self._ready:
            piece = self._file.read(1 << 16)
            if not piece:
                if self._within:
                    raise EOFError("the file ends inside a frame")
                return 0
            self._ready = memoryview(self._decompress(piece))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self, piece: bytes) -> bytes:
        out = []
        while piece:
            if self._frame.eof:
                self._frame = self._new().decompressobj()
            out.append(self._frame.decompress(piece))
            self._within = not self._frame.eof
            piece = self._frame.unused_data if self._frame.eof else b""
        return b"".join(out)

    def close(self) -> None:
        """Close the underlying file."""
        self._file.close()
        super().close()


def broken_file_errors() -> tuple[type[BaseException], ...]:
    """The exceptions that reading a damaged compressed file raises."""
    errors: tuple[type[BaseException], ...] = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
    try:
        import zstandard
    except ImportError:
        return errors
    return (*errors, zstandard.ZstdError)
