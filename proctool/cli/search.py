"""`proctool search`: which warm-up, if any, helps on a corpus and a model."""

from __future__ import annotations

from proctool import config
from proctool.cli import display
from proctool.cli.options import Common, with_options
from proctool.cli.training import quiet_libraries
from proctool.search.options import SearchOptions
from proctool.search.study import require_optuna
from proctool.units import format_count, format_seconds


def _search(options: SearchOptions, common: Common) -> None:
    require_optuna()
    quiet_libraries()
    from proctool.search.run import plan_search
    from proctool.search.run import search as run
    from proctool.search.words import progress_line, sentences

    with display.store_progress() as listen:
        if common.dry_run:
            planned = plan_search(options, listen)
            if common.json:
                display.emit(config.plain(planned))
                return
            display.line(f"small models: {', '.join(planned.small)}")
            display.line(f"tasks: {', '.join(planned.tasks)}")
            display.line(f"trials: {planned.steps} steps, {format_count(planned.tokens)} corpus tokens")
            fixed = format_seconds(planned.fixed_seconds)
            processes = f"{planned.jobs} process{'' if planned.jobs == 1 else 'es'}"
            display.line(
                f"time: {format_seconds(planned.seconds)} with {processes}, of which tuning cold, "
                f"the wider models and the last measurement take about {fixed}; nothing was run"
            )
            return
        answer = run(options, lambda progress: display.say(progress_line(progress)), listen)
    if common.json:
        display.emit(config.plain(answer))
        return
    for sentence in sentences(answer):
        display.line(sentence, hanging=0)
    display.say(f"wrote {answer.recipe}; see its stages with: proctool run {answer.recipe} --dry-run")


search = with_options(SearchOptions, _search)
