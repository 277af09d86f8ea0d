"""Reading recipes: every mistake is found before training, and the error names its place."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from proctool import config
from proctool.errors import OptionError
from proctool.evaluation.finetune import FinetuneOptions
from proctool.evaluation.finetune.tasks import GLUE, SHORTEST
from proctool.evaluation.harness import HarnessOptions
from proctool.evaluation.options import DIAGNOSTICS
from proctool.recipe.arms import ON_TEXT, located
from proctool.recipe.choosing import forms_of
from proctool.recipe.form import CONTROLS, STANDARD, Arm, Recipe, TreatmentOptions, Values
from proctool.recipe.forms import arms_of
from proctool.recipe.ladder import check_ladder, rungs_of
from proctool.recipe.names import check_name, check_place
from proctool.recipe.planned import check_known, check_model, check_planned
from proctool.recipe.repeats import check_run_names, check_seeds
from proctool.recipe.sweep import cells_of, check_sweeps
from proctool.recipe.text import CORPUS
from proctool.training.options import PretrainOptions, WarmupOptions
from proctool.transplantation.head_choice import read_heads
from proctool.transplantation.options import CARRIED
from proctool.transplantation.treatments import Treatment

OF_THE_MODEL = ("init", "model", "family", "tokenizer", "end_of_text", "tie", "init_std", "init_attention")
"""Options of a fine-tuning that the pretrained model sets; a fine-tuning on a corpus may have the last three."""
# Options that the recipe sets once for all stages, or that the graph sets.
NOT_HERE = {
    "seed": "set seeds at the top of the recipe (seeds: [0, 1, 2])",
    "output": "every stage writes its file to its run folder",
    "run_dir": "every stage has its own folder",
    "extend": "a stage cannot be extended; give more steps",
    "resume": "a stage resumes from its checkpoint automatically",
    "force": "no stage replaces the model of another",
}


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file. Raises OptionError with the file, the dotted path and the problem."""
    values = config.load_yaml(path)
    try:
        return build_recipe(values)
    except OptionError as error:
        raise OptionError(f"{path}: {str(error).removeprefix(': ')}") from None


