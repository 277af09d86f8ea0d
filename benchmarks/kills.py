"""Kill commands at random instants with SIGKILL, give them again, and compare with ones that were left alone.

    python -m benchmarks.kills                       # 20 kills of each command
    python -m benchmarks.kills --command pretrain --kills 40 --seed 1

Kills are drawn over the whole life of a command, its start and its writing of files included; `run` dies with all its
stages. A killed command is given again until it has had its share of kills, then left to end. After every kill, all
inputs are what they were, and every file under a final name is whole, each hash checked. In the end weights (by content
hash), metrics (clocks left out) and reports are those of the undisturbed command, and no temporary file is left.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proctool import artifact
from proctool.errors import ArtifactError
from proctool.events import ResumeEvent, read_events, to_json

_CLOCKS = {"seconds", "tokens_per_second", "checkpoint_seconds", "run_dir", "artifact", "best_artifact", "versions"}
_TRAINING = ["--dropout", "0.1", "--log-every", "5", "--eval-every", "20", "--eval-samples", "32"]
_TRAINING += ["--checkpoint-every", "7", "--batch-size", "8", "--run-dir", "run", "--ramp-steps", "5", "--steps", "120"]
_RECIPE = """name: tiny
model: 2x2x16
corpus: {inputs}/text
context: 32
seeds: [0, 1]
warmup: {{steps: 60, batch_size: 8, checkpoint_every: 20}}
pretrain: {{steps: 100, batch_size: 8, eval_every: 25, eval_samples: 32, checkpoint_every: 20}}
arms:
  cold: {{}}
  mixed: {{donors: {{attention: {{task: "set:inputs=8"}}, mlp: {{task: "sort:inputs=8"}}}}}}
