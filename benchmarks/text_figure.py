"""The figure of docs/results.md on text: the gain of every arm over cold on three corpora, from recorded evaluations.

    python -m benchmarks.text_figure docs/results/text.jsonl docs/results/text.png

Gains are differences of final losses in nats per token, paired by seed, with 95 % intervals (Student's t).
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

from proctool.reporting.interval import Estimate, estimate

_FINAL = re.compile(r"pretrain-(?P<arm>.+)-s(?P<seed>\d+)")
_CONTROL = re.compile(r".+-(text|shuffled|scale)")
_ALIKE = {f"{arm}-text": "text" for arm in ("set", "dyck", "eca")}
"""The control on text is the same for every task."""


def gains(lines: Path) -> dict[str, dict[str, Estimate]]:
    """By corpus and arm; arms that train on more corpus are left out."""
    losses: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        stage = _FINAL.fullmatch(found["stage"])
        if stage and "evals" in found and not stage["arm"].endswith("-longer"):
            losses[found["corpus"]][_ALIKE.get(stage["arm"], stage["arm"])][stage["seed"]] = found["evals"][-1][1]
    return {
        corpus: {
            arm: estimate([arms["cold"][seed] - loss for seed, loss in by_seed.items()])
            for arm, by_seed in arms.items()
            if arm != "cold"
        }
        for corpus, arms in losses.items()
    }


def draw(found: dict[str, dict[str, Estimate]], path: Path) -> None:
    """A panel per corpus, a row per arm, sorted by the mean gain; controls are white squares."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    arms = sorted({arm for each in found.values() for arm in each}, key=lambda arm: -_mean(found, arm))
    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = pyplot.subplots(1, len(found), figsize=(8, 4.6), sharey=True, layout="constrained")
    for axes, (corpus, by_arm) in zip(panels, found.items(), strict=True):
        axes.axvline(0, color="grey", linestyle=":", linewidth=1)
        for place, arm in enumerate(arms):
            gain, control = by_arm[arm], arm == "text" or _CONTROL.fullmatch(arm) is not None
            colour = "#d55e00" if control else "#0072b2"
            axes.plot([gain.low, gain.high], [place, place], color=colour, linewidth=1.2)
            axes.plot(gain.value, place, "s" if control else "o", color=colour, markersize=5,
                      markerfacecolor="white" if control else colour,
                      label="control" if control else "warm-up")  # fmt: skip
        axes.set(title=corpus, xlabel="gain over cold (nats per token)", xlim=(-0.3, 0.16))
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    entries = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    panels[0].legend(entries.values(), entries.keys(), fontsize=8, loc="upper left")
    figure.savefig(path, dpi=150)


def _mean(found: dict[str, dict[str, Estimate]], arm: str) -> float:
    return sum(each[arm].value for each in found.values()) / len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    parser.add_argument("figure", type=Path)
    asked = parser.parse_args()
    draw(gains(asked.lines), asked.figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
