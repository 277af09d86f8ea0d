"""Many damaged inputs for every surface, with no traceback, hang or leak.

    python -m tests.fuzz --inputs 100000 --seed 0                # every surface, each in a process of its own
    python -m tests.fuzz --surface recipe --inputs 5000          # one, in this process
    python -m tests.fuzz --surface recipe --replay FILE          # one input again, with its traceback
    python -m tests.fuzz --surface artifact --atheris -- -runs=100000    # guided by coverage (pip install atheris)

An input that fails is kept in --findings and named; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.hostile import MARK, within
from tests.fuzz.surfaces import SURFACES, Finding, Surface, verdict

HANG_SECONDS = 10.0
"""Of this process's own computing time, for one input."""
LEAK_MIB = 64.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surface", action="append", choices=SURFACES, help="default: every one")
    parser.add_argument("--inputs", type=int, default=100_000, help="for each surface")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("rest", nargs="*", help="for atheris")
    asked = parser.parse_args()
    names = asked.surface or list(SURFACES)
    if len(names) == 1 and asked.surface:
        return one(names[0], asked)
    bad = 0
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", "--surface", name, "--inputs", str(asked.inputs)]
        command += ["--seed", str(asked.seed), "--findings", str(asked.findings)]
        code = subprocess.run(command).returncode
        if code < 0:
            kept = f"its last input is kept in {asked.findings}/{name}.last"
            print(f"{name}: killed by {signal.Signals(-code).name}; {kept}")
        bad += code != 0
    return int(bad > 0)


def one(name: str, asked: argparse.Namespace) -> int:
    """Fuzz one surface in this process."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", COLUMNS="100")
    findings = asked.findings.absolute()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made, within(Path(made)):
        os.environ["PROCTOOL_CACHE"] = str(Path(made) / "cache")
        work = Path(made) / "work"
        work.mkdir()
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        if asked.atheris:
            return _guided(name, work, asked.rest)
        surface = SURFACES[name](work)
        if asked.replay:
            print(verdict(surface, asked.replay.read_bytes()))
            return 0
        return _many(name, surface, asked.inputs, asked.seed, findings)


def _many(name: str, surface: Surface, inputs: int, seed: int, findings: Path) -> int:
    random = Random(f"{name}/{seed}")
    outcomes: Counter[str] = Counter()
    found: dict[str, Path] = {}
    slowest = 0.0
    settled: dict[str, float] = {}
    last = findings / f"{name}.last"
    findings.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGVTALRM, _hung)
    began = time.monotonic()
    for seed_input in surface.seeds:
        verdict_of_seed = _quietly(surface, seed_input)
        outcomes["seed " + verdict_of_seed] += 1
    for number in range(inputs):
        data = surface.draw(random)
        if number % 16 == 0 or name in ("parquet", "tokenizer"):  # libraries in C may end the process
            last.write_bytes(data)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
        faulthandler.dump_traceback_later(60 * HANG_SECONDS, exit=True)
        try:
            outcomes[_quietly(surface, data)] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            outcomes["findings"] += 1
            where = _place(error)
            if where not in found:
                found[where] = findings / f"{name}-{len(found):03}"
                found[where].write_bytes(data)
                print(f"{name}: {where}: {str(error)[:160]!r}: {found[where]}", flush=True)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, time.process_time() - started)
        if number == inputs // 5:
            settled = _held()
    ended = _held()
    last.unlink(missing_ok=True)
    breached = Path(MARK).exists() or (surface.folder / MARK).exists()
    grown = ended["mib"] - settled.get("mib", ended["mib"])
    opened = ended["files"] - settled.get("files", ended["files"])
    said = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    print(
        f"{name:<10} {inputs} inputs (seed {seed}): {said}; slowest {1e3 * slowest:.0f} ms; memory {grown:+.1f} MiB, "
        f"files {opened:+.0f} over the last four fifths; {time.monotonic() - began:.0f} s",
        flush=True,
    )
    if grown > LEAK_MIB or opened > 0:
        print(f"{name}: LEAKS")
    if breached:
        print(f"{name}: EXECUTED something of a stranger's")
    return int(bool(found) or grown > LEAK_MIB or opened > 0 or breached)


def _quietly(surface: Surface, data: bytes) -> str:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return verdict(surface, data)


class Hang(BaseException):
    """An input took too long."""


def _hung(*_: Any) -> None:
    raise Hang(f"more than {HANG_SECONDS} s")


def _place(error: BaseException) -> str:
    """The kind of an error and the last line of proctool it passed: what tells findings apart."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/proctool/" in frame.filename] or frames
    at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {at}"


def _held() -> dict[str, float]:
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"mib": pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), "files": len(os.listdir("/proc/self/fd"))}
    except OSError:
        return {"mib": 0.0, "files": 0}


def _guided(name: str, work: Path, rest: list[str]) -> int:
    try:
        import atheris
    except ImportError:
        print("fuzz: atheris is not installed: pip install atheris", file=sys.stderr)
        return 1
    with atheris.instrument_imports(include=["proctool"]):
        surface = SURFACES[name](work)
        for seed in surface.seeds:
            with contextlib.suppress(Finding):  # a line of atheris for each module, among what a command says
                _quietly(surface, seed)
    corpus = work / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(surface.seeds):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], *rest, str(corpus)], lambda data: _quietly(surface, data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
