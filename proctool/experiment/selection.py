"""The two phases of a sweep in one graph: trials, a stage that chooses a cell, and stages that read what it chose.

The trials of an arm train each cell with the selection seeds and are scored on the selection half of the validation
rows. `proctool choose` reads their losses and writes files of options, which the arm's stages take with `--config`. So
every stage has its command line before anything has run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from proctool.errors import OptionError
from proctool.experiment.estimate import Throughput
from proctool.experiment.stage import Chosen, Stage
from proctool.recipe import PlannedArm
from proctool.recipe.arms import procedural_tokens
from proctool.recipe.choosing import Search
from proctool.recipe.sweep import Cell
from proctool.reporting.metrics import MetricsLog
from proctool.training.options import recorded
from proctool.units import format_seconds

if TYPE_CHECKING:
    from proctool.experiment.graph import Plan

Trials = dict[Cell, dict[int, Stage]]
"""Trials by cell and seed."""
Use = tuple[str | None, str] | None
"""What a file of options is for: pretraining (None), or the warm-up (diagnostic, component)."""
PRETRAIN: Use = None
TEXT = "text"
"""In the place of a component: the warm-up on natural text."""
MOST_RUNS = 200
"""Training runs that a sweep or a ladder may take without `--yes`."""


@dataclass(frozen=True)
class ChosenFiles:
    """Files of options: their contents for each combination of cells, and what they are for."""

    contents: Mapping[str, Sequence[Mapping[str, Any]]]
    """By file name, in the order of the combinations."""
    uses: Mapping[Use, str]
    """The file of each use whose options depend on the cell."""
    costliest: PlannedArm
    """The form with the most tokens, for estimates."""


@dataclass(frozen=True)
class Choice:
    """What decides the options of an arm: trials, the stage that chooses, and its files."""

    stage: Stage
    groups: Mapping[str, Trials]
    """By arm: its cells, of which the best one is chosen."""
    files: ChosenFiles

    @cached_property
    def chosen(self) -> dict[Use, Chosen]:
        """What the arm's stages read, by use."""
        return {
            use: Chosen(self.stage, file, frozenset(self.files.contents[file][0]))
            for use, file in self.files.uses.items()
        }


def files_of(search: Search) -> ChosenFiles:
    """The files of options for an arm. A file holds only options that differ between cells; equal files are one."""
    forms = list(search.forms.values())
    tables: dict[Use, list[dict[str, Any]]] = {PRETRAIN: [recorded(form.pretrain()) for form in forms]}
    for diagnostic in (None, *forms[0].diagnostics):
        made = [form.warmups(diagnostic) for form in forms]
        for component in made[0]:
            tables[diagnostic, component] = [recorded(each[component]) for each in made]
        texts = [found for form in forms if (found := form.text_warmup(diagnostic)) is not None]
        if texts:
            tables[diagnostic, TEXT] = [recorded(each) for each in texts]
    contents: dict[str, list[dict[str, Any]]] = {}
    kinds: dict[str, str] = {}
    uses: dict[Use, str] = {}
    for use, table in tables.items():
        names = [name for name in table[0] if any(each.get(name) != table[0][name] for each in table)]
        needed = [{name: each[name] for name in names} for each in table]
        if not names:
            continue
        kind = "pretrain" if use is None else "warmup"
        known = next((name for name, each in contents.items() if (kinds[name], each) == (kind, needed)), None)
        if known is None:
            known = f"{kind}.yaml" if f"{kind}.yaml" not in contents else f"{kind}-{len(contents)}.yaml"
            contents[known], kinds[known] = needed, kind
        uses[use] = known

    def cost(form: PlannedArm) -> tuple[int, int]:
        text = form.text_warmup()
        on_text = 0 if text is None else text.steps * text.batch_size * text.context
        return procedural_tokens(form) + on_text, form.pretrain().steps

    costliest = max(forms, key=cost)
    return ChosenFiles(contents, uses, costliest)


def require_few_runs(plan: Plan, yes: bool) -> None:
    """Raise OptionError if a sweep or a ladder has more than `MOST_RUNS` unfinished runs, unless `yes`."""
    runs = [stage for stage in plan.missing() if stage.trains]
    if yes or not (plan.choices or plan.rungs) or len(runs) <= MOST_RUNS:
        return
    from proctool.experiment.cost import flops

    logs = {stage.key: MetricsLog(stage.folder(plan.root)) for stage in plan.stages}
    for log in logs.values():
        log.update()
    speed = Throughput((stage, logs[stage.key]) for stage in plan.stages)
    seconds = [found for stage in runs if (found := speed.seconds(stage, logs[stage.key])) is not None]
    known = len(seconds) == len(runs)
    hours = f"{format_seconds(sum(seconds))} one after the other" if known else "`proctool plan` gives hours"
    which = [name for name, used in (("sweep", plan.choices), ("ladder", plan.rungs)) if used]
    trials = sum(stage.label.kind == "trial" for stage in runs)
    raise OptionError(
        f"{' and '.join(which)}: {len(runs)} runs are left, {trials} of them trials, "
        f"of about {sum(map(flops, runs)):.1e} FLOPs in total ({hours}); shorten the lists, or add --yes"
    )
