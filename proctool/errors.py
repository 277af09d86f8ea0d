"""Errors that a user can fix, and the one place that turns them into a line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from proctool.signals import EXIT_CODE, Stopped


class ProctoolError(Exception):
    """An error that the user can fix. The message is one line: what is wrong, where, and what to do."""

    exit_code = 1


class OptionError(ProctoolError):
    """An invalid option, task specification or configuration value."""


class ArtifactError(ProctoolError):
    """A file that is missing, damaged, truncated or not written by proctool."""


class ModelError(ProctoolError):
    """A model that cannot be built, or weights that do not fit the model."""


class CorpusError(ProctoolError):
    """Text that cannot be read, or too little text."""


class HubError(ProctoolError):
    """The Hugging Face hub cannot be reached or refuses a request."""


class RunError(ProctoolError):
    """A run folder or a training run that cannot continue."""


class Interrupted(ProctoolError):
    """Stopped by a signal, after saving everything needed to resume."""

    exit_code = EXIT_CODE


class Notice(UserWarning):
    """Something that the user may not expect, but that is not an error. The command line shows it as a line."""


def notice(text: str) -> None:
    """Show a notice: a Python warning that the command line prints as a plain line."""
    warnings.warn(text, Notice, stacklevel=2)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first few names and the number of the others."""
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"


def first_line(error: BaseException) -> str:
    """The first line of a library's error, or its type if it has no message."""
    return (str(error).strip() or type(error).__name__).partition("\n")[0][:200]


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give `path` to an OSError of the block that names no file, as those of writing to an open file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def describe_os_error(error: OSError) -> str:
    """One line for an operating-system error: the file, the reason, and what to do if it cannot be written."""
    where = error.filename2 or error.filename
    reason = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        reason = f"no room left to write ({reason}); free some disk space, or choose another folder on another disk"
    elif error.errno == errno.EROFS or (error.errno in _REFUSED and where and _is_for_reading(os.fsdecode(where))):
        reason += "; choose another folder"
    return f"{where}: {reason}" if where else reason


_REFUSED = {errno.EACCES, errno.EPERM}


def _is_for_reading(where: str) -> bool:
    """Whether a file, or the folder of a missing one, can be read but not written."""
    place = where if os.path.exists(where) else os.path.dirname(os.path.abspath(where))
    needed = os.R_OK | (os.X_OK if os.path.isdir(place) else 0)
    return os.access(place, needed) and not os.access(place, os.W_OK)


_LONGEST_LINE = 1000


_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def in_utf8(text: str, backslash: str = "\\") -> str:
    """Text that can be encoded as UTF-8. Python reads byte ff of a file name as U+DCFF; it becomes `\\xff`."""
    if text.isascii():
        return text

    def written(half: re.Match[str]) -> str:
        code = ord(half.group())
        return f"{backslash}x{code - 0xDC00:02x}" if 0xDC80 <= code < 0xDD00 else f"{backslash}u{code:04x}"

    return _HALF_A_PAIR.sub(written, text)


def printable(text: str) -> str:
    """Text with unprintable characters, such as terminal control codes, escaped."""
    text = in_utf8(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(message: str) -> str:
    """A message as one safe line: names in files can contain control codes or be very long."""
    line = printable(" ".join(message[: 4 * _LONGEST_LINE].split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 3 :]}"


@contextlib.contextmanager
def notices_shown() -> Iterator[None]:
    """Print each `Notice` once as a line on stderr, in the main process of a launch only; keep other warnings."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Any, category: Any, *where: Any) -> None:
            if not issubclass(category, Notice):
                shown(message, category, *where)
            elif os.environ.get("RANK", "0") == "0":
                print(f"proctool: {one_line(str(message))}", file=sys.stderr)

        warnings.simplefilter("default", Notice)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Report a ProctoolError or an OSError as one line on stderr and exit with its code.

    Any other exception is a bug in proctool and keeps its traceback.
    """
    try:
        yield
    except ProctoolError as error:
        message, code = str(error), error.exit_code
    except OSError as error:
        message, code = describe_os_error(error), 1
    except UnicodeEncodeError as error:
        if in_utf8(error.object) == error.object:
            raise
        # safetensors, tokenizers and pyarrow accept only UTF-8 names.
        message, code = f"{error.object}: the name is not UTF-8; rename the file or folder", 1
    except Stopped as error:
        message, code = str(error), EXIT_CODE
    except KeyboardInterrupt:
        message, code = "interrupted", EXIT_CODE
    else:
        return
    print(f"proctool: {one_line(message)}", file=sys.stderr)
    raise SystemExit(code)
