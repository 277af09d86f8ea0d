"""Handing hostile files to commands, and looking at how they are refused."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.hostile.cases import CASES, MARK

NO_FILE_TO_BLAME = {
    "yaml_with_a_zero_byte_in_a_path",
    "a_thousand_layers_of_a_hundred_thousand",
    "a_thousand_layers_of_a_hundred_thousand_as_a_shape",
}
"""Cases whose line names an option or a size, not the file."""


def outcome(command: list[str]) -> tuple[int, str, str]:
    """The exit code of a command line run in this process, and what it said on its two outputs."""
    from proctool.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["proctool", *command]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def peak_mib() -> float:
    """The most memory this process has held since `forget_peak` (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def forget_peak() -> None:
    """Start counting the peak anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in `folder`."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def judged(name: str) -> tuple[str, float, float, str]:
    """What is wrong with how a case was refused ("" when nothing), seconds, MiB of growth, and the line."""
    with tempfile.TemporaryDirectory() as made, within(Path(made)):
        command = CASES[name](Path(made))
        forget_peak()
        before, began = peak_mib(), time.perf_counter()
        try:
            code, _, said = outcome(command)
        except BaseException as error:  # whatever comes here is a finding
            return f"{type(error).__name__}: {error}"[:200], time.perf_counter() - began, peak_mib() - before, ""
        seconds, grown = time.perf_counter() - began, peak_mib() - before
        lines = said.strip().splitlines()
        if (Path(made) / MARK).exists():
            return "EXECUTED", seconds, grown, said
        if code != 1 or len(lines) != 1:
            return f"exit {code} with {len(lines)} lines", seconds, grown, said[:300]
        if made not in lines[0] and name not in NO_FILE_TO_BLAME:
            return "another reason than the file", seconds, grown, lines[0]
        if len(lines[0]) > 1000 or not lines[0].isprintable():
            return f"a line of {len(lines[0])} characters, printable: {lines[0].isprintable()}", seconds, grown, ""
        return "", seconds, grown, lines[0]
