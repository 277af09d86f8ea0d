"""A ladder: the same recipe at several widths, with the same number of corpus tokens per parameter.

A rung keeps the layers and the head size of the recipe's model. Its non-embedding parameters grow with the square of
the width, and so do the steps of pretraining, its ramp and the steps between evaluations. Warm-ups stay as written.
"""

from __future__ import annotations

import dataclasses

from proctool import config
from proctool.errors import OptionError
from proctool.models.shapes import Shape, parse_model
from proctool.recipe.form import Recipe, Values
from proctool.training.options import PretrainOptions

_SCALED = ("steps", "ramp_steps", "eval_every")


def body_parameters(shape: Shape) -> int:
    """Parameters without embeddings, about: 12 * layers * width^2 (Kaplan et al. 2020, section 2.1)."""
    return 12 * shape.layers * shape.width**2


def rung_model(recipe: Recipe, width: int) -> Shape:
    """The model of a rung: the layers and the head size of the recipe's model."""
    shape = _shape(recipe.model, "model")
    return Shape(shape.layers, width // (shape.width // shape.heads), width)


def rungs_of(recipe: Recipe) -> dict[int, Recipe]:
    """The recipe at each width of its ladder, narrowest first; empty without a ladder. Raises OptionError."""
    if not recipe.ladder:
        return {}
    shape = _shape(recipe.model, "model")
    return {width: _rung(recipe, width, (width / shape.width) ** 2) for width in sorted(recipe.ladder)}


def _rung(recipe: Recipe, width: int, share: float) -> Recipe:
    defaults = {"steps": PretrainOptions.steps, "eval_every": PretrainOptions.eval_every}
    return dataclasses.replace(
        recipe,
        ladder=(),
        extrapolate=None,
        model=str(rung_model(recipe, width)),
        pretrain=_scaled(defaults | recipe.pretrain, "pretrain", share),
        arms={
            name: dataclasses.replace(arm, pretrain=_scaled(arm.pretrain, f"arms.{name}.pretrain", share))
            for name, arm in recipe.arms.items()
        },
    )


def _scaled(values: Values, where: str, share: float) -> Values:
    scaled = {}
    for name in _SCALED:
        if name in values:
            written = config.convert(values[name], int, f"{where}.{name}")
            scaled[name] = max(1, round(share * written)) if written > 0 else written
    return values | scaled


def target_parameters(recipe: Recipe) -> int | None:
    """The size of the model that a ladder extrapolates to, without embeddings. Raises OptionError."""
    return None if recipe.extrapolate is None else body_parameters(_shape(recipe.extrapolate, "extrapolate"))


def check_ladder(recipe: Recipe) -> None:
    """Check the keys of a ladder. Raises OptionError."""
    if not recipe.ladder:
        if recipe.extrapolate is not None:
            raise OptionError("extrapolate: there is no ladder to extrapolate from; add ladder: [64, 128, 256]")
        return
    shape = _shape(recipe.model, "model")
    if recipe.corpus is None:
        raise OptionError("ladder: compares the gains of pretraining; give the recipe a corpus")
    if len(set(recipe.ladder)) < len(recipe.ladder) or len(recipe.ladder) < 2:
        raise OptionError(f"ladder = {list(recipe.ladder)}: write at least two distinct widths")
    size = shape.width // shape.heads
    for width in recipe.ladder:
        if width < 1 or width % size:
            raise OptionError(
                f"ladder: width {width} is not a multiple of {size}, the size of a head of model {recipe.model}"
            )
        parse_model(str(rung_model(recipe, width)))
    for where, values in [("warmup", recipe.warmup), ("pretrain", recipe.pretrain)] + [
        (f"arms.{name}.{kind}", options)
        for name, arm in recipe.arms.items()
        for kind, options in (("warmup", arm.warmup), ("pretrain", arm.pretrain))
    ]:
        if "model" in values:
            raise OptionError(f"{where}.model: remove it; a ladder sets the model of every stage")
    for name, arm in recipe.arms.items():
        if arm.init is not None:
            raise OptionError(f"arms.{name}.init: has one width; give the arm a warm-up, which each width of the "
                              "ladder has for itself")  # fmt: skip
    target_parameters(recipe)


def _shape(model: str, where: str) -> Shape:
    found = parse_model(model)
    if not isinstance(found, Shape):
        raise OptionError(f"{where}: a ladder needs a shape (LAYERSxHEADSxWIDTH) or a preset such as gpt2, not {model}")
    return found
