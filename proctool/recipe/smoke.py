"""A recipe shrunk so that all its stages run in about a minute, to test the recipe; its results mean nothing.

Models become narrow but keep their layers, so that layer ranges stay valid. Training takes a few steps with a few
samples, one seed and no dropout. Corpora of the hub become the installed Python sources, their tokenizers become bytes,
mathematics has as few questions as it allows, benchmarks become two pairs of sentences, and data of GLUE that is not on
this machine becomes a few records. Tasks and components stay, because they are where a recipe can be wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctool import config
from proctool.models.shapes import Shape, parse_model
from proctool.paths import user_path
from proctool.recipe.form import Arm, Controls, Recipe, Sweep, Values
from proctool.training.accept import Acceptance

# The time of a step depends on the longest sample: 2048 tokens in published settings. With dropout, attention on a CPU
# computes whole attention maps, which makes such steps about ten times as long.
_TRAINING: Values = {
    "steps": 4, "batch_size": 2, "ramp_steps": 1, "eval_every": 4, "eval_samples": 2, "log_every": 1, "accumulate": 1,
    "dropout": 0.0,
}  # fmt: skip
_NOT_SHRUNK = ("compile", "gradient_checkpointing", "micro_batch", "precision", "until", "patience", "curriculum")
_PAIRS = Path(__file__).parent / "smoke_pairs"
"""The data of a benchmark, written for this purpose: pairs of sentences in the form of BLiMP."""
_RECORDS = Path(__file__).parent / "smoke_glue"
"""The data of fine-tuning tasks, written for this purpose: records that have the columns of all GLUE tasks."""
_TINY_CORPUS = 400_000
"""Most training tokens: enough for a few rows of any context and one row of the validation split."""


def smoke(recipe: Recipe) -> Recipe:
    """The shrunk recipe with its own name and folder."""
    corpus, tokenizer, end = _local(recipe.corpus), recipe.tokenizer, recipe.end_of_text
    if corpus != recipe.corpus and corpus == "python" and tokenizer != "characters":
        tokenizer, end = "bytes", None
    return dataclasses.replace(
        recipe,
        name=f"{recipe.name}-smoke",
        model=_narrow(recipe.model),
        ladder=_widths(recipe),
        corpus=corpus,
        tokenizer=tokenizer,
        end_of_text=end,
        seeds=recipe.seeds[:1],
        warmup=_short(recipe.warmup) | _TRAINING,
        pretrain=_short(recipe.pretrain) | _TRAINING | {"budget": _TINY_CORPUS},
        diagnostics={name: _diagnostic(values) | _TRAINING for name, values in recipe.diagnostics.items()},
        finetune={name: _finetune(values) for name, values in recipe.finetune.items()},
        evaluate={name: _evaluation(values) for name, values in recipe.evaluate.items()},
        published=(),
        arms={name: _arm(arm, recipe.model) for name, arm in recipe.arms.items()},
        procedural=tuple(2000 * (place + 1) for place in range(len(recipe.procedural))),
        controls=_controls(recipe.controls),
        sweep=_sweep(recipe.sweep),
        selection_seeds=recipe.selection_seeds[:1],
        launch=dataclasses.replace(recipe.launch, processes=1, precision=None),
    )


def _controls(controls: Controls | None) -> Controls | None:
    if controls is None or not controls.text:
        return controls
    return dataclasses.replace(controls, text=_on_tiny(controls.text))


def _widths(recipe: Recipe) -> tuple[int, ...]:
    """Two widths in place of a ladder's."""
    shape = parse_model(_narrow(recipe.model))
    return (shape.width, 2 * shape.width) if recipe.ladder and isinstance(shape, Shape) else ()


def _arm(arm: Arm, model: str) -> Arm:
    amounts = arm.procedural
    return dataclasses.replace(
        arm,
        warmup=_short(arm.warmup),
        donors={component: _short(values) for component, values in arm.donors.items()},
        pretrain=_short(arm.pretrain),
        diagnostics={name: _diagnostic(values) for name, values in arm.diagnostics.items()},
        procedural=None if amounts is None else tuple(2000 * (place + 1) for place in range(len(amounts))),
        heads=_heads(arm.heads, model),
        sweep=_sweep(arm.sweep),
    )


def _heads(heads: tuple[str, ...] | None, model: str) -> tuple[str, ...] | None:
    """One head, because a narrow model may not have those named."""
    return ("random:1",) if heads and isinstance(parse_model(model), Shape) else heads


def _sweep(sweep: Sweep | None) -> Sweep | None:
    """Two values of each list."""
    if sweep is None:
        return None
    return Sweep(
        lr=sweep.lr and sweep.lr[:2],
        init_std=sweep.init_std and sweep.init_std[:2],
        dose=sweep.dose and (2000, 4000),
    )


def _short(values: Mapping[str, Any]) -> Values:
    """The options without those that make a stage long; the rest override the shrunk options."""
    kept = {key: value for key, value in values.items() if key not in _TRAINING and key not in _NOT_SHRUNK}
    kept.pop("mix_symbols", None)  # bytes have too few tokens for the symbols of some tasks
    if "validation" in kept and _local(kept["validation"]) != kept["validation"]:
        del kept["validation"]  # of the hub
    if kept.get("accept") is not None:
        kept["accept"] = _probe(config.convert(kept["accept"], Acceptance, "accept"))
    return kept | ({"model": _narrow(kept["model"])} if "model" in kept else {})


def _probe(asked: Acceptance) -> Acceptance:
    """A short probe that any donor passes."""
    short = {name: value for name, value in _TRAINING.items() if name in ("steps", "batch_size", "eval_samples")}
    model = None if asked.model is None else _narrow(asked.model)
    return dataclasses.replace(asked, above=0.0, tries=1, ramp_steps=1, model=model, **short)


def _diagnostic(values: Mapping[str, Any]) -> Values:
    return _short(values) | ({"warmup": _short(values["warmup"]) | _TRAINING} if "warmup" in values else {})


def _finetune(values: Mapping[str, Any]) -> Values:
    if "tasks" in values:
        data = values.get("data")
        is_here = data is not None and user_path(str(data)).is_dir()
        return _short(values) | _TRAINING | ({} if is_here else {"data": str(_RECORDS)})
    return _on_tiny(_short(values)) | _TRAINING


def _on_tiny(values: Mapping[str, Any]) -> Values:
    """The options with a corpus that is small and here."""
    return dict(values) | {"corpus": _local(values["corpus"]), "budget": _TINY_CORPUS}


def _evaluation(values: Mapping[str, Any]) -> Values:
    """A few samples; of a task whose data comes with proctool, unless the recipe has the data."""
    if values.get("data") is not None:
        return {**values, "limit": 2}
    return {"tasks": ("blimp_causative",), "data": str(_PAIRS), "limit": 2}


def _narrow(model: str) -> str:
    shape = parse_model(model)
    if not isinstance(shape, Shape):
        return model  # a configuration file keeps its size
    heads = min(shape.heads, 2)
    return str(Shape(shape.layers, heads, 8 * heads))


def _local(corpus: str | None) -> str | None:
    """A corpus that needs no network, or is made in seconds."""
    if corpus is None or user_path(corpus).exists():
        return corpus
    base, _, variant = corpus.partition(":")
    if base in ("python", "docstrings") or (variant and user_path(variant).exists()):
        return corpus
    return "mathematics:60" if base == "mathematics" else "python"
