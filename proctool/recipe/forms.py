"""From a recipe's arms to those that are run: one for each amount of procedural tokens, and the standard controls.

A control that could not differ from its arm in what it is for is none. `controls: standard` leaves it out; asked for by
name it is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from proctool import config
from proctool.errors import OptionError
from proctool.recipe.arms import INIT, PlannedArm, procedural_tokens
from proctool.recipe.form import STANDARD, Arm, Control, Controls, Recipe, Values
from proctool.training.options import InitOptions
from proctool.transplantation.head_choice import read_heads
from proctool.units import format_count

OF_BASELINE = ("ramp", "longer")
"""Controls that are the baseline with something of the arm's; the others are the arm without something."""


class NoControlError(Exception):
    """Why an arm has no such control, as the end of a sentence."""


def arms_of(recipe: Recipe) -> dict[str, PlannedArm]:
    """The arms of a recipe as they are run: those written, by amounts of procedural tokens, then controls.

    Raises OptionError where two would have one name, or a control that is asked for by name would be none.
    """
    planned: dict[str, PlannedArm] = {}
    forms: dict[str, PlannedArm] = {}
    for name, arm in recipe.arms.items():
        amounts = recipe.procedural if arm.procedural is None else arm.procedural
        if not arm.is_warmed or not amounts:
            forms[name] = _add(planned, PlannedArm(recipe, name, arm, name))
        for amount in sorted(amounts if arm.is_warmed else ()):
            # The form with most procedural tokens is the one that controls are made from.
            label = f"{name}-{format_count(amount)}"
            forms[name] = _add(planned, PlannedArm(recipe, label, arm, name, amount=amount))
    if recipe.controls is not None:
        _add_controls(planned, forms, recipe.controls)
    return planned


def _add(planned: dict[str, PlannedArm], arm: PlannedArm) -> PlannedArm:
    if arm.name in planned:
        raise OptionError(f'arms: "{arm.name}" would be the name of two arms; rename the one that is written')
    planned[arm.name] = arm
    return arm


def _add_controls(planned: dict[str, PlannedArm], forms: dict[str, PlannedArm], controls: Controls) -> None:
    for name in controls.of or [name for name, form in forms.items() if form.arm.is_warmed]:
        source = forms[name]
        base = forms[source.recipe.baseline]
        for which in STANDARD if controls.which is None else controls.which:
            try:
                control = _control(which, source, base)
            except NoControlError as reason:
                if controls.which is None:
                    continue
                raise OptionError(f"controls: {name} has no control {which}: {reason}") from None
            if control is None:
                continue
            if control.name in planned and which in OF_BASELINE:
                if planned[control.name].arm == control.arm:  # the same for another arm
                    of = (*planned[control.name].of, source.name)
                    planned[control.name] = dataclasses.replace(planned[control.name], of=of)
                    continue
                control = dataclasses.replace(control, name=f"{control.name}-{source.name}")
            _add(planned, control)


def _control(which: Control, source: PlannedArm, base: PlannedArm) -> PlannedArm | None:
    """The control `which` of `source`; None where the baseline has it already. Raises NoControlError."""
    make: Callable[[PlannedArm, PlannedArm], Arm | None] = {
        "ramp": _ramp, "longer": _longer, "shuffled": _as_it_is, "scale": _as_it_is, "embeddings": _embeddings,
        "sharpened": _sharpened, "random-heads": _random_heads,
    }[which]  # fmt: skip
    arm = make(source, base)
    if arm is None:
        return None
    if which in OF_BASELINE:
        return PlannedArm(base.recipe, f"{base.name}-{which}", arm, base.made_from, which, (source.name,))
    name = f"{source.name}-{which}"
    control = PlannedArm(source.recipe, name, arm, source.made_from, which, (source.name,), source.amount)
    for (place, mine), (_, theirs) in zip(_meaning(control), _meaning(source), strict=True):
        if mine == theirs:
            raise NoControlError(f"in {place} it would be the arm itself under another name; leave it out")
    return control


