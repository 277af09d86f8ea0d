"""Kill runs at random instants with SIGKILL, resume them, and compare with runs that were left alone.

`python -m benchmarks.kills [--kills 40] [--seed 0]`. Each experiment is a warm-up and a pretraining that starts from
its model, as commands of their own; a killed command is given again until the experiment has had its share of kills,
then left to end. Weights (by content hash) and metrics (clocks left out) must be those of the undisturbed experiment.
Kills are drawn over the whole life of a command, its start and its writing of files included.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from proctool.artifact import read_header
from proctool.training.run import read_events

_CLOCKS = {"seconds", "tokens_per_second", "run_dir", "artifact", "best_artifact"}
_COMMON = ["--model", "2x2x16", "--dropout", "0.1", "--log-every", "5", "--eval-every", "20", "--eval-samples", "32"]
_COMMON += ["--checkpoint-every", "7", "--batch-size", "8", "--context", "16"]


def stages(folder: Path, text: Path, steps: int) -> list[list[str]]:
    """The commands of one experiment in `folder`."""
    proctool = [sys.executable, "-m", "proctool"]
    warm, model = folder / "warm.safetensors", folder / "model.safetensors"
    warmup = ["warmup", "--task", "set:inputs=5,symbols=9", "--curriculum", "start=3,accuracy=.15", *_COMMON]
    pretrain = ["pretrain", "--corpus", str(text), "--init", str(warm), "--save", "both", *_COMMON]
    return [
        [*proctool, *warmup, "--steps", str(steps), "--run-dir", str(folder / "warm"), "-o", str(warm)],
        [*proctool, *pretrain, "--steps", str(steps), "--run-dir", str(folder / "model"), "-o", str(model)],
    ]


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on kills."""
    found: dict[str, Any] = {path.name: read_header(path).content for path in sorted(folder.glob("*.safetensors"))}
    for name in ("warm", "model"):
        found[name] = [
            {key: value for key, value in event.items() if key not in _CLOCKS}
            for event in read_events(folder / name)
            if event["event"] != "resume"
        ]
    return found


def run(command: list[str], environment: dict[str, str], kill_after: float | None) -> bool:
    """Run a command to its end, or kill it after some seconds; whether it was killed."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said.decode()}")
    return False


def main() -> None:
    """Kill, resume, compare, and say how it went; exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="in all (40)")
    parser.add_argument("--each", type=int, default=4, help="of one command (4)")
    parser.add_argument("--steps", type=int, default=300, help="of each command (300)")
    parser.add_argument("--seed", type=int, default=0, help="draws the instants (0)")
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    killed = during = experiments = different = 0
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        environment = {**os.environ, "PROCTOOL_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
        text = root / "text"
        text.mkdir()
        for number in range(60):
            body = "".join(f"line {(number * line) % 7} of {number}\n" for line in range(12))
            (text / f"{number:02}.txt").write_text(body)
        (root / "whole").mkdir()
        lives = []
        for command in stages(root / "whole", text, chosen.steps):
            began = time.monotonic()
            run(command, environment, None)
            lives.append(time.monotonic() - began)
        whole = outcome(root / "whole")
        while killed < chosen.kills:
            experiments += 1
            folder = root / f"killed-{experiments}"
            folder.mkdir()
            for name, command, life in zip(("warm", "model"), stages(folder, text, chosen.steps), lives, strict=True):
                for _ in range(min(chosen.each, chosen.kills - killed)):
                    before = len(read_events(folder / name))
                    if not run(command, environment, rng.uniform(0.1, 1.0) * life):
                        break  # it came to its end first
                    killed += 1
                    during += len(read_events(folder / name)) != before
                run(command, environment, None)
            if outcome(folder) != whole:
                different += 1
                print(f"experiment {experiments} differs from the undisturbed one")
    print(
        f"{killed} kills in {experiments} experiments, {during} of them after new events; {different} ended differently"
    )
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