def build_recipe(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe from a mapping. Raises OptionError."""
    values = dict(values)
    for key in ("arms", "diagnostics", "finetune", "evaluate"):
        if isinstance(values.get(key), Mapping):
            # `cold:` with nothing after it is null in YAML, and means no differences.
            values[key] = {str(name): {} if each is None else each for name, each in values[key].items()}
    launch = values.get("launch")
    if isinstance(launch, Mapping) and isinstance(launch.get("sbatch"), Mapping):
        # `exclusive:` and `exclusive: true` give the flag without a value; `exclusive: false` omits it.
        sbatch = {name: "" if each is None or each is True else each for name, each in launch["sbatch"].items()}
        sbatch = {name: each for name, each in sbatch.items() if each is not False}
        values["launch"] = {**launch, "sbatch": sbatch}
    match values.get("controls"):
        case "standard":
            values["controls"] = {}
        case str() as which if which not in CONTROLS:
            raise OptionError(f'controls: unknown control "{which}"{config.suggestion(which, ("standard", *CONTROLS))}')
        case str() | list() as which:
            values["controls"] = {"which": which}
    controls = values.get("controls")
    if isinstance(controls, Mapping) and controls.get("which") == "standard":
        values["controls"] = controls = {name: value for name, value in controls.items() if name != "which"}
    named = controls.get("which") if isinstance(controls, Mapping) else None
    if isinstance(named, list) and "standard" in named:
        raise OptionError(
            "controls: standard cannot be in a list; write controls: standard, or name every control, such as "
            f"[{', '.join(STANDARD)}]"
        )
    for name, arm in values["arms"].items() if isinstance(values.get("arms"), Mapping) else ():
        check_place(
            arm if isinstance(arm, Mapping) else {}, {each.name for each in dataclasses.fields(Arm)}, f"arms.{name}"
        )
    recipe = config.build(Recipe, values, "")
    if not recipe.baseline and recipe.arms:
        recipe = dataclasses.replace(recipe, baseline=next(iter(recipe.arms)))
    _underscore(recipe)
    _check(recipe)
    return recipe


def _underscore(recipe: Recipe) -> None:
    """Replace dashes in option names by underscores, in place, so that both spellings override each other."""

    def mend(values: Any, where: str) -> None:
        if isinstance(values, dict):
            for key in [key for key in values if isinstance(key, str) and "-" in key]:
                name = key.replace("-", "_")
                if name in values:
                    raise OptionError(f'{where}: option "{name}" is given twice, with a dash and with an underscore')
                values[name] = values.pop(key)

    groups: list[tuple[str, Any]] = [("warmup", recipe.warmup), ("pretrain", recipe.pretrain)]
    groups += [("controls.text", recipe.controls.text)] if recipe.controls is not None else []
    groups += [(f"finetune.{name}", values) for name, values in recipe.finetune.items()]
    groups += [(f"evaluate.{name}", values) for name, values in recipe.evaluate.items()]
    groups += [(f"diagnostics.{name}", values) for name, values in recipe.diagnostics.items()]
    for name, arm in recipe.arms.items():
        groups += [(f"arms.{name}.warmup", arm.warmup), (f"arms.{name}.pretrain", arm.pretrain)]
        groups += [(f"arms.{name}.donors.{each}", values) for each, values in arm.donors.items()]
        groups += [(f"arms.{name}.diagnostics.{each}", values) for each, values in arm.diagnostics.items()]
    for where, values in groups:
        mend(values, where)
        mend(values.get("warmup"), f"{where}.warmup")


def _check(recipe: Recipe) -> None:
    check_name("name", recipe.name)
    if not recipe.arms:
        raise OptionError("arms: give at least one arm")
    if recipe.baseline not in recipe.arms:
        near = config.suggestion(recipe.baseline, recipe.arms)
        raise OptionError(f'baseline: no arm is named "{recipe.baseline}"{near}')
    check_seeds(recipe)
    if recipe.corpus is None and not recipe.diagnostics:
        raise OptionError("the recipe measures nothing; give a corpus, diagnostics, or both")
    check_model("model", recipe.model)
    _check_setting(recipe)
    _check_launch(recipe)
    _check_stop(recipe)
    _check_given(WarmupOptions, recipe.warmup, "warmup")
    _check_given(PretrainOptions, recipe.pretrain, "pretrain")
    for key in ("task", "data"):
        if key in recipe.warmup:
            raise OptionError(f"warmup.{key}: set it per arm (arms.NAME.warmup.{key}), or every arm would be warmed up")
    for name, values in recipe.finetune.items():
        _check_finetune(recipe, name, values)
    for name, values in recipe.evaluate.items():
        _check_evaluate(recipe, name, values)
    for name, values in recipe.diagnostics.items():
        _check_diagnostic(name, values, f"diagnostics.{name}")
    for name, arm in recipe.arms.items():
        _check_written(recipe, name, arm)
    _check_controls(recipe)
    check_sweeps(recipe)
    check_ladder(recipe)
    for rung in rungs_of(recipe).values() or [recipe]:
        _check_arms(rung)


def _check_arms(recipe: Recipe) -> None:
    """Check the arms as they are run."""
    planned = arms_of(recipe)
    check_run_names(recipe, planned)
    if recipe.is_swept and not any(map(cells_of, planned.values())):
        raise OptionError("sweep: no arm tries any of its values; init_std is for cold arms, dose for warmed ones")
    for form in (form for each in planned.values() for form in forms_of(each, planned)):
        check_planned(form)
    if recipe.asks is not None:
        check_known(
            "asks", "measure", (recipe.asks,), (*(["pretraining"] if recipe.corpus else []), *recipe.diagnostics)
        )
    for index, published in enumerate(recipe.published):
        where = f"published[{index}]"
        check_known(f"{where}.arms", "arm", published.arms, planned)
        if published.diagnostic is not None:
            check_known(f"{where}.diagnostic", "diagnostic", (published.diagnostic,), recipe.diagnostics)


def _check_setting(recipe: Recipe) -> None:
    lists = [("", recipe.budgets, recipe.procedural)]
    lists += [(f"arms.{name}.", arm.budgets or (), arm.procedural or ()) for name, arm in recipe.arms.items()]
    for where, budgets, procedural in lists:
        if budgets and recipe.setting != "substitutive":
            raise OptionError(f"{where}budgets: needs `setting: substitutive`; set it, or remove budgets")
        if len(set(budgets)) < len(budgets) or not all(0 < share <= 1 for share in budgets):
            raise OptionError(
                f"{where}budgets = {list(budgets)}: write distinct shares of the steps, above 0 and at most 1"
            )
        if len(set(procedural)) < len(procedural) or not all(amount > 0 for amount in procedural):
            raise OptionError(f"{where}procedural = {list(procedural)}: write distinct numbers of tokens above 0")
    if recipe.setting == "substitutive":
        if recipe.corpus is None:
            raise OptionError("setting: substitutive compares corpus tokens; give a corpus")
        if not recipe.budgets and all(arm.budgets is None for arm in recipe.arms.values()):
            raise OptionError(
                "budgets: missing; `setting: substitutive` needs shares of the steps, such as [.5, .75, 1]"
            )
        shares = recipe.arms[recipe.baseline].budgets
        if shares and 1 not in shares:
            raise OptionError(f"arms.{recipe.baseline}.budgets: the baseline needs its full budget too; add 1")
    base = recipe.arms[recipe.baseline]
    if base.is_warmed and (recipe.procedural if base.procedural is None else base.procedural):
        raise OptionError("baseline: this arm has several amounts of procedural tokens; choose another arm as baseline")


def _check_stop(recipe: Recipe) -> None:
    if not recipe.stop_hopeless:
        return
    if recipe.corpus is None:
        raise OptionError("stop_hopeless: compares the losses of pretraining; give the recipe a corpus")
    if recipe.setting == "substitutive":
        raise OptionError("stop_hopeless: compares losses at equal tokens; remove it, or `setting: substitutive`")
    if len(recipe.seeds) < 3:
        raise OptionError("stop_hopeless: two seeds of every arm always run; give at least three seeds, or remove it")


def _check_launch(recipe: Recipe) -> None:
    launch = recipe.launch
    if launch.processes < 1:
        raise OptionError(f"launch.processes = {launch.processes}: must be at least 1")
    for name, value in launch.sbatch.items():
        if not re.fullmatch(r"[a-z][a-z-]*", name) or not value.isprintable():
            raise OptionError(
                f"launch.sbatch.{name}: not an option of sbatch with its value; write for example {{partition: gpu}}"
            )
        if name in ("array", "dependency", "output", "job-name"):
            raise OptionError(f"launch.sbatch.{name}: remove it; `proctool run --emit slurm` sets it")


def _check_written(recipe: Recipe, name: str, arm: Arm) -> None:
    where = f"arms.{name}"
    check_name("arms", name)
    _check_given(WarmupOptions, arm.warmup, f"{where}.warmup")
    _check_given(PretrainOptions, arm.pretrain, f"{where}.pretrain")
    for key, values in arm.diagnostics.items():
        if key not in recipe.diagnostics:
            near = config.suggestion(key, recipe.diagnostics)
            raise OptionError(f'{where}.diagnostics: the recipe has no diagnostic "{key}"{near}')
        _check_diagnostic(key, values, f"{where}.diagnostics.{key}")
    starts = [what for what in ("warmup", "donors", "init") if getattr(arm, what)]
    if len(starts) > 1:
        raise OptionError(f"{where}: {starts[0]} and {starts[1]} exclude each other; give one of them")
    if not starts and (arm.carried or arm.treatment):
        what = next(iter(arm.carried), "treatment")
        raise OptionError(
            f"{where}.{what}: there is no warm-up to carry weights from; give the arm a warmup or an init"
        )
    check_known(f"{where}.donors", "component", arm.donors, {*CARRIED, "embeddings"})
    if arm.donors and not arm.donors.keys() - {"embeddings"}:
        raise OptionError(f"{where}.donors: give a donor for at least one of {', '.join(CARRIED)}")
    for component, values in arm.donors.items():
        _check_given(WarmupOptions, values, f"{where}.donors.{component}")
        if not ("task" in values) ^ ("data" in values):
            raise OptionError(f"{where}.donors.{component}: give its task, such as {{task: set}}")
    if arm.heads is not None:
        located(f"{where}.heads", lambda: read_heads(arm.heads or ()))
    treatment = arm.treatment or TreatmentOptions()
    if treatment.sharpen not in (None, "match"):
        size = config.convert(treatment.sharpen, float, f"{where}.treatment.sharpen")
        located(f"{where}.treatment", lambda: Treatment(sharpen=size))
    for option in ("shuffle", "match_scale"):
        check_known(f"{where}.treatment.{option}", "component", getattr(treatment, option), CARRIED)
    for written in treatment.noise:
        component, equals, size = written.rpartition("=")
        check_known(f"{where}.treatment.noise", "component", (component,) if equals else (), CARRIED)
        config.convert(size, float, f"{where}.treatment.noise")


def _check_finetune(recipe: Recipe, name: str, values: Values) -> None:
    where = f"finetune.{name}"
    check_name("finetune", name)
    if recipe.corpus is None:
        raise OptionError(f"{where}: there is no pretrained model to fine-tune; give the recipe a corpus")
    if ("corpus" in values) == ("tasks" in values):
        raise OptionError(
            f"{where}: give its corpus, such as {{corpus: wikitext}}, or its tasks, such as {{tasks: [cola]}}"
        )
    for key in OF_THE_MODEL if "tasks" in values else OF_THE_MODEL[:5]:
        if key in values:
            raise OptionError(f"{where}.{key}: remove it; the pretrained model sets it")
    if "corpus" in values:
        _check_given(PretrainOptions, values, where)
        return
    for key in ("validation", "skip_bad"):
        if key in values:
            raise OptionError(f"{where}.{key}: remove it; GLUE tasks have their own files")
    _check_given(FinetuneOptions, values, where, {"tasks"})
    tasks = config.convert(values["tasks"], tuple[str, ...], f"{where}.tasks")
    check_known(f"{where}.tasks", "GLUE task", tasks, GLUE)
    if not tasks or len(set(tasks)) < len(tasks):
        raise OptionError(f"{where}.tasks = {list(tasks)}: write distinct tasks of {', '.join(GLUE)}")
    if name in recipe.evaluate:
        raise OptionError(f"{where}: evaluate has the same name; rename one of them")
    context = config.convert(values.get("context"), int | None, f"{where}.context")
    if context is not None and not SHORTEST <= context <= recipe.context:
        raise OptionError(
            f"{where}.context = {context}: must be from {SHORTEST} to the recipe's context, {recipe.context}"
        )


def _check_evaluate(recipe: Recipe, name: str, values: Values) -> None:
    check_name("evaluate", name)
    if recipe.corpus is None:
        raise OptionError(f"evaluate.{name}: there is no pretrained model to evaluate; give the recipe a corpus")
    _check_given(HarnessOptions, values, f"evaluate.{name}")


def _check_controls(recipe: Recipe) -> None:
    if recipe.controls is None:
        return
    check_known("controls.of", "arm", recipe.controls.of, recipe.arms)
    for name in recipe.controls.of:
        if not recipe.arms[name].is_warmed:
            raise OptionError(f"controls.of: {name} has no warm-up to control")
    if not any(arm.is_warmed for arm in recipe.arms.values()):
        raise OptionError("controls: no arm has a warm-up to control")
    text = recipe.controls.text
    if text and recipe.controls.which is not None and not set(recipe.controls.which) & set(ON_TEXT):
        raise OptionError("controls.text: no control warms up on text; add text or text-continued to controls.which")
    check_known("controls.text", "option", text, CORPUS)
    _check_given(PretrainOptions, text, "controls.text")
    if text and "corpus" not in text:
        raise OptionError("controls.text: give its corpus, such as {corpus: wikitext}")
    if recipe.controls.which == ():
        raise OptionError(f"controls.which: is empty; write standard, or a list of {', '.join(CONTROLS)}")


def _check_given(cls: type[Any], values: Values, where: str, also: Iterable[str] = ()) -> None:
    """Check the names and types of options before they are merged, while their place in the recipe is known."""
    hints = config.field_types(cls)  # type: ignore[arg-type]  # classes can be hashed
    kinds = {each.name: hints[each.name] for each in dataclasses.fields(cls)}
    for key, value in values.items():
        if key in NOT_HERE:
            raise OptionError(f"{where}.{key}: remove it; {NOT_HERE[key]}")
        check_place({key: None}, {*kinds, *also}, where)
        if key in also or (key == "task" and "task" in kinds):  # parse_tasks reads tasks
            continue
        if key not in kinds:
            raise config.unknown_option(key, {*kinds, *also}, where)
        config.convert(value, kinds[key], f"{where}.{key}")


def _check_diagnostic(name: str, values: Values, where: str) -> None:
    if name not in DIAGNOSTICS:
        raise OptionError(f'diagnostics: unknown diagnostic "{name}"{config.suggestion(name, DIAGNOSTICS)}')
    _check_given(DIAGNOSTICS[name], values, where, {"warmup"})
    warmup = values.get("warmup", {})
    if not isinstance(warmup, Mapping):
        raise OptionError(f"{where}.warmup: expected a mapping of options, got {warmup!r}")
    _check_given(WarmupOptions, dict(warmup), f"{where}.warmup")