"""

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "generate": lambda _: ["generate", "set", "--inputs", "24", "--samples", "100k", "-o", "set.safetensors"],
    "warmup": lambda _: [
        *("warmup", "--task", "set:inputs=5,symbols=9", "--curriculum", "start=3,accuracy=.15", "--model", "2x2x16"),
        *("--context", "16", *_TRAINING, "-o", "warm.safetensors"),
    ],
    "transplant": lambda inputs: [
        *("transplant", "--attention", f"{inputs}/a.safetensors", "--mlp", f"{inputs}/b.safetensors"),
        *("-o", "mixed.safetensors"),
    ],
    "pretrain": lambda inputs: [
        *("pretrain", "--corpus", f"{inputs}/text", "--model", "4x4x64", "--init", f"{inputs}/a.safetensors"),
        *("--components", "attention,mlp", "--context", "16", "--save", "both", *_TRAINING, "-o", "model.safetensors"),
    ],
    "eval": lambda inputs: [
        *("eval", "haystack", "--pairs", "4", "--model", "4x4x64", "--init", f"{inputs}/a.safetensors"),
        *("--components", "attention,mlp", "--seeds", "0,1", *_TRAINING),
    ],
    "run": lambda inputs: ["run", f"{inputs}/tiny.yaml", "--runs", ".", "--jobs", "2"],
}
"""The arguments of each command in a folder of its own, from the folder of inputs."""


def make_inputs(inputs: Path) -> None:
    """Text, two donors and a recipe."""
    (inputs / "text").mkdir(parents=True)
    for number in range(60):
        body = "".join(f"line {(number * line) % 7} of {number}\n" for line in range(12))
        (inputs / "text" / f"{number:02}.txt").write_text(body)
    (inputs / "tiny.yaml").write_text(_RECIPE.format(inputs=inputs))
    for name, task in (("a", "set:inputs=5"), ("b", "sort:inputs=5")):
        arguments = ["warmup", "--task", task, "--model", "4x4x64", "--context", "16", "--steps", "3"]
        arguments += ["--ramp-steps", "1", "--run-dir", str(inputs / name), "-o", str(inputs / f"{name}.safetensors")]
        run(arguments, inputs, None)


def run(arguments: list[str], folder: Path, kill_after: float | None) -> bool:
    """Run a command in `folder` to its end, or kill it and its children after some seconds; whether it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proctool", *arguments],
        cwd=folder,
        env={**os.environ, "PROCTOOL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        stages = _descendants(process.pid)
        process.kill()
        for stage in stages:  # in sessions of their own: the kill did not reach them
            with contextlib.suppress(ProcessLookupError):
                os.kill(stage, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"proctool {' '.join(arguments)} failed:\n{said.decode()}")
    return False


def _descendants(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout.split()
    children: dict[int, list[int]] = {}
    for pid, of in zip(found[::2], found[1::2], strict=True):
        children.setdefault(int(of), []).append(int(pid))
    below = list(children.get(parent, []))
    for pid in below:
        below += children.get(pid, [])
    return below


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on kills: contents of files, events, reports."""
    found: dict[str, Any] = contents(folder)
    for path in sorted(folder.rglob("metrics.jsonl")):
        found[str(path.relative_to(folder))] = [
            {key: value for key, value in to_json(event).items() if key not in _CLOCKS}
            for event in read_events(path.parent)
            if not isinstance(event, ResumeEvent)
        ]
    return found


def contents(folder: Path) -> dict[str, str]:
    """The content hash of every artifact under a final name, all its hashes checked. Raises ArtifactError."""
    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        header = artifact.read_header(path)
        artifact.verify(header)
        found[str(path.relative_to(folder))] = header.content
    return found


def temporary(folder: Path) -> list[str]:
    """Temporary files, and locks that are taken away with their holder."""
    hidden = [path.name for path in folder.rglob(".*") if path.is_file()]
    return [name for name in hidden if name.endswith(".partial") or (name.endswith(".lock") and name != ".lock")]


def tried(name: str, root: Path, kills: int, each: int, rng: random.Random) -> int:
    """Kill one command `kills` times, at most `each` times in a row; how often anything was lost. Prints a line."""
    inputs = root / "inputs"
    given = {path: hashlib.sha256(path.read_bytes()).digest() for path in inputs.rglob("*") if path.is_file()}
    arguments = COMMANDS[name](inputs)
    whole = root / name
    whole.mkdir()
    shutil.copytree(inputs / "cache" / "kernels", whole / "cache" / "kernels", dirs_exist_ok=True)
    began = time.monotonic()
    run(arguments, whole, None)
    life = time.monotonic() - began
    expected = outcome(whole)
    killed = lives = lost = most = 0
    while killed < kills:
        lives += 1
        folder = root / f"{name}-{lives}"
        folder.mkdir()
        shutil.copytree(inputs / "cache" / "kernels", folder / "cache" / "kernels", dirs_exist_ok=True)
        for attempt in range(min(each, kills - killed)):
            began = time.monotonic()
            if not run(arguments, folder, rng.uniform(0.1, 1.0) * life):
                if attempt == 0:
                    life = time.monotonic() - began  # the machine was busier when it was measured
                break
            killed += 1
            most = max(most, len(temporary(folder)))
            try:
                contents(folder)
                if any(hashlib.sha256(path.read_bytes()).digest() != digest for path, digest in given.items()):
                    raise SystemExit(f"{name}: an input has changed")
            except ArtifactError as error:
                lost += 1
                print(f"{name}: after kill {killed}: {error}", flush=True)
        run(arguments, folder, None)
        if outcome(folder) != expected or temporary(folder):
            lost += 1
            print(f"{name}: life {lives} ended differently, or left {temporary(folder)}", flush=True)
        shutil.rmtree(folder)
    print(
        f"{name:<11}{killed} kills in {lives} lives of {life:.1f} s: {lost} lost or different; "
        f"at most {most} temporary files at a time, none in the end",
        flush=True,
    )
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", action="append", choices=COMMANDS, help="default: every one")
    parser.add_argument("--kills", type=int, default=20, help="of each command (20)")
    parser.add_argument("--each", type=int, default=4, help="in a row (4)")
    parser.add_argument("--seed", type=int, default=0, help="draws the instants (0)")
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_inputs(root / "inputs")
        lost = sum(tried(name, root, chosen.kills, chosen.each, rng) for name in chosen.command or COMMANDS)
    raise SystemExit(lost > 0)


if __name__ == "__main__":
    main()
