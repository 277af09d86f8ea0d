"""Speed and exactness on a GPU: proctool beside a plain compiled PyTorch loop and the Hugging Face Trainer.

    python -m benchmarks.gpu first            ceilings, tests, exactness, GPT-2 small, kernels and host waits, haystack
    python -m benchmarks.gpu second           1.3B and 350M; a recipe on this machine's Python code, cold and warm
    python -m benchmarks.gpu first second --tiny    all of it in miniature on a CPU, to see that the benchmark works

Each part ends within ten minutes on one card (--seconds). Each measure is a process of its own with a limit of its own:
one that hangs or runs out of memory loses itself alone. Results are written to --out after each, as JSON; at the end a
table shows them with the gates. Exit code 0 where every measure ran and no gate is missed, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_MARK = "RESULT "
_LEAST = 5.0
"""Seconds below which no measure is begun."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """One process: a function of gpu_measures.py with its arguments."""

    name: str
    function: str
    arguments: Found
    limit: float
    """Seconds."""


@dataclass(frozen=True)
class Gate:
    """A number that must be reached. `value` takes what was measured and raises KeyError where that is missing."""

    name: str
    least: float
    value: Callable[[Mapping[str, Found]], float]

    def status(self, results: Mapping[str, Found]) -> tuple[float | None, str]:
        """The number, and whether the gate is met."""
        try:
            value = self.value(results)
        except (KeyError, TypeError, ZeroDivisionError):
            return None, "not measured"
        return value, "met" if value >= self.least else "not met"


def _times(name: str, beside: str, what: str = "tokens_per_second") -> Callable[[Mapping[str, Found]], float]:
    return lambda results: results[name][what] / results[beside][what]


def _value(name: str, what: str) -> Callable[[Mapping[str, Found]], float]:
    return lambda results: float(results[name][what])


GATES = (
    Gate("GPT-2 small: times the plain loop", 1.0, _times("gpt2 proctool, compiled", "gpt2 plain loop, compiled")),
    Gate("350M: times the plain loop", 1.0, _times("350M proctool, compiled", "350M plain loop, compiled")),
    Gate("1.3B: times the plain loop", 1.0, _times("1.3B proctool, compiled", "1.3B plain loop, compiled")),
    Gate("1.3B: MFU", 0.5, _value("1.3B proctool, compiled", "mfu")),
    Gate("haystack: times the Trainer", 10.0, _times("haystack proctool", "haystack Trainer", "samples_per_second")),
    Gate("resumed bit for bit, --deterministic", 1.0, _value("exact bf16, deterministic", "resumed_exact")),
    Gate("tests pass", 1.0, lambda results: float(results["tests"]["code"] == 0)),
)
"""An H100 is meant; on a CPU they only show that the table works."""


def measures(part: str, tiny: bool, out: Path) -> Iterator[Measure]:
    """The measures of a part, most important first."""
    words = 1000 if tiny else 50257
    small: Found = {"model": "2x2x64", "context": 32, "batch": 4} if tiny else {"model": "gpt2", "context": 1024}
    compiles = not tiny
    steps = 6 if tiny else 40

    def loops(name: str, model: Found, accumulate: int, steps: int, limit: float) -> Iterator[Measure]:
        common = {**model, "steps": 6 if tiny else steps, "vocabulary": words, "accumulate": accumulate}
        yield Measure(f"{name} proctool, compiled", "train", {**common, "compile": compiles}, limit)
        yield Measure(f"{name} plain loop, compiled", "plain", {**common, "compile": compiles}, limit)
        yield Measure(f"{name} proctool", "train", common, limit)

    if part == "first":
        yield Measure("environment", "environment", {"size": 256 if tiny else 8192}, 60)
        batch = {} if tiny else {"batch": 32}
        yield from loops("gpt2", small | batch, 1, steps, 100)
        samples, taken = (50, 8) if tiny else (1000, 60)
        for name, more in {
            "proctool": {"loop": "proctool", "steps": taken if tiny else 300},
            "Trainer": {"loop": "trainer", "steps": taken},
            "Trainer, 8 workers": {"loop": "trainer", "steps": taken, "workers": 1 if tiny else 8},
            "proctool, compiled": {"loop": "proctool", "steps": taken if tiny else 300, "compile": compiles},
        }.items():
            yield Measure(f"haystack {name}", "haystack", {"batch": samples, **more}, 60)
        exact = {**small, "batch": 4, "steps": 9, "vocabulary": words}
        for name, more in {
            "bf16, deterministic": {"deterministic": True},
            "bf16": {"deterministic": False},
            "bf16, compiled": {"deterministic": False, "compile": compiles},
            "fp32 2x2x16, dropout": {"deterministic": False, "model": "2x2x16", "context": 32, "precision": "fp32",
                                     "dropout": 0.1},
        }.items():  # fmt: skip
            yield Measure(f"exact {name}", "exact", exact | more, 120)
        looked = {**small, **batch, "vocabulary": words}
        for name, compiled in (("", False), (", compiled", compiles)):
            yield Measure(f"profile gpt2{name}", "profile", looked | {"compile": compiled}, 80)
        only = ["tests/models/test_hardware.py"] if tiny else ["tests/training", "tests/models"]
        yield Measure("tests", "tests", {"only": only, "processes": 1 if tiny else 8}, 200)
        return
    large: Found = small if tiny else {"model": "24x16x2048", "context": 2048, "batch": 16}
    medium: Found = small if tiny else {"model": "24x16x1024", "context": 1024, "batch": 32}
    yield from loops("1.3B", large, 2, 10, 110)
    yield from loops("350M", medium, 1, 20, 80)
    corpus, sample = ("python", 2_000_000) if tiny else ("python:site", 60_000_000)
    given = {"out": str(out), "corpus": corpus, "sample": sample, "recipe": _recipe(tiny, corpus)}
    yield Measure("python, cold and warm", "science", given, 300)


def _recipe(tiny: bool, corpus: str) -> Found:
    model, context, batch, steps = ("2x2x32", 64, 8, 6) if tiny else ("gpt2", 512, 64, 300)
    return {
        "name": "gpu-python",
        "title": "Does a warm-up help GPT-2 small on Python?",
        "model": model, "corpus": corpus, "tokenizer": "bpe", "context": context, "seeds": [0, 1],
        "launch": {"precision": "fp32" if tiny else "bf16"},
        "warmup": {"steps": steps, "batch_size": batch, "lr": 5e-4, "ramp_steps": 3, "eval_every": max(1, steps // 2)},
        "pretrain": {
            "steps": steps, "batch_size": batch, "lr": 6e-4, "ramp_steps": 3, "schedule": "cosine",
            "eval_every": max(1, steps // 10), "eval_samples": 128, "budget": 200_000 if tiny else 30_000_000,
        },
        "arms": {"cold": {}, "set": {"warmup": {"task": "set:inputs=24,symbols=100"}, "embeddings": "scale"}},
        "baseline": "cold",
    }  # fmt: skip


def measured(measure: Measure, limit: float) -> Found:
    """What the measure's process found, or why it found nothing."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--one", measure.function, json.dumps(measure.arguments)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    settings = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", **os.environ, "PYTHONPATH": path}
    began = time.monotonic()
    # A session of its own: what a measure has started ends with it.
    process = subprocess.Popen(
        command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=limit)
        line = next((line for line in reversed(out.splitlines()) if line.startswith(_MARK)), None)
        result = json.loads(line.removeprefix(_MARK)) if line else {"failed": (err or out)[-1500:]}
    except subprocess.TimeoutExpired:
        result = {"failed": f"took longer than {limit:.0f} s"}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def run_part(part: str, chosen: argparse.Namespace) -> dict[str, Found]:
    """Run the measures of a part, one after another, and write what they find after each."""
    ends = time.monotonic() + chosen.seconds
    results: dict[str, Found] = {}
    for measure in measures(part, chosen.tiny, chosen.out):
        if chosen.only and measure.name not in chosen.only:
            continue
        left = ends - time.monotonic()
        limit = min(measure.limit * chosen.limit, left)
        results[measure.name] = measured(measure, limit) if left > _LEAST else {"failed": "no time left for it"}
        (chosen.out / f"gpu-{part}.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(f"{measure.name:32} {shown(results[measure.name])}", flush=True)
    return results


def shown(found: Found) -> str:
    """The main figures of one measure, in a line."""
    if "failed" in found:
        return f"failed: {' '.join(found['failed'].split())[-200:]}"
    parts = [f"{found['seconds']:.0f} s"]
    for key, words in {
        "tokens_per_second": "{:,.0f} tokens/s", "samples_per_second": "{:,.0f} samples/s", "mfu": "{:.1%} MFU",
        "second_exact": "second run exact: {}", "resumed_exact": "resumed exact: {}",
        "kernels_per_step": "{:.0f} kernels a step", "milliseconds_per_step": "{:.2f} ms in kernels",
        "host_waits_in_3_steps": "host waits in 3 steps: {}", "code": "exit code {}", "run_seconds": "recipe {:.0f} s",
    }.items():  # fmt: skip
        if found.get(key) is not None:
            parts.append(words.format(found[key]))
    if "peak_bytes" in found:
        parts.append(f"{found['peak_bytes'] / 2**30:.1f} GiB")
    parts += [f"{each['precision']} products {each['flops'] / 1e12:.3g} TFLOP/s" for each in found.get("products", ())]
    if "copy_bytes_per_second" in found:
        parts.append(f"copies {found['copy_bytes_per_second'] / 1e9:.0f} GB/s")
    return ", ".join(parts)


def table(results: Mapping[str, Found]) -> list[str]:
    """Measures and gates as Markdown."""
    device = results.get("environment", {}).get("device", {})
    lines = [f"Device: {device.get('name', 'unknown')}", "", "| measure | found |", "|---|---|"]
    lines += [f"| {name} | {shown(found)} |" for name, found in results.items()]
    lines += ["", "| gate | at least | measured | |", "|---|---:|---:|---|"]
    for gate in GATES:
        value, status = gate.status(results)
        lines.append(f"| {gate.name} | {gate.least:g} | {'' if value is None else f'{value:.3g}'} | {status} |")
    return lines


def main() -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="first, second, or both")
    parser.add_argument("--tiny", action="store_true", help="in miniature, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder for the results (build/gpu)")
    parser.add_argument("--seconds", type=float, default=560, help="limit of one part (560)")
    parser.add_argument("--limit", type=float, default=1, help="factor on the limit of each measure (1)")
    parser.add_argument("--only", action="append", metavar="NAME", help="this measure alone; may be repeated")
    parser.add_argument("--one", nargs=2, metavar=("FUNCTION", "JSON"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        from benchmarks.gpu_measures import MEASURES

        print("\n" + _MARK + json.dumps(MEASURES[chosen.one[0]](**json.loads(chosen.one[1]))), flush=True)
        return 0
    if not chosen.parts or not {"first", "second"}.issuperset(chosen.parts):
        parser.error("name the parts to run: first, second, or both")
    chosen.out = chosen.out.absolute()
    chosen.out.mkdir(parents=True, exist_ok=True)
    failed = [name for part in chosen.parts for name, found in run_part(part, chosen).items() if "failed" in found]
    known: dict[str, Found] = {}
    for part in ("first", "second"):  # one may have been run earlier
        if (written := chosen.out / f"gpu-{part}.json").exists():
            known |= json.loads(written.read_text(encoding="utf-8"))
    text = "\n".join(
        [*(["In miniature: these figures say nothing about speed.", ""] if chosen.tiny else []), *table(known)]
    )
    (chosen.out / "gpu.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text)
    missed = any(gate.status(known)[1] == "not met" for gate in GATES)
    return int(bool(failed) or (missed and not chosen.tiny))


if __name__ == "__main__":
    raise SystemExit(main())