def _meaning(arm: PlannedArm) -> Iterator[tuple[str, Any]]:
    """By where it is measured: all that the stage behind the measurement is made from."""
    for name, options in _measured(arm):
        warmups = {each: config.plain(made) for each, made in arm.warmups(name).items()}
        yield name or "pretraining", (config.plain(options), arm.treatment_of(options), warmups)


def _measured(arm: PlannedArm) -> Iterator[tuple[str | None, InitOptions]]:
    if arm.recipe.corpus is not None:
        yield None, arm.pretrain()
    for name in arm.recipe.diagnostics:
        yield name, arm.diagnostic(name)


def _ramp(source: PlannedArm, base: PlannedArm) -> Arm | None:
    """The baseline with the arm's own ramp, or one as long as its warm-up, up to a tenth of the steps."""
    recipe = source.recipe
    if recipe.corpus is None or base.pretrain().ramp_steps:
        return None
    mine = source.pretrain()
    steps = mine.ramp_steps or min(max(each.steps for each in source.warmups().values()), mine.steps // 10)
    return dataclasses.replace(base.arm, pretrain=base.arm.pretrain | {"ramp_steps": max(1, steps)})


def _longer(source: PlannedArm, base: PlannedArm) -> Arm | None:
    """The baseline, its steps raised by as many corpus tokens as the arm's warm-up has."""
    if source.recipe.corpus is None:
        return None
    for warmup in source.warmups().values():
        for option in ("until", "patience", "curriculum"):
            if getattr(warmup, option) is not None:
                raise NoControlError(
                    f"with `{option}` its warm-up may take fewer tokens than planned, and only its run tells how many; "
                    f"leave {option} or the control out"
                )
        if any(warmup.accept is not None for warmup in source.warmups().values()):
            raise NoControlError(
                "with `accept` only its run tells how many donors it takes; leave accept or the control out"
            )
    options = base.pretrain()
    more = math.ceil(procedural_tokens(source) / (options.batch_size * options.context))
    return dataclasses.replace(base.arm, pretrain=base.arm.pretrain | {"steps": options.steps + more})


def _as_it_is(source: PlannedArm, base: PlannedArm) -> Arm:
    """What differs is seen to where warm-ups and treatments are built."""
    return source.arm


def _embeddings(source: PlannedArm, base: PlannedArm) -> Arm:
    """Nothing but the arm's start of the embeddings; what it says of carrying anything else gives way."""
    for name, options in _measured(source):
        if options.embeddings == "fresh":
            raise NoControlError(f"its embeddings start fresh in {name or 'pretraining'}; leave it out")

    def bare(values: Values) -> Values:
        return {key: value for key, value in values.items() if key not in INIT or key == "embeddings"} | {
            "layers": None,
            "heads": None,
        }

    diagnostics = {name: bare(source.arm.diagnostics.get(name, {})) for name in source.recipe.diagnostics}
    return dataclasses.replace(
        source.arm, components=("none",), layers=None, heads=None, treatment=None, pretrain=bare(source.arm.pretrain),
        diagnostics=diagnostics,
    )  # fmt: skip


def _sharpened(source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm with its attention's sharpness alone; see `PlannedArm.treatment_of`."""
    for name, options in _measured(source):
        if "attention" not in options.components:
            raise NoControlError(f"it carries no attention into {name or 'pretraining'}; leave it out")
    return source.arm


def _random_heads(source: PlannedArm, base: PlannedArm) -> Arm:
    """As many heads, drawn among the others."""
    heads = source.arm.heads
    if heads is None or read_heads(heads).drawn is not None:
        raise NoControlError("it names no heads, such as `heads: [1.2]`; leave it out")
    return dataclasses.replace(source.arm, heads=(f"random:{len(heads)}", *(f"-{head}" for head in heads)))
