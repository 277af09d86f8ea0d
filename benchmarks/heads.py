"""What bracket donors bring to haystack: scores of heads before and after, and the figure of docs/results/heads.md.

    python -m benchmarks.heads measure donor.safetensors=RUN ... > heads.jsonl     # RUN: haystack from this donor
    python -m benchmarks.heads figure donor.safetensors RUN 0.0,1.3 heads.png      # RUN: with --track-heads

A pair of donor and run takes about ten seconds of one core. Scores are means over samples of the validation split.
On brackets, over closing brackets that are not next to their opening one:

match       attention of a closing bracket to the opening one
foresee     attention of the token before a closing bracket to the opening one, which tells what the next token may be
..._even    the same attention at the same distances over all tokens of the samples: what positions alone give
inside      attention of a token to each earlier token since the innermost bracket that is still open
outside     the same to tokens before that bracket, at the same distances: inside / outside is what content adds

On haystack, over samples of at least two thirds of the pairs:

value, key  attention of the query to the value asked for, and to its key
own_key     attention of each value to its key, the token before
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 512

Scores = dict[str, NDArray[np.float64]]
"""By name: (layers, heads)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    measured = verbs.add_parser("measure")
    measured.add_argument("pairs", nargs="+", help="DONOR=RUN, or DONOR alone")
    drawn = verbs.add_parser("figure")
    drawn.add_argument("donor", type=Path)
    drawn.add_argument("run", type=Path)
    drawn.add_argument("heads", help="one head of each layer, such as 0.0,1.3")
    drawn.add_argument("output", type=Path)
    asked = parser.parse_args()
    if asked.verb == "measure":
        for pair in asked.pairs:
            donor, _, run = pair.partition("=")
            print(json.dumps(measure(Path(donor), Path(run) if run else None)), flush=True)
    else:
        figure(asked.donor, asked.run, [read_head(each) for each in asked.heads.split(",")], asked.output)
    return 0


def measure(donor: Path, run: Path | None) -> dict[str, Any]:
    """Scores of a donor's heads on its brackets and, with a run from it, of the trained model's on haystack."""
    from proctool.models.saved import open_model

    saved = open_model(donor)
    task = brackets_of(saved)
    line: dict[str, Any] = {"donor": donor.stem, "content": saved.content, "task": task}
    line["closing_right"] = round(closing_right(saved.model(), task), 4)
    line["brackets"] = rows(bracket_scores(saved.model(), task))
    if run is not None:
        line["haystack"] = haystack(run)
    return line


def brackets_of(donor: Any) -> str:
    """The task that a donor was trained on, from its vocabulary and context."""
    return f"dyck:k={donor.config.vocab_size // 2},length={donor.config.n_positions}"


def rows(scores: Scores) -> list[dict[str, Any]]:
    """A row for each head."""
    shape = next(iter(scores.values())).shape
    return [
        {"layer": layer, "head": head} | {name: round(float(value[layer, head]), 4) for name, value in scores.items()}
        for layer, head in np.ndindex(shape)
    ]


def attention(model: Any, tokens: NDArray[Any]) -> NDArray[np.float32]:
    """(n, L) -> (layers, n, heads, L, L)"""
    import torch

    from proctool.models.heads import eager, patterns

    with eager(model):
        return np.stack([each.numpy() for each in patterns(model, torch.from_numpy(tokens.astype(np.int64)))[0]])


def general(shown: NDArray[np.float32], lengths: NDArray[np.int64]) -> Scores:
    """Attention to the token before and entropy in nats, over the positions of samples that have `lengths`."""
    length = shown.shape[-1]
    real = (np.arange(length) < lengths[:, None])[:, 1:]  # (n, L - 1)
    before = np.diagonal(shown, -1, 3, 4)  # (layers, n, heads, L - 1)
    entropy = -(shown * np.log(np.maximum(shown, 1e-30))).sum(-1)[..., 1:]
    count = real.sum()
    return {
        "previous_token": np.einsum("lnhi,ni->lh", before, real) / count,
        "entropy": np.einsum("lnhi,ni->lh", entropy, real) / count,
    }


