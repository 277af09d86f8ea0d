"""Files that appear under their name complete or not at all, and large ones written fast."""

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
    """A binary file that takes the name `path`, fsynced, when the block ends well, and vanishes otherwise.

    What killed processes left of such a file goes too. Of several writers at once each has a file of its own, and the
    last to end gives it the name. Raises OSError.
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
            os.replace(name, path)  # before it is closed, and with that unlocked
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename in (None, name):
            raise _naming(path, error) from error
        raise
    sync_folder(path.parent)


def _naming(path: Path, error: OSError) -> OSError:
    """The same error, naming the file that was asked for."""
    return OSError(error.errno, error.strerror, str(path))


_SUFFIX = ".partial"


def _temporary(path: Path) -> tuple[IO[bytes], str]:
    """A new file beside `path`, locked where there are locks, and its name."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
        file = os.fdopen(handle, "w+b")
        with contextlib.suppress(OSError):
            lock_descriptor(handle)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(name)):
                return file, name
        file.close()  # another writer took it, not locked yet, for a leftover


def _clear_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left: temporary files that nobody holds locked."""
    # The exact form that tempfile gives: the file "a" must not take those of the file "a.b" for its own.
    form = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(_SUFFIX)}")
    for entry in os.scandir(path.parent):
        if form.fullmatch(entry.name):
            with contextlib.suppress(OSError), open(entry.path, "rb") as file:
                if lock_descriptor(file.fileno(), blocking=False):  # no writer is at work; fails without locks
                    os.unlink(entry.path)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def umask() -> int:
    """The permissions that new files do without."""
    current = os.umask(0)
    os.umask(current)
    return current


_BLOCK = 8 << 20
_ALIGNED = 4096
_DIRECT_FROM = 64 << 20
"""Bytes from which a file is written past the page cache: copying into it costs more processor time than hashing."""


class BlockWriter:
    """Bytes in order into an open, empty file of `size` bytes: one block is filled while another is written.

    Ask for `room`, fill the beginning of it, say how much with `advance`. Large files go past the page cache where
    the system allows it (O_DIRECT). The context ends when everything is written; OSError is raised then or before.
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
        except OSError:  # the file system has no such thing
            return False
        return wanted

    @property
    def room(self) -> memoryview:
        """What is free of the current block; never empty."""
        return self._blocks[0][self._filled : self._block]

    def advance(self, count: int) -> None:
        """The first `count` bytes of `room` are filled."""
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
                self._direct = self._set_direct(False)  # it asks for another alignment
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
            self._set_direct(False)  # what follows need not be aligned
