"""The phases of a search, in order; every process works through all of them.

1. Cold starts at the narrowest small model: a grid of rates and standard deviations, none stopped early.
2. Candidates there: one per task, then sampled. Each is stopped when its paired gap to the best cold start is weak.
3. At each wider model: cold again at three rates, then the finalists at three rates each.
4. Confirmation at the widest: cold, the best candidates and the winner's controls, on fresh seeds and fresh rows.

Optuna decides in phases 2 and 3 who is stopped. What a trial measures is in cells.py and trial.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.errors import RunError
from proctool.experiment.graph import Plan
from proctool.models.shapes import Shape
from proctool.search.answer import std_gain
from proctool.search.budget import (
    CONFIRMED,
    CONTROLS,
    PRUNED_SHARE,
    Prices,
    confirm_seconds,
    finalists_at,
    finals_seconds,
    reserved_seconds,
)
from proctool.search.cells import COLD, Setting, Warmed, planned
from proctool.search.folder import TRIALS
from proctool.search.loop import Weak
from proctool.search.measure import Text, last_loss
from proctool.search.options import REPORTS
from proctool.search.space import (
    COMPONENTS,
    DOSES,
    EMBEDDINGS,
    Candidate,
    Cold,
    around,
    beyond,
    candidate_rates,
    cold_cells,
    first_candidates,
)
from proctool.search.study import (
    Phase,
    Taking,
    cells_tried,
    complete,
    first_error,
    reached,
    require_optuna,
    worked_seconds,
)
from proctool.search.trial import run_arm

if TYPE_CHECKING:
    from optuna import Study

    from proctool.search.loop import Loop

FRESH = 1000
"""Added to the seed of the search for the seeds of the last measurement."""
MOST_EDGES = 4
"""Most times that the grid of cold starts grows, and one."""


@dataclass(frozen=True)
class Tuned:
    """The best cold start at a width."""

    cold: Cold
    curve: Mapping[int, float]
    """Its validation loss by report."""


@dataclass(frozen=True)
class Outcome:
    """What all phases found."""

    cold: Cold
    ranked: tuple[Candidate, ...]
    """The candidates that were confirmed, the winner first."""
    losses: Mapping[str, Mapping[int, float]]
    """By arm of the last measurement and seed."""
    by_width: tuple[tuple[int, float], ...]
    std_gain: float | None
    cold_cells: int
    candidate_cells: int
    seconds: float


@dataclass
class Phases:
    """A search at work in this process."""

    setting: Setting
    shapes: tuple[Shape, ...]
    text: Text
    price: Prices
    loop: Loop

    @property
    def root(self) -> Path:
        """The folder of the trials' runs."""
        return self.setting.options.output / TRIALS

    def run(self) -> Outcome:
        """All phases. Raises RunError if no cold start or no candidate finishes, Interrupted."""
        cold, found = self._cold(0, cold_cells())
        gained = std_gain(found)
        ranked = self._candidates(cold)
        by_width = [(self.shapes[0].width, ranked[0][1])]
        for width in range(1, len(self.shapes)):
            cold, _ = self._cold(width, [Cold(rate, cold.cold.std) for rate in around(cold.cold.rate)])
            ranked = self._finals(width, cold, [each for each, _ in ranked])
            by_width.append((self.shapes[width].width, ranked[0][1]))
        cells = cells_tried(self.loop.studies, "cold"), cells_tried(self.loop.studies, "candidates", "finals")
        chosen = tuple(each for each, _ in ranked[:CONFIRMED])
        losses = self._confirm(cold.cold, chosen)
        seconds = worked_seconds(self.loop.studies)
        return Outcome(cold.cold, chosen, losses, tuple(by_width), gained, cells[0], cells[1], seconds)

    # -- phases --

    def _cold(self, width: int, cells: Sequence[Cold]) -> tuple[Tuned, list[tuple[Cold, float]]]:
        shape, tries = self.shapes[width], list(cells)
        later = range(width + 1, len(self.shapes))
        rest = sum(finals_seconds(self.price, each, self._finalists(each)) for each in later)
        rest += confirm_seconds(self.price, self.setting.options.confirm)

        def measure(taking: Taking) -> float:
            plan = self._plan(width, {COLD: Cold(**taking.params)})
            return self._train(plan, COLD, width, lambda report, loss: taking.trial.report(loss, report))

        for _ in range(MOST_EDGES):
            phase = Phase(
                "cold",
                shape,
                maximise=False,
                space={"rate": _numbers(), "std": _numbers()},
                cells=tuple(vars(cold) for cold in tries),
            )
            study = self.loop.work(phase, measure, self.price.cold[width], rest)
            done = complete(study)
            if not done:
                raise RunError(f"no cold start of {shape} finished: {first_error(study)}")
            found = [(Cold(**trial.params), float(trial.value or 0.0)) for trial in done]
            best = min(done, key=lambda trial: (trial.value, trial.number))
            more = beyond(Cold(**best.params), tries)
            if not more:
                break
            tries += more
        return Tuned(Cold(**best.params), best.intermediate_values), found

    def _candidates(self, cold: Tuned) -> list[tuple[Candidate, float]]:
        distributions = require_optuna().distributions
        categorical = distributions.CategoricalDistribution
        options, tasks = self.setting.options, self.setting.tasks
        low, high = candidate_rates(cold.cold.rate)
        firsts = first_candidates(tasks, cold.cold.rate)
        phase = Phase(
            "candidates",
            self.shapes[0],
            maximise=True,
            space={
                "task": categorical(tasks),
                "dose": categorical(DOSES),
                "components": categorical(COMPONENTS),
                "embeddings": categorical(EMBEDDINGS),
                "rate": distributions.FloatDistribution(low, high, log=True),
            },
            cells=tuple(vars(each) for each in firsts),
            is_sampled=True,
            most=options.trials,
            prunes=True,
            is_timed=True,
        )
        price = None if options.trials is None else PRUNED_SHARE * self.price.warmed[0]
        rest = reserved_seconds(self.setting, self.price)
        return _ranked(self.loop.work(phase, self._gap(0, cold), price, rest))

    def _finals(self, width: int, cold: Tuned, ranked: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
        categorical = require_optuna().distributions.CategoricalDistribution
        options, shape = self.setting.options, self.shapes[width]
        finalists = ranked[: self._finalists(width)]
        rates = len(around(1.0))
        cells = [{**vars(each), "rate": around(each.rate)[number]} for number in range(rates) for each in finalists]
        phase = Phase(
            "finals",
            shape,
            maximise=True,
            space={
                "task": categorical(self.setting.tasks),
                "dose": categorical(DOSES),
                "components": categorical(COMPONENTS),
                "embeddings": categorical(EMBEDDINGS),
                "rate": _numbers(),
            },
            cells=tuple(cells),
            prunes=True,
            is_timed=True,
        )
        price, rest = PRUNED_SHARE * self.price.warmed[width], confirm_seconds(self.price, options.confirm)
        return _ranked(self.loop.work(phase, self._gap(width, cold), price, rest))

    def _confirm(self, cold: Cold, chosen: Sequence[Candidate]) -> dict[str, dict[int, float]]:
        distributions = require_optuna().distributions
        options, last = self.setting.options, len(self.shapes) - 1
        seeds = tuple(options.seed + FRESH + number for number in range(options.confirm))
        plan = self.confirmation(cold, chosen)
        names = tuple(plan.arms)
        phase = Phase(
            "confirm",
            self.shapes[last],
            maximise=False,
            space={
                "arm": distributions.CategoricalDistribution(names),
                "seed": distributions.IntDistribution(options.seed + FRESH, options.seed + FRESH + options.confirm),
            },
            cells=tuple({"arm": name, "seed": seed} for seed in seeds for name in names),
        )

        def measure(taking: Taking) -> float:
            arm, seed = taking.params["arm"], taking.params["seed"]
            model = run_arm(plan, arm, seed, lambda step, loss: None, options.cache_dir).artifact(plan.root)
            assert model is not None, "a pretraining writes its model"
            return _finite(last_loss(model, self.text, options.batch_size))

        study = self.loop.work(phase, measure, self.price.warmed[last], 0.0)
        losses: dict[str, dict[int, float]] = {name: {} for name in names}
        for trial in complete(study):
            losses[trial.params["arm"]][trial.params["seed"]] = float(trial.value or 0.0)
        if short := [name for name in names if len(losses[name]) < 2]:
            raise RunError(f"{short[0]}: fewer than two seeds of it finished: {first_error(study)}")
        return losses

    def confirmation(self, cold: Cold, chosen: Sequence[Candidate]) -> Plan:
        """The plan of the last measurement: cold, the candidates, the first one's controls."""
        arms: dict[str, Cold | Warmed] = {COLD: cold}
        names = candidate_names(len(chosen))
        arms |= {name: Warmed(each, cold) for name, each in zip(names, chosen, strict=True)}
        options = self.setting.options
        seeds = tuple(options.seed + FRESH + number for number in range(options.confirm))
        controls = {"which": list(CONTROLS), "of": [names[0]]}
        return planned(self.setting, self.shapes[-1], arms, seeds, self.root, controls=controls)

    # -- trials --

    def _finalists(self, width: int) -> int:
        return finalists_at(width, self.setting.options.finalists)

    def _plan(self, width: int, arms: Mapping[str, Cold | Warmed]) -> Plan:
        # Each width has a seed of its own, so that no candidate goes through by the luck of one seed.
        return planned(self.setting, self.shapes[width], arms, (self.setting.options.seed + width,), self.root)

    def _train(self, plan: Plan, arm: str, width: int, heard: Callable[[int, float], None]) -> float:
        """Train an arm; `heard` gets the number of each report and its loss. Returns the last loss."""
        every, losses = self.setting.steps // REPORTS, []

        def pass_on(step: int, loss: float) -> None:
            losses.append(_finite(loss))
            heard(step // every, loss)

        run_arm(plan, arm, self.setting.options.seed + width, pass_on, self.setting.options.cache_dir)
        return losses[-1]

    def _gap(self, width: int, cold: Tuned) -> Callable[[Taking], float]:
        def measure(taking: Taking) -> float:
            plan = self._plan(width, {"warm": Warmed(Candidate(**taking.params), cold.cold)})

            def heard(report: int, loss: float) -> None:
                taking.trial.report(cold.curve[report] - loss, report)
                if report < REPORTS and taking.trial.should_prune():
                    raise Weak

            return cold.curve[REPORTS] - self._train(plan, "warm", width, heard)

        return measure


def candidate_names(count: int) -> tuple[str, ...]:
    """The names of the confirmed candidates' arms, the winner's first."""
    return tuple(f"candidate-{number + 1}" for number in range(count))


def _numbers() -> Any:
    return require_optuna().distributions.FloatDistribution(1e-6, 10.0, log=True)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise RunError("the loss is not finite")
    return loss


def _ranked(study: Study) -> list[tuple[Candidate, float]]:
    """The candidates of a phase, each at its best rate, and their gaps; the best first. Raises RunError for none.

    Those that were stopped come after those that finished, the latest first. The best of each task come before all
    others: variants of one task share their donors, and so their luck.
    """
    best: dict[tuple[Any, ...], tuple[int, float, Candidate]] = {}
    for report, gap, params in reached(study):
        found = Candidate(**params)
        if found.warmup not in best or (report, gap) > best[found.warmup][:2]:
            best[found.warmup] = report, gap, found
    if not best:
        raise RunError(f"no candidate finished: {first_error(study)}")
    ranked = [(found, gap) for _, gap, found in sorted(best.values(), key=lambda each: each[:2], reverse=True)]
    tasks = dict.fromkeys(found.task for found, _ in ranked)
    firsts = [next(each for each in ranked if each[0].task == task) for task in tasks]
    return firsts + [each for each in ranked if each not in firsts]
