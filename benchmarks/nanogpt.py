"""GPT-2 small against nanoGPT's train.py: tokens a second and peak memory on this machine's processor.

`git clone https://github.com/karpathy/nanoGPT; python -m benchmarks.nanogpt nanoGPT [--batch 8] [--steps 6]`. Each
program runs in a process of its own, on the same random tokens: 12 layers, 12 heads, width 768, 50304 tokens, AdamW, no
dropout. nanoGPT computes in fp32 on a processor whatever its `dtype`. Seconds are medians over steps, the first two
left out; memory is the process's largest resident set, Python and libraries included. A round runs all programs, one
after the other. A ratio compares two programs of one round, so a machine whose speed drifts between rounds does not
change it. Printed are medians over rounds, and the range of the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WORDS, WARMING = 50304, 2


def measured(command: list[str], folder: Path) -> tuple[str, float]:
    """What a command prints, and its peak memory in GiB. Raises CalledProcessError."""
    out = folder / "out.txt"
    environment = {**os.environ, "PROCTOOL_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    with out.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command, out.read_text()[-3000:])
    return out.read_text(), usage.ru_maxrss / 2**20


def write_data(folder: Path, tokens: int) -> None:
    """The same random tokens as nanoGPT's `train.bin` and as text of a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = np.random.default_rng(0).integers(0, WORDS, tokens).astype(np.uint16)
    data = folder / "data" / "bench"
    data.mkdir(parents=True)
    for split in ("train", "val"):
        ids.tofile(data / f"{split}.bin")
    lines = (" ".join(f"w{i}" for i in row) for row in ids.reshape(-1, 512))
    with (folder / "text.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": line}) + "\n" for line in lines)
    words = {f"w{i}": i for i in range(WORDS - 1)} | {"<|endoftext|>": WORDS - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))


def nanogpt(
    folder: Path, repository: Path, batch: int, context: int, steps: int, compiled: bool
) -> tuple[float, float]:
    """Seconds a step and peak GiB of nanoGPT."""
    for name in ("train.py", "model.py", "configurator.py"):
        (folder / name).write_bytes((repository / name).read_bytes())
    settings = {
        "dataset": "bench", "device": "cpu", "compile": compiled, "batch_size": batch, "block_size": context,
        "gradient_accumulation_steps": 1, "max_iters": steps, "eval_iters": 1, "eval_interval": 10 * steps,
        "log_interval": 1, "always_save_checkpoint": False, "warmup_iters": 1,
    }  # fmt: skip
    said, peak = measured([sys.executable, "train.py", *(f"--{k}={v}" for k, v in settings.items())], folder)
    milliseconds = [float(found) for found in re.findall(r"^iter \d+: .*time ([\d.]+)ms", said, re.MULTILINE)]
    return statistics.median(milliseconds[WARMING:]) / 1000, peak


def proctool(folder: Path, batch: int, context: int, steps: int, *more: str) -> tuple[float, float]:
    """Seconds a step and peak GiB of `proctool pretrain`."""
    run = folder / "-".join(["run", *more])
    command = [sys.executable, "-m", "proctool", "pretrain", "--model", "gpt2", "--corpus", "text.jsonl"]
    command += ["--tokenizer", "tokenizer", "--context", str(context), "--batch-size", str(batch)]
    command += ["--steps", str(steps), "--log-every", "1", "--eval-every", str(steps), "--eval-samples", "1"]
    _, peak = measured([*command, "--run-dir", str(run), "-o", str(run) + ".safetensors", *more], folder)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    marks = [event["seconds"] for event in events if event["event"] == "train"]
    return statistics.median(np.diff(marks)[WARMING - 1 :].tolist()), peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, help="a clone of nanoGPT")
    parser.add_argument("--batch", type=int, default=8, help="samples in a step (8)")
    parser.add_argument("--context", type=int, default=512, help="tokens in a sample (512)")
    parser.add_argument("--steps", type=int, default=6, help="of each program (6)")
    parser.add_argument("--rounds", type=int, default=3, help="of all programs (3)")
    parser.add_argument("--compile", action="store_true", help="torch.compile in both programs")
    chosen = parser.parse_args()
    batch, context, steps = chosen.batch, chosen.context, chosen.steps
    compiled = ["--compile"] if chosen.compile else []
    names = ["nanoGPT train.py, fp32", "proctool pretrain, fp32", "proctool pretrain, bf16"]
    rounds: list[list[tuple[float, float]]] = []
    for number in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            write_data(folder, 512 * 512)
            found = [nanogpt(folder, chosen.repository, batch, context, steps, chosen.compile)]
            found += [
                proctool(folder, batch, context, steps, "--precision", precision, *compiled)
                for precision in ("fp32", "bf16")
            ]
        rounds.append(found)
        speeds = ", ".join(f"{batch * context / seconds:.0f}" for seconds, _ in found)
        print(f"round {number + 1} of {chosen.rounds}: {speeds} tokens/s", file=sys.stderr, flush=True)
    title = f"batch {batch}, context {context}{', compiled' if compiled else ''}"
    print(f"| {title} | tokens/s | times | range | peak GiB | times |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, measures in zip(names, zip(*rounds, strict=True), strict=True):
        ratios = [each[0][0] / seconds for each, (seconds, _) in zip(rounds, measures, strict=True)]
        peaks = [peak / each[0][1] for each, (_, peak) in zip(rounds, measures, strict=True)]
        speed = batch * context / statistics.median(seconds for seconds, _ in measures)
        memory = statistics.median(peak for _, peak in measures)
        print(
            f"| {name} | {speed:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
            f"| {memory:.2f} | {statistics.median(peaks):.2f} |"
        )


if __name__ == "__main__":
    main()
