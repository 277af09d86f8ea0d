"""The JSON schema of recipes for editors, generated from the dataclasses that check recipes.

Editors find it by the first line of a recipe: `# yaml-language-server: $schema=../recipe.schema.json`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

from proctool import config
from proctool.evaluation.finetune import FinetuneOptions
from proctool.evaluation.finetune.tasks import GLUE
from proctool.evaluation.harness import HarnessOptions
from proctool.evaluation.options import DIAGNOSTICS
from proctool.recipe.check import NOT_HERE, OF_THE_MODEL
from proctool.recipe.form import Arm, Controls, Launch, Published, Recipe, Sweep, TreatmentOptions
from proctool.recipe.text import CORPUS
from proctool.training.options import PretrainOptions, WarmupOptions
from proctool.transplantation.options import CARRIED

Schema = dict[str, Any]

_RANGE = r"^\d+-\d+$"
_NUMBER = r"^[-+]?[0-9_]*\.?[0-9_]+([eE][-+]?[0-9]+)?[kKmMbBgGtT]?$"
"""Numbers that YAML reads as text: 2M, 1.5B, 5e-4."""
_NOT_ON_TASKS = {*OF_THE_MODEL, "validation", "skip_bad"}
_FLAG: Schema = {"type": ["string", "number", "boolean", "null"]}
"""The value of an sbatch option; true or nothing for an option without a value."""


def recipe_schema() -> Schema:
    """The schema as JSON-ready values (JSON Schema draft 2020-12)."""
    warmup, pretrain = {"$ref": "#/$defs/warmup"}, {"$ref": "#/$defs/pretrain"}
    diagnostics = _object({name: {"$ref": f"#/$defs/{name}"} for name in DIAGNOSTICS})
    options = {"warmup": warmup, "pretrain": pretrain, "diagnostics": diagnostics}
    task: Schema = {"enum": [*GLUE]}
    tasks = {"anyOf": [task, {"type": "array", "items": task}], "description": "GLUE tasks, each fine-tuned by itself."}
    on_tasks = _options(FinetuneOptions, {"tasks": tasks})
    on_tasks["properties"] = {name: each for name, each in on_tasks["properties"].items() if name not in _NOT_ON_TASKS}
    on_corpus, on_glue = ({"required": [name]} for name in ("corpus", "tasks"))
    finetune = {
        "type": "object",
        "additionalProperties": {"if": on_glue, "then": on_tasks, "else": {**pretrain, **on_corpus}},
    }
    donors = _object(dict.fromkeys((*CARRIED, "embeddings"), warmup))
    sweep = _of_class(Sweep, {})
    arm = _of_class(Arm, options | {"donors": donors, "treatment": _of_class(TreatmentOptions, {}), "sweep": sweep})
    text = _options(PretrainOptions)
    controls = _of_class(Controls, {"text": _object({name: text["properties"][name] for name in CORPUS})})
    one, several = controls["properties"]["which"]["anyOf"][0]["anyOf"]
    recipe = _of_class(
        Recipe,
        options
        | {
            "finetune": finetune,
            "evaluate": {"type": "object", "additionalProperties": _options(HarnessOptions)},
            "sweep": sweep,
            "arms": {"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/arm"}, {"type": "null"}]}},
            "controls": {"anyOf": [{"enum": ["standard", *one["enum"]]}, several, controls]},
            "launch": _of_class(Launch, {"sbatch": {"type": "object", "additionalProperties": _FLAG}}),
            "published": {"type": "array", "items": _of_class(Published, {})},
        },
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A proctool recipe",
        **recipe,
        "$defs": {
            "arm": arm,
            "warmup": _options(WarmupOptions),
            "pretrain": _options(PretrainOptions),
            **{name: _options(cls, {"warmup": warmup}) for name, cls in DIAGNOSTICS.items()},
        },
    }


def _options(cls: type, also: Schema | None = None) -> Schema:
    """The options of a training command without those that the recipe or the graph sets; none is required."""
    made = _of_class(cls, also or {})
    made.pop("required", None)
    made["properties"] = {name: each for name, each in made["properties"].items() if name not in NOT_HERE}
    if "task" in made["properties"]:
        text = made["properties"]["task"]["description"]
        made["properties"]["task"] = {"type": ["string", "object", "array"], "description": text}
    return made


def _of_class(cls: type, known: Schema) -> Schema:
    """The schema of a mapping for a dataclass; `known` gives the schema of fields whose type is not enough."""
    hints, helps = config.field_types(cls), config.field_help(cls)
    properties = dict(known)
    required = []
    for field in dataclasses.fields(cls):
        made = dict(known[field.name] if field.name in known else _of_type(hints[field.name]))
        if field.name in helps:
            made["description"] = " ".join(helps[field.name].split())
        properties[field.name] = made
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    return _object(properties) | ({"required": required} if required else {})


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _of_type(kind: Any) -> Schema:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        kinds = [_of_type(each) for each in arguments if each is not type(None)]
        return {"anyOf": [*kinds, *([{"type": "null"}] if type(None) in arguments else [])]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if dataclasses.is_dataclass(kind) and hasattr(kind, "parse"):
        return {"anyOf": [{"type": "string"}, _of_class(typing.cast(type, kind), {})]}
    if origin is tuple:
        item = _of_type(arguments[0])
        if arguments[0] is int:
            item = {"anyOf": [*item["anyOf"], {"type": "string", "pattern": _RANGE}]}
        return {"anyOf": [item, {"type": "array", "items": item}]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of_type(arguments[1])}
    if kind is bool:
        return {"type": "boolean"}
    if kind in (int, float):
        return {"anyOf": [{"type": "integer" if kind is int else "number"}, {"type": "string", "pattern": _NUMBER}]}
    if kind in (str, Path):
        return {"type": ["string", "number"]}
    return {}
