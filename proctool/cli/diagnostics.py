"""`proctool eval haystack`, `addition`, ...: train on a diagnostic from one or more inits and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proctool import config
from proctool.cli import display
from proctool.cli.options import Common, with_values
from proctool.cli.training import do, quiet_libraries
from proctool.errors import OptionError, RunError
from proctool.evaluation.options import DIAGNOSTICS, DiagnosticOptions, StudyOptions, scale_values
from proctool.launched import launch
from proctool.signals import command_again
from proctool.units import format_count

if TYPE_CHECKING:
    from proctool.experiment.graph import Plan
    from proctool.results import DiagnosticSummary, RunScores, SeedMean

Values = Mapping[str, Any]
_ROWS = 12
"""At most this many steps of a learning curve are shown; --json has all."""


def command(name: str) -> Callable[..., None]:
    """The command of one diagnostic."""

    def action(shares: Sequence[Values], common: Common) -> None:
        study = config.build(StudyOptions, shares[1], "")
        options = config.build(DIAGNOSTICS[name], scale_values(name, study.scale, shares[0]), "")
        quiet_libraries()
        if study.seeds and "seed" in shares[0]:
            raise OptionError("seed: give either --seed or --seeds")
        if not study.seeds and len(study.init) <= 1:
            _single(name, options, study, common)
        else:
            _study(name, options, study, common)

    return with_values((DIAGNOSTICS[name], StudyOptions), action)


def _single(name: str, options: DiagnosticOptions, study: StudyOptions, common: Common) -> None:
    from proctool.evaluation.diagnostic_run import job_with_model, run_diagnostic
    from proctool.results import RESULTS, to_json

    options = dataclasses.replace(options, init=study.init[0] if study.init else None)
    if common.dry_run:
        do(job_with_model(name, options), common)
        return
    with display.training_progress(f"eval {name}") as listen:
        end, result = run_diagnostic(name, options, listen)
    if not launch().speaks:  # only one process of a launch prints
        return
    results = display.Results(json=common.json)
    display.finished(end, results.line)
    if "official" in result.scores:
        results.line(_words(name, result.scores))
    display.say(f"result and learning curve: {result.run_dir}/{RESULTS}")
    results.emit(to_json(result))


def _study(name: str, options: DiagnosticOptions, study: StudyOptions, common: Common) -> None:
    from proctool.cli import run
    from proctool.evaluation.summary import summarise
    from proctool.experiment.record import write_record
    from proctool.experiment.study import all_results, study_plan, study_results
    from proctool.results import RESULTS, to_json, write_results

    if launch().processes > 1:
        raise OptionError(
            "several inits or seeds cannot run under torchrun, because proctool starts a process for each run; "
            "start the command without torchrun, or use one init and one seed"
        )
    planned = study_plan(name, options, study.init or ("none",), study.seeds or (options.seed,))
    plans = _check(name, planned)
    if common.dry_run:
        _show_plan(planned, plans, common)
        return
    again = command_again()
    write_record(planned, "", again)
    failures = run.execute_stages(planned, f"`{again}`", study.jobs)
    found = study_results(planned)
    if not found:
        raise RunError("all runs failed; see the messages above")
    summaries, results = summarise(found), display.Results(json=common.json)
    path = planned.root / RESULTS
    write_results(path, all_results(planned, found))
    _show(name, summaries, results)
    display.say(f"results of all runs, with their curves: {path}")
    results.emit(*map(to_json, found), *map(to_json, summaries))
    if failures:
        names = ", ".join(failure.stage.name for failure in failures)
        raise RunError(
            f"{len(failures)} of {len(planned.stages)} runs failed ({names}); "
            "run the command again when the cause is mended"
        )


def _check(name: str, planned: Plan) -> dict[str, dict[str, Any]]:
    """The costs of one run of each init, by label. Mistakes in later runs are found here, before the first run."""
    from proctool.evaluation.diagnostic import diagnostic_job
    from proctool.experiment.study import study_runs

    first = {each.init: each for each in reversed([*study_runs(planned)])}
    return {label: diagnostic_job(name, first[label].options).plan() for label in planned.arms}


def _show_plan(planned: Plan, plans: Mapping[str, dict[str, Any]], common: Common) -> None:
    from proctool.experiment.study import study_runs

    results = display.Results(json=common.json)
    runs = [
        {
            "init": each.init,
            "seed": each.options.seed,
            "state": each.stage.state(planned.root),
            "run_dir": str(each.folder),
        }
        for each in study_runs(planned)
    ]
    results.table(
        {"init": "left", "seed": "right", "state": "left", "folder": "left"}, [tuple(each.values()) for each in runs]
    )
    cost = next(iter(plans.values()))
    left = [each for each in runs if each["state"] != "done"]
    results.line(
        f"{len(left)} of {len(runs)} runs to do, each {cost['steps']} steps of {cost['task']} "
        f"({format_count(cost['tokens'])} tokens, {format_count(cost['flops'])} FLOPs); nothing was run"
    )
    for label, plan in plans.items():
        if plan.get("carried"):
            display.say(f"{label} would carry over:")
            display.carried(plan["carried"])
    results.emit({"event": "plan", "runs": runs, "plans": plans})


def _words(name: str, scores: Mapping[str, RunScores]) -> str:
    found = scores["answer"]
    said = f"accuracy {found.accuracy:.1%}"
    if _several(name):
        said += f", exact match {found.exact_match:.1%}"
    return f"{said} (accuracy by the official scoring: {scores['official'].accuracy:.1%})"


def _several(name: str) -> bool:
    """Whether answers have several tokens; with one token, exact match equals accuracy."""
    return name != "haystack"


def _share(value: SeedMean) -> str:
    said = f"{value.mean:.1%}"
    return (
        said if value.low is None or value.high is None else f"{said} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    )


def _show(name: str, summaries: Sequence[DiagnosticSummary], results: display.Results) -> None:
    """Learning curves side by side, then where each init ended; means over seeds with 95 % intervals."""
    several = _several(name)
    steps = [point.step for point in max((each.curve for each in summaries), key=len)]
    chosen = steps[:: -(-len(steps) // _ROWS)]
    if steps and chosen[-1] != steps[-1]:
        chosen.append(steps[-1])
    for measure in ("accuracy", "exact_match") if several else ("accuracy",):
        curves = [{point.step: getattr(point, measure) for point in each.curve} for each in summaries]
        results.table(
            {"step": "right"} | {each.init: "right" for each in summaries},
            [(step, *(_share(curve[step]) if step in curve else None for curve in curves)) for step in chosen],
            title=f"{name}: {measure.replace('_', ' ')} on validation samples",
        )
    columns = {"init": "left", "seeds": "right", "accuracy": "right"}
    if several:
        columns["exact match"] = "right"
    if "official" in summaries[0].scores:
        columns["official scoring"] = "right"
    rows = []
    for each in summaries:
        answer = each.scores["answer"]
        row: list[Any] = [each.init, len(each.seeds), _share(answer.accuracy)]
        row += [_share(answer.exact_match)] if several else []
        row += [_share(each.scores["official"].accuracy)] if "official" in each.scores else []
        rows.append(row)
    results.table(columns, rows, title="final scores: mean over seeds [95 % interval]")
