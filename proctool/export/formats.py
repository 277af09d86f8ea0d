"""A model as the state dict and settings of another project's model class.

The folder has model.safetensors with the names of the class, and model_config.json with the fields of the project's
settings. A model that the class cannot compute exactly is refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.artifact import require_free, staged
from proctool.errors import ModelError, notice, some_of
from proctool.export import settings
from proctool.export.dtypes import cast
from proctool.foreign.apart import TakenApart
from proctool.foreign.layouts import join
from proctool.foreign.mapping import TensorRule
from proctool.foreign.opened import apart_saved
from proctool.foreign.projects import PROJECTS

if TYPE_CHECKING:
    import torch

    from proctool.models.saved import SavedModel


@dataclass(frozen=True)
class ModelFormat:
    """How to write models for a project."""

    project: str
    """The name of its mapping in `PROJECTS`."""
    families: tuple[str, ...]
    """The transformers families that its class supports."""
    settings: Callable[[TakenApart, Any], settings.Settings]
    """Makes the project's settings. Raises ModelError if the class would compute something else than the model."""
    unused: Callable[[TakenApart], tuple[str, ...]] = lambda source: ()
    """Patterns of rules that do not apply to this model: the other kind of MLP, fused projections."""
    endings: tuple[str, ...] = ("weight", "bias")
    """The suffixes of its tensor names."""


def _litgpt_unused(source: TakenApart) -> tuple[str, ...]:
    return ("mlp.fc",) if (0, "gate.weight") in source.where else ("mlp.fc_1", "mlp.fc_2")


def _torchtitan(project: str, fields: Callable[[TakenApart, Any], settings.Settings], fused: str) -> ModelFormat:
    return ModelFormat(project, ("llama", "mistral"), fields, lambda source: (fused,), endings=("weight",))


FORMATS = {
    "nanogpt": ModelFormat("nanogpt", ("gpt2",), settings.nanogpt),
    "litgpt": ModelFormat(
        "litgpt", ("gpt_neox", "llama", "mistral", "qwen2", "qwen3", "phi3"), settings.litgpt, _litgpt_unused
    ),
    "torchtitan": _torchtitan("torchtitan", settings.torchtitan, "attention.qkv_linear.wqkv"),
    "torchtitan-0.2": _torchtitan("torchtitan-0.2", settings.torchtitan_02, "attention.wqkv"),
}
"""The export formats besides a Hugging Face folder."""


def export_as(saved: SavedModel, folder: Path, name: str, dtype: str = "fp32") -> None:
    """Write `saved` for the project `name`, a key of `FORMATS`, atomically.

    Raises ModelError for a model that the project's class does not support, or numbers too large for `dtype`;
    ArtifactError if `folder` exists and is not empty.
    """
    from safetensors.torch import save_file

    source, found = fitted(saved, folder, name)
    with staged(folder) as unfinished:
        tensors = {key: cast(key, value, dtype) for key, value in state_dict(source, FORMATS[name]).items()}
        save_file(tensors, unfinished / "model.safetensors", {"format": "pt"})
        (unfinished / "model_config.json").write_text(json.dumps(found.fields, indent=2) + "\n", encoding="utf-8")
    for line in found.differences:
        notice(f"{folder}: {line}")


def fitted(saved: SavedModel, folder: Path, name: str) -> tuple[TakenApart, settings.Settings]:
    """The model taken apart and its settings in the project `name`; raises what `export_as` raises before it writes."""
    require_free(folder)
    made = FORMATS[name]
    family = str(saved.config.model_type)
    if family not in made.families:
        why = settings.why_not(name, family)
        raise ModelError(f"{saved.path}: {name} supports {', '.join(made.families)}, not {family}{why}")
    source = apart_saved(saved)
    try:
        return source, made.settings(source, saved.config)
    except ModelError as error:
        raise ModelError(f"{saved.path}: {name} does not support this model: {error}") from None


def state_dict(source: TakenApart, made: ModelFormat) -> Mapping[str, torch.Tensor]:
    """The tensors of the project's class by its names, including a tied head.

    Raises ModelError if the class has no place for a tensor, or needs one that the model does not have.
    """
    mapping, skipped = PROJECTS[made.project], made.unused(source)
    placed: set[tuple[int | None, str]] = set()
    tensors: dict[str, torch.Tensor] = {}

    def write(rule: TensorRule, layer: int | None, prefix: str) -> None:
        for ending in made.endings:
            keys = [f"{part}.{ending}" for part in rule.parts]
            found = [(layer, key) in source.where for key in keys]
            if not all(found):
                if any(found) or (ending == "weight" and not rule.optional):
                    raise ModelError(
                        f"{source.label}: has no {keys[found.index(False)]}, which {prefix}.{ending} needs"
                    )
                continue
            parts = [source.part(layer, key) for key in keys]
            tensors[f"{prefix}.{ending}"] = join(parts, rule, source.heads, mapping.rotary)
            placed.update((layer, key) for key in keys)

    for layer in range(source.layers):
        for rule in mapping.inside:
            if rule.parts and rule.pattern not in skipped:
                write(rule, layer, f"{mapping.stack}.{layer}.{rule.pattern}")
    for rule in mapping.outside:
        if rule.component == "head" and (None, "head.weight") not in source.where:
            tokens = next(each.pattern for each in mapping.outside if each.component == "embeddings")
            tensors[f"{rule.pattern}.weight"] = tensors[f"{tokens}.weight"].clone()
        elif rule.parts:
            write(rule, None, rule.pattern)
    left = [source.where[key][0] for key in source.where if key not in placed]
    if left or len(source.slots) != len(source.shapes):
        left += [name for name in source.shapes if name not in source.slots]
        raise ModelError(f"{source.label}: {made.project} has no place for {some_of(left)}")
    return tensors
