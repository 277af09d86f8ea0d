"""A search from options to answer: the folder, the other processes, the phases, the recipe."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proctool import artifact, config
from proctool.experiment import launch
from proctool.experiment.execute import cores, default_jobs
from proctool.experiment.stage import flag_words
from proctool.models.shapes import Shape
from proctool.search.answer import Answer, measured
from proctool.search.budget import CONTROLS, Prices, chosen_steps, fixed_seconds, prices
from proctool.search.cells import COLD, Setting
from proctool.search.folder import (
    ANSWER,
    RECIPE,
    STORAGE,
    SearchRecord,
    beginning,
    read_record,
    require_search_folder,
    write_json,
    write_record,
)
from proctool.search.loop import Loop, Progress
from proctool.search.measure import Text, open_text, seconds_per_step
from proctool.search.options import REPORTS, SearchOptions
from proctool.search.phases import Phases, candidate_names
from proctool.search.space import cold_cells, proxies, rate_at, std_at, tasks_of
from proctool.search.study import open_storage, require_optuna, storage_errors
from proctool.search.target import target_recipe

Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class SearchPlan:
    """What a search will do: for a dry run."""

    small: tuple[str, ...]
    tasks: tuple[str, ...]
    steps: int
    tokens: int
    """Corpus tokens of a trial."""
    cold_cells: int
    jobs: int
    seconds: float
    """The time of the whole search."""
    fixed_seconds: float
    """The part of it that tuning cold, the wider models and the last measurement take; candidates get the rest."""


@dataclass(frozen=True)
class _Prepared:
    setting: Setting
    shapes: tuple[Shape, ...]
    text: Text
    record: SearchRecord | None
    speeds: dict[str, float]
    price: Prices
    jobs: int


def _prepare(options: SearchOptions, progress: Callable[..., None] | None) -> _Prepared:
    """Everything that is checked and measured before the first trial."""
    import torch

    require_optuna()
    shapes, tasks = proxies(options), tasks_of(options)
    require_search_folder(options)
    record = read_record(options)
    jobs = options.jobs or default_jobs()
    torch.set_num_threads(max(1, cores() // jobs))
    text = open_text(options, progress)
    if record is None:
        asked = Setting(options, REPORTS, text.eval_samples, tasks)
        speeds = {str(shape): seconds_per_step(options, shape, text) for shape in shapes}
        steps = chosen_steps(asked, shapes, speeds, jobs, text.most_steps(options.batch_size))
        setting = dataclasses.replace(asked, steps=steps)
    else:
        speeds = record.speeds
        setting = Setting(options, record.steps, record.eval_samples, tasks)
    return _Prepared(setting, shapes, text, record, speeds, prices(setting, shapes, speeds), jobs)


def plan_search(options: SearchOptions, progress: Callable[..., None] | None = None) -> SearchPlan:
    """What a search would do. Raises what `search` raises.

    It measures the speed of the small models for some seconds, and writes only the token store.
    """
    made = _prepare(options, progress)
    return SearchPlan(
        tuple(map(str, made.shapes)), made.setting.tasks, made.setting.steps, made.setting.tokens, len(cold_cells()),
        made.jobs, 3600 * options.hours, fixed_seconds(made.setting, made.price) / made.jobs,
    )  # fmt: skip


def search(
    options: SearchOptions,
    listen: Listener = lambda progress: None,
    progress: Callable[..., None] | None = None,
) -> Answer:
    """Search, or go on with a search, and write its answer and its recipe into its folder.

    `listen` gets each trial of this process as it ends; `progress` hears of the token store. Raises OptionError for a
    bad option or without Optuna, CorpusError for too small a corpus, ModelError for a target that no small model stands
    for, RunError for the folder of another search or a storage that cannot be used, Interrupted.
    """
    require_optuna()
    shapes = proxies(options)
    require_search_folder(options)
    with beginning(options.output):  # the first process measures, the others read what it chose
        made = _prepare(options, progress)
        storage = open_storage(options.storage or f"sqlite:///{options.output.resolve() / STORAGE}")
        record = made.record or write_record(
            options, made.setting.steps, made.setting.eval_samples, made.speeds, made.jobs
        )
    with _workers(options, made.jobs):
        loop = Loop(options.output, storage, record.id, options.seed, 3600 * options.hours, record.jobs, listen)
        with storage_errors():
            outcome = Phases(made.setting, shapes, made.text, made.price, loop).run()
    names = candidate_names(len(outcome.ranked))
    found = measured(
        outcome.losses,
        COLD,
        dict(zip(names, outcome.ranked, strict=True)),
        scale=f"{names[0]}-{CONTROLS[0]}",
        longer=f"{COLD}-{CONTROLS[1]}",
    )
    width = shapes[-1].width
    recipe, cost = target_recipe(made.setting, found.winner.candidate, outcome.cold, width, made.text.train.size)
    path = options.output / RECIPE
    answer = Answer(
        model=options.model,
        corpus=options.corpus,
        small=str(shapes[-1]),
        tokens=made.setting.tokens,
        rows=made.setting.eval_samples,
        seeds=tuple(sorted(outcome.losses[COLD])),
        verdict=found.verdict,
        measured=found,
        cold=outcome.cold,
        cold_rate=rate_at(outcome.cold.rate, width),
        cold_std=std_at(outcome.cold.std, width),
        std_gain=outcome.std_gain,
        by_width=outcome.by_width,
        cold_cells=outcome.cold_cells,
        candidate_cells=outcome.candidate_cells,
        seconds=outcome.seconds,
        cost=cost,
        recipe=str(path),
    )
    with artifact.replacing(path) as file:
        file.write(recipe.encode())
    write_json(options.output / ANSWER, config.plain(answer))
    return answer


@contextlib.contextmanager
def _workers(options: SearchOptions, jobs: int) -> Iterator[None]:
    """The other processes of --jobs: each is the same command with one job. They end with the block."""
    words = ["search"]
    for each in dataclasses.fields(options):
        value = getattr(options, each.name)
        if value not in (None, (), each.default) and each.name != "jobs":
            words += flag_words(each.name, value)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, jobs):
            with (options.output / f"worker-{number}.log").open("ab") as output:
                running.append(
                    subprocess.Popen(
                        [*launch.PROCTOOL, *words, "--jobs", "1"],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, "OMP_NUM_THREADS": str(max(1, cores() // jobs))},
                    )
                )
        yield
        for process in running:
            process.wait()
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()  # it saves a checkpoint
        for process in running:
            process.wait()
