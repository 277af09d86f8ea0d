"""run.log: each start of a run with versions, settings and notes, and how it ended, with tracebacks of errors."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from proctool import artifact
from proctool.errors import ProctoolError, describe_os_error
from proctool.events import Event, NoteEvent, TrainEvent, to_json
from proctool.signals import Stopped
from proctool.training.devices import launched_settings
from proctool.training.run import RunFolder


@contextlib.contextmanager
def run_log(run: RunFolder, settings: Mapping[str, Any]) -> Iterator[None]:
    """Append to the run's log inside the block. If the log cannot be written, the run continues."""
    if not run.is_writer:
        yield
        return
    with _opened(run) as file:
        log = _Log(file)
        log("command", shlex.join(sys.argv))
        log("versions", json.dumps(artifact.versions()))
        log("settings", json.dumps(settings))
        log("processes", json.dumps(launched_settings()))
        run.listeners.append(log.event)
        try:
            with log.warnings():
                yield
        except ProctoolError as error:
            log("stopped", str(error))
            raise
        except OSError as error:
            log("stopped", describe_os_error(error))
            raise
        except Stopped as error:
            log("stopped", str(error))
            raise
        except KeyboardInterrupt:
            log("stopped", "interrupted")
            raise
        except BaseException:
            log("failed", traceback.format_exc().rstrip())
            raise


@contextlib.contextmanager
def _opened(run: RunFolder) -> Iterator[TextIO]:
    """Open the log, or a dummy if that fails. Errors in closing are ignored, like those in writing."""
    file: TextIO
    try:
        file = (run.path / "run.log").open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        run.say(f"no run.log is kept: {describe_os_error(error)}")
        file = io.StringIO()
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # closing tries again to write what is buffered
            file.close()


class _Log:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def __call__(self, kind: str, text: str) -> None:
        with contextlib.suppress(OSError):
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}  {kind:<10}{text}\n")
            self._file.flush()

    def event(self, event: Event) -> None:
        """Write a line for an event, except frequent ones such as train events, which are only in metrics.jsonl."""
        if not isinstance(event, TrainEvent):
            told = {key: value for key, value in to_json(event).items() if key != "event"}
            self(event.kind, event.note if isinstance(event, NoteEvent) else json.dumps(told))

    @contextlib.contextmanager
    def warnings(self) -> Iterator[None]:
        """Write warnings of libraries to the log, in addition to showing them."""
        handler = logging.StreamHandler(self._file)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(asctime)s  warning   %(name)s: %(message)s"))
        shown = warnings.showwarning

        def show(message: Any, category: Any, filename: str, lineno: int, *rest: Any) -> None:
            self("warning", f"{category.__name__}: {' '.join(str(message).split())}")
            shown(message, category, filename, lineno, *rest)

        logging.getLogger().addHandler(handler)
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        finally:
            warnings.showwarning = shown
            logging.getLogger().removeHandler(handler)
