"""From the arms of a recipe to planned arms: one per amount of procedural tokens, and the controls.

Controls identical to their arm are skipped with `controls: standard`, and are an error if the recipe names them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from proctool import config
from proctool.errors import OptionError
from proctool.evaluation.options import DiagnosticOptions
from proctool.recipe.arms import INIT, WHOLE, PlannedArm, procedural_tokens
from proctool.recipe.form import OF_BASELINE, STANDARD, UNTRIED, Arm, Control, Controls, Recipe, Values
from proctool.recipe.sweep import values_of
from proctool.training.options import InitOptions, PretrainOptions
from proctool.transplantation.head_choice import read_heads
from proctool.units import format_count

_EVERYWHERE: Values = {"layers": None, "heads": None}
"""Options that carry all layers and heads."""


class NoControlError(Exception):
    """An arm cannot have this control; the message is the reason."""


def arms_of(recipe: Recipe) -> dict[str, PlannedArm]:
    """The planned arms of a recipe: the written arms, once per amount of procedural tokens, then the controls.

    Raises OptionError when two arms would have the same name, or a named control is identical to its arm.
    """
    planned: dict[str, PlannedArm] = {}
    forms: dict[str, PlannedArm] = {}
    for name, arm in recipe.arms.items():
        amounts = recipe.procedural if arm.procedural is None else arm.procedural
        if not arm.is_warmed or not amounts:
            forms[name] = _add(planned, PlannedArm(recipe, name, arm, name))
        for amount in sorted(amounts if arm.is_warmed else ()):
            # Controls are made from the arm with the most procedural tokens.
            label = f"{name}-{format_count(amount)}"
            forms[name] = _add(planned, PlannedArm(recipe, label, arm, name, amount=amount))
    if recipe.controls is not None:
        _add_controls(planned, forms, recipe.controls)
    return planned


def _add(planned: dict[str, PlannedArm], arm: PlannedArm) -> PlannedArm:
    if arm.name in planned:
        raise OptionError(f'arms: two arms would have the name "{arm.name}"; rename the one in the recipe')
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
                # Another arm may already have the same control. If a sweep chooses doses, nobody knows yet.
                open_dose = which in UNTRIED and bool(values_of(source).dose)
                if planned[control.name].arm == control.arm and not open_dose:
                    of = (*planned[control.name].of, source.name)
                    planned[control.name] = dataclasses.replace(planned[control.name], of=of)
                    continue
                control = dataclasses.replace(control, name=f"{control.name}-{source.name}")
            _add(planned, control)


def _control(which: Control, source: PlannedArm, base: PlannedArm) -> PlannedArm | None:
    """The control `which` of `source`; None if the baseline already is that control. Raises NoControlError."""
    make: Callable[[PlannedArm, PlannedArm], Arm | None] = {
        "ramp": _ramp, "longer": _longer, "shuffled": _as_it_is, "scale": _as_it_is, "embeddings": _embeddings,
        "sharpened": _sharpened, "random-heads": _random_heads, "text": _text, "text-continued": _text_continued,
        "random": _as_it_is, "mimetic": _mimetic,
    }[which]  # fmt: skip
    arm = make(source, base)
    if arm is None:
        return None
    if which in OF_BASELINE:
        return PlannedArm(base.recipe, f"{base.name}-{which}", arm, base.made_from, which, (source.name,))
    name = f"{source.name}-{which}"
    control = PlannedArm(source.recipe, name, arm, source.made_from, which, (source.name,), source.amount)
    theirs = dict(_meaning(source))
    for place, mine in _meaning(control):
        if mine == theirs[place]:
            raise NoControlError(f"in {place} it would be identical to the arm; leave it out")
    return control


def _meaning(arm: PlannedArm) -> Iterator[tuple[str, Any]]:
    """For each measurement of the arm: its name, and everything that decides the result."""
    for name, options in _measured(arm):
        warmups = {each: config.plain(made) for each, made in arm.warmups(name).items()}
        if (text := arm.text_warmup(name)) is not None:
            warmups["text"] = config.plain(text)
        yield name or "pretraining", (config.plain(options), arm.treatment_of(options), warmups)


def _measured(arm: PlannedArm) -> Iterator[tuple[str | None, PretrainOptions | DiagnosticOptions]]:
    if arm.recipe.corpus is not None:
        yield None, arm.pretrain()
    for name in arm.diagnostics:
        yield name, arm.diagnostic(name)


def _ramp(source: PlannedArm, base: PlannedArm) -> Arm | None:
    """The baseline with the arm's ramp; if it has none, a ramp as long as its warm-up, at most a tenth of the steps."""
    recipe = source.recipe
    if recipe.corpus is None or base.pretrain().ramp_steps:
        return None
    mine = source.pretrain()
    steps = mine.ramp_steps or min(max(each.steps for each in source.warmups().values()), mine.steps // 10)
    return dataclasses.replace(base.arm, pretrain=base.arm.pretrain | {"ramp_steps": max(1, steps)})


def _longer(source: PlannedArm, base: PlannedArm) -> Arm | None:
    """The baseline with as many more corpus tokens as the arm's warm-up takes."""
    if source.recipe.corpus is None:
        return None
    _require_known_tokens(source)
    options = base.pretrain()
    more = math.ceil(procedural_tokens(source) / (options.batch_size * options.context))
    return dataclasses.replace(base.arm, pretrain=base.arm.pretrain | {"steps": options.steps + more})


def _require_known_tokens(source: PlannedArm) -> None:
    """Raise NoControlError if the arm's warm-ups may use another number of tokens than planned."""
    for warmup in source.warmups().values():
        for option in ("until", "patience", "curriculum"):
            if getattr(warmup, option) is not None:
                raise NoControlError(
                    f"`{option}` makes the number of warm-up tokens unknown before the run; "
                    f"remove {option} or the control"
                )
        if warmup.accept is not None:
            raise NoControlError(
                "`accept` makes the number of donors unknown before the run; remove accept or the control"
            )


def _text(source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm after a warm-up on natural text (`PlannedArm.text_warmup`); the same parts are carried and reset."""
    _require_text(source)
    _require_known_tokens(source)
    for name in source.recipe.diagnostics:
        if source.diagnostic(name).embeddings == "copy":
            raise NoControlError(f"its embeddings are copied into {name}, whose vocabulary is not that of text")
    if not source.arm.donors:
        return source.arm
    # A component without a donor stays fresh in a weight mixture, and here.
    carried = source.arm.components or InitOptions().components
    return dataclasses.replace(source.arm, components=tuple(name for name in carried if name in source.arm.donors))


def _text_continued(source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm after a warm-up on natural text, with nothing reset but the optimiser. Measured in pretraining only."""
    if source.recipe.corpus is None:
        raise NoControlError("it continues on the corpus, and the recipe has none")
    _require_known_tokens(source)
    pretrain = {key: value for key, value in source.arm.pretrain.items() if key not in INIT} | _EVERYWHERE
    return dataclasses.replace(source.arm, layers=None, heads=None, treatment=None, pretrain=pretrain, **WHOLE)


def _require_text(source: PlannedArm) -> None:
    recipe = source.recipe
    asked = recipe.controls.text if recipe.controls is not None else {}
    if recipe.corpus is None and "corpus" not in asked:
        raise NoControlError("the recipe has no corpus; give one, such as `controls: {text: {corpus: wikitext}}`")


def _mimetic(source: PlannedArm, base: PlannedArm) -> Arm:
    """The baseline with attention that starts fresh but structured (models/mimetic.py); no warm-up."""
    value = {"init_attention": "mimetic"}
    for name, options in _measured(base):
        where = name or "pretraining"
        if base.arm.is_warmed or options.init is not None:
            raise NoControlError(f"the baseline, {base.name}, does not start {where} from fresh attention")
        if options.init_attention is not None:
            raise NoControlError(f"in {where} it would be identical to the baseline, {base.name}; leave it out")
    diagnostics = {name: base.arm.diagnostics.get(name, {}) | value for name in base.recipe.diagnostics}
    return dataclasses.replace(base.arm, pretrain=base.arm.pretrain | value, diagnostics=diagnostics)


def of_baseline(which: str, source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm of a control of the baseline `base` for another form of its arm `source`."""
    made = {"ramp": _ramp, "longer": _longer}[which](source, base)
    assert made is not None, "the control was made from another form of this arm"
    return made


def _as_it_is(source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm unchanged: `PlannedArm` builds the changed warm-up or treatment."""
    return source.arm


def _embeddings(source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm with only its embeddings carried over; its other options about carrying are dropped."""
    for name, options in _measured(source):
        if options.embeddings == "fresh":
            raise NoControlError(f"its embeddings start fresh in {name or 'pretraining'}; leave it out")

    def bare(values: Values) -> Values:
        return {key: value for key, value in values.items() if key not in INIT or key == "embeddings"} | _EVERYWHERE

    diagnostics = {name: bare(source.arm.diagnostics.get(name, {})) for name in source.recipe.diagnostics}
    return dataclasses.replace(
        source.arm, components=("none",), layers=None, heads=None, treatment=None, pretrain=bare(source.arm.pretrain),
        diagnostics=diagnostics,
    )  # fmt: skip


def _sharpened(source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm with only its attention's sharpness kept; see `PlannedArm.treatment_of`."""
    for name, options in _measured(source):
        if "attention" not in options.components:
            raise NoControlError(f"it carries no attention into {name or 'pretraining'}; leave it out")
    return source.arm


def _random_heads(source: PlannedArm, base: PlannedArm) -> Arm:
    """The arm with as many heads, drawn at random from the others."""
    heads = source.arm.heads
    if heads is None or read_heads(heads).drawn is not None:
        raise NoControlError("it names no heads, such as `heads: [1.2]`; leave it out")
    return dataclasses.replace(source.arm, heads=(f"random:{len(heads)}", *(f"-{head}" for head in heads)))
