"""Where haystack's errors are: recall and the head that reads keys, by the place of the pair that is asked for.

    python -m benchmarks.places measure RUN ... > haystack-places.jsonl     # RUN: a run folder of `eval haystack`
    python -m benchmarks.places figure haystack-places.jsonl haystack-places.png

A run takes some seconds of one core. `recall` is the share of right answers of validation samples that ask for the pair
at this place. `own_key` is the attention of the value at this place to its key, the token before, in the head of the
first layer that has most of it over all places.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.heads import attention

SAMPLES = 20_000
SHOWN = 500
"""Samples for the attention, all with the most pairs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measured = verbs.add_parser("measure")
    measured.add_argument("runs", nargs="+", type=Path)
    drawn = verbs.add_parser("figure")
    drawn.add_argument("lines", type=Path)
    drawn.add_argument("output", type=Path)
    asked = parser.parse_args()
    if asked.verb == "measure":
        for run in asked.runs:
            print(json.dumps(measure(run)), flush=True)
    else:
        figure([json.loads(line) for line in asked.lines.read_text().splitlines()], asked.output)
    return 0


def measure(run: Path) -> dict[str, Any]:
    """Recall and attention by place, of a trained model."""
    import torch

    from proctool.models.saved import open_model
    from proctool.procedural.diagnostics import Haystack
    from proctool.procedural.mixture import parse_tasks
    from proctool.procedural.streams import Stream

    settings = json.loads((run / "config.json").read_text())
    task = parse_tasks(settings["source.task"])
    assert isinstance(task, Haystack), run
    pairs = task.pairs
    model = open_model(run / "model.safetensors").model().eval()
    samples = Stream(task, 0, "validation").read(0, SAMPLES)
    tokens, answers = samples.tokens.astype(np.int64), samples.targets.argmax(1)
    at, query = np.arange(len(tokens)), answers - 1
    place = (tokens == (tokens[at, query] - pairs)[:, None]).argmax(1) // 2  # a query's id is its key's plus the keys
    assert (tokens[at, 2 * place + 1] == tokens[at, answers]).all()
    right = np.zeros(len(tokens), bool)
    with torch.inference_mode():
        for start in range(0, len(tokens), 1000):
            part = slice(start, start + 1000)
            logits = model(torch.from_numpy(tokens[part])).logits
            right[part] = logits[torch.arange(len(logits)), query[part]].argmax(-1).numpy() == tokens[at, answers][part]
    count = np.bincount(place, minlength=pairs)
    longest = tokens[query == 2 * pairs][:SHOWN]
    values = np.arange(1, 2 * pairs, 2)
    own = attention(model, longest)[0][..., values, values - 1].mean(0)  # (heads, places)
    head = int(own.mean(1).argmax())
    return {
        "run": run.name,
        "group": run.parent.name,
        "seed": settings["seed"],
        "accuracy": round(float(right.mean()), 4),
        "asked": count.tolist(),
        "recall": (np.bincount(place, weights=right, minlength=pairs) / count).round(3).tolist(),
        "head": head,
        "own_key": own[head].astype(np.float64).round(3).tolist(),
    }


def figure(lines: list[dict[str, Any]], output: Path) -> None:
    """A row for each run: recall and attention by place, as shades."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from proctool.outputs import FIGURE_METADATA

    lines = sorted(lines, key=lambda line: -line["accuracy"])
    shown, panels = pyplot.subplots(1, 2, figsize=(11, 1.2 + 0.22 * len(lines)), layout="constrained", sharey=True)
    titles = {"recall": "right answers", "own_key": "attention of the pair's value to its key, best head of layer 0"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        image = axes.imshow([line[name] for line in lines], cmap="Greys", vmin=0, vmax=1, aspect="auto")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("place of the pair in the sequence", fontsize=9)
        places = len(lines[0][name])
        axes.set_xticks(range(4, places, 5), [str(place) for place in range(5, places + 1, 5)], fontsize=8)
        axes.tick_params(length=0)
    panels[0].set_yticks(range(len(lines)), [f"{100 * line['accuracy']:.1f} %" for line in lines], fontsize=8)
    panels[0].set_ylabel("runs, by recall", fontsize=9)
    shown.colorbar(image, ax=panels, shrink=0.8, aspect=20)
    shown.savefig(output, dpi=150, metadata=FIGURE_METADATA["png"])


if __name__ == "__main__":
    sys.exit(main())