def bracket_scores(model: Any, spec: str, samples: int = 128) -> Scores:
    """The scores on brackets."""
    from proctool.evaluation.interpret.beside import brackets
    from proctool.procedural.mixture import parse_tasks
    from proctool.procedural.streams import Stream

    task = parse_tasks(spec)
    tokens = Stream(task, 0, "validation").read(0, samples).tokens
    shown = attention(model, tokens)
    length = tokens.shape[1]
    foresee = np.array([brackets(ids.astype(np.int64), task) for ids in tokens])  # (n, L, L)
    foresee = np.tril(foresee, -1)
    match = np.zeros_like(foresee)
    match[:, 1:] = foresee[:, :-1]
    found: Scores = {}
    by_distance = np.stack([np.diagonal(shown, -d, 3, 4).mean((1, 3)) for d in range(length)], -1)  # (layers, heads, L)
    for name, marks in (("match", match), ("foresee", foresee)):
        sample, query, opening = marks.nonzero()
        found[name] = shown[:, sample, :, query, opening].mean(0)  # (marks, layers, heads) before the mean
        found[f"{name}_even"] = by_distance[..., query - opening].mean(-1)
    start = innermost(tokens < task.layout["close"].start)[:, :, None]  # (n, L, 1)
    place = np.arange(length)
    inside = (place >= start) & (place < place[:, None])  # (n, L, L): query, then key
    outside = (place < start) & (place < place[:, None])
    total, at_distance, count = 0, [], []
    for d in range(1, length):
        within, beyond = np.diagonal(inside, -d, 1, 2), np.diagonal(outside, -d, 1, 2)  # (n, L - d)
        if not (within.any() and beyond.any()):
            continue
        weights = np.diagonal(shown, -d, 3, 4)  # (layers, n, heads, L - d)
        at_distance.append([np.einsum("lnhi,ni->lh", weights, mask) / mask.sum() for mask in (within, beyond)])
        count.append(within.sum())
        total += within.sum()
    found["inside"], found["outside"] = np.einsum("d,dslh->slh", np.array(count) / total, np.array(at_distance))
    return found | general(shown, np.full(len(tokens), length))


def closing_right(model: Any, spec: str, samples: int = 128) -> float:
    """The share of closing brackets that have the highest logit."""
    import torch

    from proctool.models.heads import eager, patterns
    from proctool.procedural.mixture import parse_tasks
    from proctool.procedural.streams import Stream

    task = parse_tasks(spec)
    tokens = torch.from_numpy(Stream(task, 0, "validation").read(0, samples).tokens.astype(np.int64))
    with eager(model):
        chosen = patterns(model, tokens)[1][:, :-1].argmax(-1)
    asked = tokens[:, 1:] >= task.layout["close"].start
    return float((chosen == tokens[:, 1:])[asked].double().mean())


