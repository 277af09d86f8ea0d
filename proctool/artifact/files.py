"""Atomic writes: a file appears complete or not at all. Large files are written fast."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from filelock import lock_descriptor


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """A binary file that is fsynced and renamed to `path` when the block succeeds, and deleted when it fails.

    Temporary files of killed processes are deleted too. Each of several concurrent writers has its own file; the last
    one to finish wins. Raises OSError.
    """
    try:
        _clear_leftovers(path)
        file, name = _temporary(path)
    except OSError as error:
        raise _naming(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~umask())  # mkstemp makes it private
            os.replace(name, path)  # before closing, which releases the lock
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename in (None, name):
            raise _naming(path, error) from error
        raise
    sync_folder(path.parent)


def _naming(path: Path, error: OSError) -> OSError:
    """The same error with the name of the requested file."""
    return OSError(error.errno, error.strerror, str(path))


_SUFFIX = ".partial"


def _temporary(path: Path) -> tuple[IO[bytes], str]:
    """A new temporary file beside `path`, locked if the file system supports it, and its name."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
        file = os.fdopen(handle, "w+b")
        with contextlib.suppress(OSError):
            lock_descriptor(handle)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(name)):
                return file, name
        file.close()  # another writer removed it as a leftover before it was locked


def _clear_leftovers(path: Path) -> None:
    """Delete temporary files that killed writers of `path` left: those that no process has locked."""
    # Match tempfile's exact form: a writer of "a" must not delete the files of a writer of "a.b".
    form = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(_SUFFIX)}")
    for entry in os.scandir(path.parent):
        if form.fullmatch(entry.name):
            with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                if lock_descriptor(file.fileno(), blocking=False):  # no writer is active
                    os.unlink(entry.path)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def umask() -> int:
    """The process's umask: permission bits that new files do not get."""
    current = os.umask(0)
    os.umask(current)
    return current


_BLOCK = 8 << 20
_ALIGNED = 4096
_DIRECT_FROM = 64 << 20
"""Size in bytes from which a file bypasses the page cache: copying into it takes more CPU time than hashing."""


class BlockWriter:
    """Write `size` bytes in order into an open, empty file: one block is filled while another is written.

    Get a buffer from `room`, fill its beginning, and call `advance` with the number of bytes. Large files bypass the
    page cache where the system allows it (O_DIRECT). Leaving the context waits for all writes. Raises OSError.
    """

    def __init__(self, handle: int, size: int) -> None:
        self._handle = handle
        self._block = min(_BLOCK, size + -size % _ALIGNED)
        self._blocks = [memoryview(mmap.mmap(-1, max(self._block, 1))) for _ in range(2)]  # aligned to pages
        self._writing: Future[None] | None = None
        self._filled = 0
        self._written = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="artifact")
        self._direct = size >= _DIRECT_FROM and self._set_direct(True)

    def _set_direct(self, wanted: bool) -> bool:
        flag = getattr(os, "O_DIRECT", 0)
        if not flag:
            return False
        import fcntl  # wherever O_DIRECT is

        try:
            flags = fcntl.fcntl(self._handle, fcntl.F_GETFL)
            fcntl.fcntl(self._handle, fcntl.F_SETFL, flags | flag if wanted else flags & ~flag)
        except OSError:  # the file system does not support it
            return False
        return wanted

    @property
    def room(self) -> memoryview:
        """The free part of the current block; never empty."""
        return self._blocks[0][self._filled : self._block]

    def advance(self, count: int) -> None:
        """Record that the first `count` bytes of `room` are filled."""
        self._filled += count
        if self._filled == self._block:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._writing is not None:
            self._writing.result()
        full, count = self._blocks[0], self._filled
        self._writing = self._thread.submit(self._put, full[:count], self._written)
        self._blocks.reverse()
        self._written += count
        self._filled = 0

    def _put(self, data: memoryview, position: int) -> None:
        if self._direct and len(data) % _ALIGNED:  # the last block
            self._direct = self._set_direct(False)
        while data:
            try:
                count = os.pwrite(self._handle, data, position)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._direct = self._set_direct(False)  # this file system needs another alignment
                continue
            if count % _ALIGNED and self._direct:
                self._direct = self._set_direct(False)
            data, position = data[count:], position + count

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                if self._filled:
                    self._hand_over()
                if self._writing is not None:
                    self._writing.result()
        finally:
            self._thread.shutdown()
            self._set_direct(False)  # the remaining writes need not be aligned
