"""`proctool eval haystack`, `addition`, ...: a diagnostic trained from inits, over seeds."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.cli import display
from proctool.cli.options import Common, with_values
from proctool.cli.training import do, quiet_libraries
from proctool.errors import OptionError
from proctool.evaluation.options import DIAGNOSTICS, DiagnosticOptions, StudyOptions
from proctool.events import Event
from proctool.launched import launch
from proctool.units import format_count

if TYPE_CHECKING:
    from proctool.evaluation.seeds import Trial

Values = Mapping[str, Any]
_ROWS = 12
"""Most steps shown of a learning curve; --json has all."""


def command(name: str) -> Callable[..., None]:
    """The command of one diagnostic."""

    def action(shares: Sequence[Values], common: Common) -> None:
        study = config.build(StudyOptions, shares[1], "")
        options = config.build(DIAGNOSTICS[name], settings(name, shares[0], study), "")
        quiet_libraries()
        if study.seeds and "seed" in shares[0]:
            raise OptionError("seed: give either --seed or --seeds")
        if not study.seeds and len(study.init) <= 1:
            _single(name, options, study, common)
        else:
            _study(name, options, study, common)

    return with_values((DIAGNOSTICS[name], StudyOptions), action)


def settings(name: str, given: Values, study: StudyOptions) -> dict[str, Any]:
    """The values of a diagnostic's options: the scale's, and over them those that were given."""
    return {**(DIAGNOSTICS[name].laptop if study.scale == "laptop" else {}), **given}


def _single(name: str, options: DiagnosticOptions, study: StudyOptions, common: Common) -> None:
    from proctool.evaluation.diagnostic import diagnostic_job
    from proctool.evaluation.seeds import RESULTS, single, write_results

    options = dataclasses.replace(options, init=study.init[0] if study.init else None)
    if common.dry_run:
        do(diagnostic_job(name, options), common)
        return
    trial = single(name, options)
    with display.training_progress(f"eval {name}") as listen:
        result = trial.run(listen)
    if not _speaks():
        return
    path = trial.folder / RESULTS
    write_results(path, [result])
    results = display.Results(json=common.json)
    display.finished(trial.end, results.line)
    if "official" in result["scores"]:
        results.line(_words(name, result["scores"]))
    display.say(f"the result, with its curve: {path}")
    results.emit(result)


def _speaks() -> bool:
    """Of the processes of one launch, one speaks and writes."""
    return launch().speaks


def _study(name: str, options: DiagnosticOptions, study: StudyOptions, common: Common) -> None:
    from proctool.evaluation.seeds import RESULTS, run_all, summarise, trials, write_results

    planned = trials(name, options, study)
    plans = _check(planned)
    if common.dry_run:
        _show_plan(planned, plans, common)
        return
    found, results = [], display.Results(json=common.json)
    for result in run_all(planned, study.jobs, _watch):
        found.append(result)
        if not _speaks():
            continue
        display.say(f"{result['init']}, seed {result['seed']}: {_words(name, result['scores'])}")
    if not _speaks():
        return
    order = {trial.name: number for number, trial in enumerate(planned)}
    found.sort(key=lambda result: order[f"{result['init']}-s{result['seed']}"])
    summaries = summarise(found)
    path = planned[0].folder.parent / RESULTS
    write_results(path, [*found, *summaries])
    _show(name, summaries, results)
    display.say(f"every run, and all of these curves: {path}")
    results.emit(*found, *summaries)


def _check(planned: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Whatever would fail in a later run fails before the first: the plan of one run of each init, by label."""
    from proctool.evaluation.diagnostic import diagnostic_job

    plans: dict[str, dict[str, Any]] = {}
    for trial in planned:
        if trial.label not in plans:
            plans[trial.label] = diagnostic_job(trial.diagnostic, trial.options).plan()
    return plans


def _show_plan(planned: Sequence[Trial], plans: Mapping[str, dict[str, Any]], common: Common) -> None:
    results = display.Results(json=common.json)
    results.table(
        {"init": "left", "seed": "right", "state": "left", "folder": "left"},
        [(trial.label, trial.options.seed, trial.state, trial.folder) for trial in planned],
    )
    first = plans[planned[0].label]
    left = [trial for trial in planned if trial.state != "done"]
    results.line(
        f"{len(left)} of {len(planned)} runs to do, each {first['steps']} steps of {first['task']} "
        f"({format_count(first['tokens'])} tokens, {format_count(first['flops'])} floating-point operations); "
        "nothing was run"
    )
    for label, plan in plans.items():
        if plan.get("carried"):
            display.say(f"{label} would carry over:")
            display.carried(plan["carried"])
    runs = [
        {"init": trial.label, "seed": trial.options.seed, "state": trial.state, "run_dir": str(trial.folder)}
        for trial in planned
    ]
    results.emit({"event": "plan", "runs": runs, "plans": plans})


@contextlib.contextmanager
def _watch(trial: Trial) -> Iterator[Callable[[Event], None]]:
    with display.training_progress(trial.name) as listen:
        yield listen


def _words(name: str, scores: Mapping[str, Mapping[str, float]]) -> str:
    found = scores["answer"]
    said = f"{found['accuracy']:.1%} of tokens right"
    if _several(name):
        said += f", {found['exact_match']:.1%} of answers whole"
    if "official" in scores:
        said += f" (token accuracy by the official scoring: {scores['official']['accuracy']:.1%})"
    return said


def _several(name: str) -> bool:
    """Whether answers have several tokens; of one token, whole answers are the same share."""
    return name != "haystack"


def _share(value: Mapping[str, Any]) -> str:
    said = f"{value['mean']:.1%}"
    return said if value["low"] is None else f"{said} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


def _show(name: str, summaries: Sequence[dict[str, Any]], results: display.Results) -> None:
    """Learning curves side by side, then where each init ended; means over seeds with 95 % intervals."""
    several = _several(name)
    steps = [point["step"] for point in max((each["curve"] for each in summaries), key=len)]
    chosen = steps[:: -(-len(steps) // _ROWS)]
    if steps and chosen[-1] != steps[-1]:
        chosen.append(steps[-1])
    for measure in ("accuracy", "exact_match") if several else ("accuracy",):
        curves = [{point["step"]: point[measure] for point in each["curve"]} for each in summaries]
        results.table(
            {"step": "right"} | {each["init"]: "right" for each in summaries},
            [(step, *(_share(curve[step]) if step in curve else None for curve in curves)) for step in chosen],
            title=f"{name}: {'tokens' if measure == 'accuracy' else 'whole answers'} right on held-out samples",
        )
    columns = {"init": "left", "seeds": "right", "accuracy": "right"}
    if several:
        columns["whole answers"] = "right"
    if "official" in summaries[0]["scores"]:
        columns["official scoring"] = "right"
    rows = []
    for each in summaries:
        scores = each["scores"]
        row = [each["init"], len(each["seeds"]), _share(scores["answer"]["accuracy"])]
        row += [_share(scores["answer"]["exact_match"])] if several else []
        row += [_share(scores["official"]["accuracy"])] if "official" in scores else []
        rows.append(row)
    results.table(columns, rows, title="at the end: mean over seeds [95 % interval]")
