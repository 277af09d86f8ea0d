"""How often the choice of `proctool search` is within the noise of the best: exhaustive runs one size up.

    python -m benchmarks.search_judge --folder runs/judge --hours 1
    python -m benchmarks.search_judge --pair python=4x4x128 --task set --steps 400

For each pair of corpus and model, a search sees a quarter and a half of the model's width. Then every task with every
choice of components trains at the full width, at three rates each, and so does the search's choice. One seed chooses
rates and the best cell; three other seeds and other validation rows measure them. The search hits if the paired
difference between the best cell and its choice has an interval that includes zero, or is below zero.

Runs that are done are not repeated. The results are one line per pair in `FOLDER/judged.jsonl`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from proctool import config
from proctool.cli.training import quiet_libraries
from proctool.errors import ProctoolError, RunError
from proctool.reporting.interval import Estimate, estimate
from proctool.search.answer import Answer
from proctool.search.cells import COLD, Setting, Warmed, planned
from proctool.search.measure import Text, last_loss, open_text
from proctool.search.options import SearchOptions
from proctool.search.run import search
from proctool.search.space import COMPONENTS, RATES, STDS, Candidate, Cold, around, target_of, tasks_of
from proctool.search.trial import run_arm
from proctool.search.words import first_sentence

PAIRS = ("python=4x4x128", "docstrings=4x4x128", "mathematics=4x4x128")
CHOOSES, MEASURES = 0, (2000, 2001, 2002)
"""The seed that chooses among cells, and those that measure; the search uses 0 and 1 up to 1002 at other widths."""
DOSE = 0.5


@dataclasses.dataclass
class Judge:
    """Exhaustive runs of one pair at the full width."""

    setting: Setting
    text: Text
    root: Path
    runs: int = 0

    def loss(self, arm: Cold | Warmed, seed: int, *, fresh: bool) -> float:
        """The loss of an arm: on the rows that choose, or on fresh rows. Infinite where training diverges."""
        shape, _ = target_of(self.setting.options)
        name = COLD if isinstance(arm, Cold) else "warm"
        plan = planned(self.setting, shape, {name: arm}, (seed,), self.root)
        seen: list[float] = []
        self.runs += 1
        try:
            stage = run_arm(plan, name, seed, lambda step, loss: seen.append(loss), self.setting.options.cache_dir)
        except RunError:
            return float("inf")
        model = stage.artifact(plan.root)
        assert model is not None
        return last_loss(model, self.text, self.setting.options.batch_size) if fresh else seen[-1]

    def tuned_cold(self) -> Cold:
        """The best cold start of the grid."""
        return min(
            (Cold(rate, std) for rate in RATES for std in STDS),
            key=lambda each: self.loss(each, CHOOSES, fresh=False),
        )

    def at_best_rate(self, candidate: Candidate, cold: Cold) -> tuple[Candidate, float]:
        """The candidate at the best of three rates, and its loss there."""
        found = [dataclasses.replace(candidate, rate=rate) for rate in around(candidate.rate)]
        scored = [(self.loss(Warmed(each, cold), CHOOSES, fresh=False), number) for number, each in enumerate(found)]
        loss, number = min(scored)
        return found[number], loss

    def measured(self, arm: Cold | Warmed) -> list[float]:
        """Its losses on the seeds and rows that measure."""
        return [self.loss(arm, seed, fresh=True) for seed in MEASURES]


def judge(answer: Answer, options: SearchOptions, steps: int, root: Path) -> dict[str, Any]:
    """The search's choice against every cell at the full width."""
    text = open_text(options)
    judged = Judge(Setting(options, steps, text.eval_samples, tasks_of(options)), text, root)
    began = time.monotonic()
    cold = judged.tuned_cold()
    cells = [
        judged.at_best_rate(Candidate(task, DOSE, components, "scale", cold.rate), cold)
        for task in judged.setting.tasks
        for components in COMPONENTS
    ]
    best = min(cells, key=lambda each: each[1])[0]
    choice, _ = judged.at_best_rate(answer.measured.winner.candidate, cold)
    losses = {name: judged.measured(Warmed(each, cold)) for name, each in (("best", best), ("choice", choice))}
    base = judged.measured(cold)
    regret = gap(losses["choice"], losses["best"])
    return {
        "corpus": options.corpus,
        "model": options.model,
        "said": first_sentence(answer),
        "verdict": answer.verdict,
        "choice": dataclasses.asdict(choice),
        "best": dataclasses.asdict(best),
        "gain_of_choice": config.plain(gap(base, losses["choice"])),
        "gain_of_best": config.plain(gap(base, losses["best"])),
        "regret": config.plain(regret),
        "hit": not (regret.excludes_zero and regret.value > 0),
        # The advice is right if what it says of the small models also holds one size up.
        "advice_holds": (answer.verdict == "recommend") == _is_gain(gap(base, losses["choice"])),
        "cells": len(cells),
        "runs": judged.runs,
        "search_seconds": round(answer.seconds),
        "exhaustive_seconds": round(time.monotonic() - began),
    }


def gap(base: list[float], arm: list[float]) -> Estimate:
    """The paired gain of an arm over a base."""
    return estimate([one - other for one, other in zip(base, arm, strict=True)])


def _is_gain(gain: Estimate) -> bool:
    return gain.excludes_zero and gain.value > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", action="append", help=f"CORPUS=MODEL (default: {', '.join(PAIRS)})")
    parser.add_argument("--task", action="append", default=[], help="tasks to try (default: those of the search)")
    parser.add_argument("--hours", type=float, default=1.0, help="time of each search")
    parser.add_argument("--steps", type=int, help="steps of a trial, in the search and at the full width")
    parser.add_argument("--trials", type=int, help="most candidates of each search")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--folder", type=Path, default=Path("runs/judge"))
    asked = parser.parse_args()
    quiet_libraries()
    asked.folder.mkdir(parents=True, exist_ok=True)
    results = asked.folder / "judged.jsonl"
    found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for pair in asked.pair or PAIRS:
        corpus, _, model = pair.partition("=")
        if any((each["corpus"], each["model"]) == (corpus, model) for each in found):
            continue
        root = asked.folder / f"{Path(corpus).name}-{Path(model).name}"
        options = SearchOptions(
            corpus=corpus, model=model, hours=asked.hours, steps=asked.steps, trials=asked.trials, jobs=1,
            context=asked.context, batch_size=asked.batch_size, task=tuple(asked.task), output=root / "search",
        )  # fmt: skip
        width = target_of(options)[0].width
        options = dataclasses.replace(options, widths=(width // 4, width // 2))
        try:
            answer = search(options, lambda progress: print(progress, flush=True))
        except ProctoolError as error:
            raise SystemExit(f"{pair}: {error}") from None
        steps = answer.tokens // (options.batch_size * options.context)
        found.append(judge(answer, options, steps, root / "full"))
        with results.open("a") as file:
            file.write(json.dumps(found[-1]) + "\n")
    for each in found:
        regret = each["regret"]
        print(
            f"{each['corpus']} {each['model']}: {'hit' if each['hit'] else 'miss'}, regret {regret['value']:.3f} "
            f"[{regret['low']:.3f}, {regret['high']:.3f}] nats; the advice "
            f"{'holds' if each['advice_holds'] else 'does not hold'}: {each['said']} "
            f"(search {each['search_seconds']} s, exhaustive {each['exhaustive_seconds']} s)"
        )
    hits = sum(each["hit"] for each in found)
    print(f"{hits} of {len(found)} choices are within the noise of the best of their pair")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
