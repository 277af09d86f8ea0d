"""Which bracket donors transfer to haystack: trains donors, looks at their heads, runs the diagnostic from each.

    python -m benchmarks.donors --setting k16 --donors 0-9 --diagnostics 0 --folder runs/donors
    python -m benchmarks.donors --accept haystack:above=.25,tries=10   # donors that passed a probe
    python -m benchmarks.donors --heads donor.safetensors ...          # the measures of heads alone

A pair of donor and diagnostic takes about ten minutes of one core. Each finished pair is one line in
`FOLDER/pairs.jsonl`; pairs that are there are not repeated, and interrupted ones resume.

The target is the paper's (section 4 and the official code): GPT-2 of 2x4x16, untied, 100 positions, vocabulary 256;
attention, MLPs, norms and positions are carried, every embedding row starts as the mean of the donor's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TARGET = {
    "model_type": "gpt2", "n_layer": 2, "n_head": 4, "n_embd": 16, "n_positions": 100, "vocab_size": 256,
    "tie_word_embeddings": False, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
WARMUP = (
    "--model 2x4x16 --init-std .02 --steps 6000 --batch-size 128 --lr 5e-3 --schedule cosine --ramp-steps 200 "
    "--compile --eval-every 500 --eval-samples 500"
)
SETTINGS = {
    "k16": ("dyck:k=16,length=128", ""),
    "k8": ("dyck:k=8,length=128", ""),
    "k64": ("dyck:k=64,length=128", ""),
    "k16-dropout": ("dyck:k=16,length=128", "--dropout .1"),
    "k16-init-std": ("dyck:k=16,length=128", "--init-std .1386"),
}
DIAGNOSTIC = (
    "--components attention,mlp,norms,positions --embeddings mean --steps 4000 --batch-size 1000 --lr 1e-3 "
    "--ramp-steps 500 --beta2 .999 --final-lr 0 --compile --eval-every 250 --eval-samples 2000 --until accuracy=.97"
)
POSITIONS = 61
"""Positions that haystack's 30 pairs take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, default="k16")
    parser.add_argument("--donors", default="0-9", help="seeds of donors: 0-9 or 0,3,5")
    parser.add_argument("--diagnostics", default="0", help="seeds of the diagnostic")
    parser.add_argument("--accept", help="probe donors, as `proctool warmup --accept` does")
    parser.add_argument("--folder", type=Path, default=Path("runs/donors"))
    parser.add_argument("--heads", nargs="+", type=Path, help="measure these donors' heads and leave")
    asked = parser.parse_args()
    if asked.heads:
        for donor in asked.heads:
            print(json.dumps({"donor": donor.stem, "heads": heads(donor)}))
        return 0
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "target.json").write_text(json.dumps(TARGET))
    record = asked.folder / "pairs.jsonl"
    done = [{"accept": None} | json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    for donor_seed in seeds(asked.donors):
        for seed in seeds(asked.diagnostics):
            key = {"setting": asked.setting, "accept": asked.accept, "donor_seed": donor_seed, "diagnostic_seed": seed}
            if any(key.items() <= each.items() for each in done):
                continue
            pair = key | run(asked.folder, asked.setting, donor_seed, seed, asked.accept)
            with record.open("a") as file:
                file.write(json.dumps(pair) + "\n")
            print(f"{asked.setting}: donor {donor_seed}, diagnostic {seed}: {pair['accuracy']:.1%}", flush=True)
    return 0


def seeds(written: str) -> list[int]:
    """`0-3` or `0,2` as numbers."""
    first, dash, last = written.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(each) for each in written.split(",")]


def run(folder: Path, setting: str, donor_seed: int, seed: int, accept: str | None = None) -> dict[str, Any]:
    """One donor and one diagnostic from it: how both ended, and the donor's heads before the diagnostic."""
    task, more = SETTINGS[setting]
    name = f"{setting}-{donor_seed}" + (f"-{accept.replace(':', '-')}" if accept else "")
    donor = folder / f"{name}.safetensors"
    warmup = f"warmup --task {task} {WARMUP} {more} --seed {donor_seed}".split()
    warmup += ["--accept", accept] if accept else []
    trained = events(proctool([*warmup, "-o", str(donor)], folder / name))
    diagnostic = f"eval haystack --model {folder / 'target.json'} {DIAGNOSTIC} --seed {seed}".split()
    measured = events(proctool([*diagnostic, "--init", str(donor)], folder / f"{name}-d{seed}"))
    evals = [event for event in measured if event["event"] == "eval"]
    end = next(event for event in reversed(trained) if event["event"] == "end")
    return {
        "accuracy": evals[-1]["accuracy"],
        "steps": evals[-1]["step"],
        "curve": [[event["step"], round(event["accuracy"], 4)] for event in evals],
        "donor": {key: end[key] for key in ("step", "tokens", "loss", "accuracy", "content")},
        "heads": heads(donor),
        "commands": [" ".join(warmup), " ".join(diagnostic)],
    }


def proctool(words: list[str], run_folder: Path) -> Path:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "proctool", *words, "--run-dir", str(run_folder)]
    subprocess.run(command, check=True, env=environment)
    return run_folder


def events(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def heads(path: Path) -> list[dict[str, float]]:
    """What each head does when all embeddings are their mean, so that positions alone tell tokens apart.

    `recent` is the attention paid to the present and the three positions before it, from position 10 on;
    `entropy` is that of the attention over that of even attention.
    """
    import torch

    from proctool.models.saved import open_model

    model = open_model(path).model().eval()
    model.config._attn_implementation = "eager"
    mean = model.get_input_embeddings().weight.detach().mean(0)  # (C,)
    with torch.no_grad():
        attentions = model(inputs_embeds=mean.expand(1, POSITIONS, -1), output_attentions=True).attentions
    found = []
    query = torch.arange(10, POSITIONS)
    for layer, attention in enumerate(attentions):
        for head, pattern in enumerate(attention[0]):  # (L, L)
            recent = sum(float(pattern[query, query - back].mean()) for back in range(4))
            entropy = -(pattern[query] * (pattern[query] + 1e-9).log()).sum(-1) / torch.log(query + 1.0)
            found.append(
                {"layer": layer, "head": head, "recent": round(recent, 4), "entropy": round(float(entropy.mean()), 4)}
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
