"""The checks of planned arms: the options of every stage are built once, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from proctool import config
from proctool.errors import OptionError, ProctoolError
from proctool.evaluation.options import diagnostic_task, probe_options
from proctool.models.components import COMPONENTS
from proctool.models.heads import HeadMap
from proctool.models.shapes import Shape, parse_model
from proctool.recipe.arms import PlannedArm, warmup_task
from proctool.recipe.form import TreatmentOptions
from proctool.training.options import InitOptions, WarmupOptions
from proctool.transplantation.head_choice import choose_heads
from proctool.transplantation.layers import by_component, parse_layers


def check_planned(arm: PlannedArm) -> None:
    """Build the options of every stage once, which checks them; they differ between seeds in the seed alone."""
    where = f"arms.{arm.made_from}"
    for diagnostic in (None, *arm.diagnostics):
        for options in arm.warmups(diagnostic).values():
            task = warmup_task(options)
            try:
                options.positions(task.length)
            except OptionError as error:
                raise OptionError(f"{where}: {task.spec}: {error}") from None
            check_model(f"{where}.warmup.model", options.model)
            if options.accept is not None:
                _check_probe(f"{where}.warmup", options)
        arm.text_warmup(diagnostic)
        if diagnostic is not None:
            made = arm.diagnostic(diagnostic)
            check_model(f"diagnostics.{diagnostic}.model", made.model)
            _check_carried(arm, made, made.model)
    if arm.recipe.corpus is not None:
        for share in arm.budgets:
            pretraining = arm.pretrain(share)
            _check_carried(arm, pretraining, pretraining.model)
        for name in arm.finetunes:
            arm.finetune(name)
        for name in arm.recipe.on_tasks:
            arm.tasks(name)
        for name in arm.recipe.evaluate:
            arm.evaluation(name)


def _check_probe(where: str, options: WarmupOptions) -> None:
    assert options.accept is not None
    try:
        asked = probe_options(options)
        diagnostic_task(options.accept.diagnostic, asked)
    except OptionError as error:
        raise OptionError(f"{where}: {error}") from None
    check_model(f"{where}.accept.model", asked.model)


def _check_carried(arm: PlannedArm, options: InitOptions, model: str) -> None:
    where = f"arms.{arm.made_from}"
    if options.components != ("none",):
        check_known(f"{where}.components", "component", options.components, COMPONENTS)
    treatment = arm.arm.treatment or TreatmentOptions()
    for option in ("shuffle", "match_scale"):
        for component in getattr(treatment, option):
            if component not in options.components:
                raise OptionError(
                    f"{where}.treatment.{option}: the arm does not carry {component}; add it to components"
                )
    for option, given in (("heads", options.heads), ("treatment.sharpen", treatment.sharpen)):
        if given is not None and "attention" not in options.components:
            raise OptionError(f"{where}.{option}: the arm does not carry attention; add it to components")
    shape = parse_model(model)
    if isinstance(shape, Shape):  # of a configuration, the command that builds the model says it
        try:
            for each in by_component("layers", options.layers or (), options.components).values():
                parse_layers(each, shape.layers)
            if options.heads is not None:
                choose_heads(options.heads, HeadMap(shape.heads, 1, tuple(range(shape.layers)), {}, True), 0)
        except OptionError as error:
            raise OptionError(f"{where}.{error}") from None


def check_known(where: str, what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise OptionError, naming the place, unless every name is known."""
    known = tuple(known)
    for name in names:
        if name not in known:
            article = "an" if what[0] in "aeiou" else "a"
            raise OptionError(f'{where}: "{name}" is not {article} {what}{config.suggestion(name, known)}')


def check_model(where: str, model: str) -> None:
    """Raise OptionError, naming the place, unless the model can be read."""
    try:
        parse_model(model)
    except ProctoolError as error:
        raise OptionError(f"{where}: {error}") from None