def innermost(opens: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The place of the innermost bracket that is open after each token; -1 if none is: (n, L) -> (n, L)"""
    found = np.full(opens.shape, -1)
    for sample, row in enumerate(opens):
        waiting: list[int] = []
        for place, is_open in enumerate(row):
            if is_open:
                waiting.append(place)
            else:
                waiting.pop()
            found[sample, place] = waiting[-1] if waiting else -1
    return found


def haystack(run: Path) -> dict[str, Any]:
    """The trained model's recall, its heads' scores, and what it loses without heads."""
    from proctool.evaluation.interpret.ablation import ablate
    from proctool.evaluation.interpret.options import InterpretOptions
    from proctool.evaluation.interpret.probes import task_probe
    from proctool.models.head_scores import score_model
    from proctool.models.saved import open_model

    settings = json.loads((run / "config.json").read_text())
    saved = open_model(run / "model.safetensors")
    model = saved.model()
    options = InterpretOptions(task=settings["source.task"], samples=SAMPLES, ablate="mean", orders=5)
    probe = task_probe(saved.config, options, str(run))
    removed = ablate(model, probe, score_model(model, probe, str(run)), options)
    return {
        "run": run.name,
        "task": options.task,
        "content": saved.content,
        "recall": round(removed.whole.accuracy, 4),
        "heads": rows(haystack_scores(model, probe.samples, settings["pairs"])),
        "recall_without": [[*head, round(each.accuracy, 4)] for head, each in removed.single.items()],
        "orders": [
            {"order": each.order, "seed": each.seed, "curve": [round(point.accuracy, 4) for point in each.curve]}
            for each in removed.removals
        ],
    }


def haystack_scores(model: Any, samples: Any, pairs: int) -> Scores:
    """The scores on haystack."""
    full = samples.targets.argmax(1) >= 2 * (2 * pairs // 3) + 1
    tokens, answers = samples.tokens[full].astype(np.int64), samples.targets[full].argmax(1)
    shown = attention(model, tokens)
    at = np.arange(len(tokens))
    query = answers - 1
    key = (tokens == (tokens[at, query] - pairs)[:, None]).argmax(1)  # a query's id is its key's plus the keys
    assert (tokens[at, key + 1] == tokens[at, answers]).all()
    values = np.arange(1, tokens.shape[1], 2)
    there = values < query[:, None]  # (n, values)
    own = shown[..., values, values - 1]  # (layers, n, heads, values)
    return {
        "value": shown[:, at, :, query, key + 1].mean(0),
        "key": shown[:, at, :, query, key].mean(0),
        "own_key": np.einsum("lnhv,nv->lh", own, there) / there.sum(),
    } | general(shown, query + 1)


def read_head(written: str) -> tuple[int, int]:
    """`1.2` as a layer and a head."""
    layer, head = written.split(".")
    return int(layer), int(head)


def figure(donor: Path, run: Path, heads: list[tuple[int, int]], output: Path) -> None:
    """The heads on brackets (the donor) and on haystack (the trained model), and recall and scores over training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from proctool.evaluation.interpret.beside import panel
    from proctool.evaluation.interpret.course import read_course
    from proctool.evaluation.interpret.options import InterpretOptions
    from proctool.evaluation.interpret.probes import task_probe
    from proctool.models.saved import open_model
    from proctool.outputs import FIGURE_METADATA
    from proctool.procedural.mixture import parse_tasks
    from proctool.reporting.looks import COLOURS

    settings = json.loads((run / "config.json").read_text())
    before, after = open_model(donor), open_model(run / "model.safetensors")
    panels = []
    for saved, spec in ((before, brackets_of(before)), (after, settings["source.task"])):
        probe = task_probe(saved.config, InterpretOptions(task=spec, samples=100), str(saved.path))
        panels.append(panel(saved.model(), probe, parse_tasks(spec), ""))
    shown = pyplot.figure(figsize=(12, 7), layout="constrained")
    maps, curves = shown.subfigures(1, 2, width_ratios=(1.75, 1), wspace=0.04)
    grid = maps.subplots(len(heads), 2, squeeze=False)
    titles = ("donor, on brackets", "after training, on haystack")
    for row, (layer, head) in zip(grid, heads, strict=True):
        for axes, each, title in zip(row, panels, titles, strict=True):
            image = axes.imshow(each.patterns[layer, head], cmap="Greys", vmax=0.3, vmin=0, interpolation="nearest")
            if layer == max(heads)[0]:
                places, columns = each.marks.nonzero()
                axes.plot(columns, places, "o", markersize=6, markerfacecolor="none", color=COLOURS[2], mew=1.2)
            axes.set_title(f"head {layer}.{head}: {title}", fontsize=10)
            ticks = range(len(each.words))
            axes.set_xticks(ticks, each.words, fontsize=6, rotation=90)
            axes.set_yticks(ticks, each.words, fontsize=6)
            axes.tick_params(length=0, pad=1)
    bar = maps.colorbar(image, ax=grid, location="bottom", shrink=0.4, aspect=30, extend="max")
    bar.set_label(
        "attention of the row's token to the column's; ring: the bracket to close, the value asked for", size=9
    )
    points = read_course(run)
    steps = [point.step for point in points]
    above, below = curves.subplots(2, 1, sharex=True)
    above.plot(steps, [point.accuracy for point in points], color="black", linewidth=1.5)
    above.set_title("recall", fontsize=10)
    below.set_title("attention of each head", fontsize=10)
    words = {0: ("previous_token", "layer 0, to the token before"), 1: ("lookup", "layer 1, to the value asked for")}
    for layer, head in np.ndindex(panels[1].patterns.shape[:2]):
        score, label = words[layer]
        line = [next(r for r in point.own if (r["layer"], r["head"]) == (layer, head))[score] for point in points]
        below.plot(steps, line, color=COLOURS[layer + 1], linewidth=1.3, label=None if head else label)
    below.legend(frameon=False, fontsize=9, loc="upper left")
    below.set_xlabel("training step", fontsize=9)
    for axes in (above, below):
        axes.set_ylim(0, 1.02)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    shown.savefig(output, dpi=150, metadata=FIGURE_METADATA["png"])


if __name__ == "__main__":
    sys.exit(main())
