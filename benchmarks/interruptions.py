"""A run killed five times, and the report that it ends with against an uninterrupted one's.

    python -m benchmarks.interruptions

A tiny experiment runs once undisturbed. Then again in another folder, where SIGKILL ends `proctool run` and every stage
of it five times, in the middle of stages. Both end with the same weights and the same report.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """name: tiny
model: 2x2x16
corpus: {corpus}
context: 32
seeds: [0, 1]
warmup: {{steps: 60, batch_size: 8, checkpoint_every: 20}}
pretrain: {{steps: 300, batch_size: 8, eval_every: 25, eval_samples: 32, checkpoint_every: 100}}
arms:
  cold: {{}}
  set: {{warmup: {{task: "set:inputs=8"}}}}
  mixed: {{donors: {{attention: {{task: "set:inputs=8"}}, mlp: {{task: "sort:inputs=8"}}}}}}
controls: {{which: [scale], of: [set]}}
"""
KILLS = 5


def command(recipe: Path, runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "proctool", "run", str(recipe), "--runs", str(runs), "--jobs", "2", *more]


def kill_once_at_work(recipe: Path, runs: Path, log: Path) -> bool:
    """Start the run; end it and all its stages without warning once one has got to a further checkpoint.

    Whether it was still at work then.
    """
    before = _checkpoints(runs)
    with log.open("ab") as output:
        process = subprocess.Popen(command(recipe, runs), stdout=output, stderr=output, start_new_session=True)
    while process.poll() is None:
        time.sleep(0.02)
        if _checkpoints(runs) - before:
            stages = _children(process.pid)
            process.kill()
            process.wait()
            for stage in stages:  # in sessions of their own: the kill did not reach them
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stage, signal.SIGKILL)
            return True
    return False


def _checkpoints(runs: Path) -> set[Path]:
    return set(runs.glob("*/*/checkpoints/step-*.safetensors"))


def _children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def state(root: Path) -> str:
    record = json.loads((root / "experiment.json").read_text())
    ended = steps = 0
    for stage in record["stages"].values():
        folder = root / stage["folder"]
        if stage["trains"]:
            log = folder / "metrics.jsonl"
            ended += log.exists() and '"event": "end"' in log.read_text()
            steps += len(list(folder.glob("checkpoints/step-*.safetensors")))
        else:
            ended += (folder / stage["artifact"]).exists()
    return f"{ended} of {len(record['stages'])} stages done, {steps} checkpoints of others"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus, recipe, log = Path(folder, "text.txt"), Path(folder, "tiny.yaml"), Path(folder, "log.txt")
        corpus.write_text("\n\n".join(f"line {n} of {n % 7} and {n * n % 13}" for n in range(20_000)))
        recipe.write_text(RECIPE.format(corpus=corpus))
        os.environ["PROCTOOL_CACHE"] = str(Path(folder, "cache"))
        began = time.monotonic()
        with log.open("ab") as output:
            subprocess.run(command(recipe, Path(folder, "whole")), check=True, stdout=output, stderr=output)
        took = time.monotonic() - began
        print(f"undisturbed: {took:.0f} s, {state(Path(folder, 'whole/tiny'))}", flush=True)
        kills = 0
        while kills < KILLS:
            if not kill_once_at_work(recipe, Path(folder, "killed"), log):
                break
            kills += 1
            print(f"killed {kills}: {state(Path(folder, 'killed/tiny'))}", flush=True)
        reports = []
        for runs in ("whole", "killed"):
            done = subprocess.run(
                command(recipe, Path(folder, runs), "--json"), check=True, capture_output=True, text=True
            )
            report = json.loads(done.stdout)
            reports.append({key: value for key, value in report.items() if key not in ("page", "figures")})
        same_report = reports[0] == reports[1]
        contents = [_contents(Path(folder, runs, "tiny")) for runs in ("whole", "killed")]
        same_weights = contents[0] == contents[1]
        print(f"completed after {kills} kills: {state(Path(folder, 'killed/tiny'))}")
        print(f"the same report: {same_report}; the same weights in {len(contents[0])} artifacts: {same_weights}")
        sys.exit(not (same_report and same_weights and kills == KILLS))


def _contents(root: Path) -> dict[str, str]:
    from proctool.artifact import read_header

    return {str(path.relative_to(root)): read_header(path).content for path in root.glob("*/*.safetensors")}


if __name__ == "__main__":
    main()
