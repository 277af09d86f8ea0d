"""Models of every kind, split into parts: modules in memory, artifacts and Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from proctool import config
from proctool.errors import ModelError, OptionError, some_of
from proctool.foreign.apart import TakenApart, matches, take_apart
from proctool.foreign.families import family_mapping
from proctool.foreign.mapping import ModelMapping
from proctool.foreign.projects import PROJECTS
from proctool.models.saved import SavedModel
from proctool.transplantation.donors import Donor
from proctool.transplantation.writable import require_memory
from proctool.untrusted.models import require_finite

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig


class LiveModel(SavedModel):
    """A transformers model in memory, with the interface of saved models."""

    def __init__(self, model: nn.Module, settings: PretrainedConfig) -> None:
        super().__init__(Path(type(model).__name__), settings, {}, None)
        object.__setattr__(self, "_model", model)

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's tensors by name."""
        held: nn.Module = self.__dict__["_model"]
        tensors = held.state_dict()
        if empty := next((name for name, tensor in tensors.items() if tensor.is_meta), None):
            raise ModelError(f"{self.path}: {empty} is on the meta device, so the donor has no weights to carry")
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile, DataParallel and DistributedDataParallel."""
    from torch.nn import DataParallel, Module
    from torch.nn.parallel import DistributedDataParallel

    while True:
        if isinstance(module, DistributedDataParallel | DataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), Module):
            module = inner
        else:
            return module


def config_of_live(module: nn.Module) -> PretrainedConfig | None:
    """The configuration of a transformers model; None for any other module."""
    from transformers import PreTrainedModel

    return module.config if isinstance(module, PreTrainedModel) else None


def apart_module(module: nn.Module, mapping: ModelMapping) -> TakenApart:
    """Split a module in memory by `mapping`. Raises ModelError if they do not fit."""
    label = type(module).__name__
    first: dict[int, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    tied: dict[str, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if (known := first.setdefault(id(parameter), name)) == name:
            shapes[name] = tuple(parameter.shape)
        else:
            tied[name] = known

    def read(name: str) -> torch.Tensor:
        parameter = module.get_parameter(name)
        require_memory(label, name, parameter)
        value = parameter.detach().float().cpu()
        require_finite({name: value}, label)
        return value

    return take_apart(label, mapping, shapes, read, module, tied)


def apart_saved(saved: SavedModel) -> TakenApart:
    """Split a saved transformers model by its family's mapping. Raises ModelError for a family without mapping."""
    donor = Donor(saved)
    mapping = family_mapping(str(saved.config.model_type))
    tied = {}
    if saved.config.tie_word_embeddings:
        tokens = next((rule.pattern for rule in mapping.outside if rule.component == "embeddings"), "")
        tied = {f"{rule.pattern}.weight": f"{tokens}.weight" for rule in mapping.outside if rule.component == "head"}
    shapes = {name: shape for name, shape in donor.shapes.items() if name not in tied}
    return take_apart(str(saved.path), mapping, shapes, donor.read, saved, tied)


def mapping_for(module: nn.Module, mapping: str | ModelMapping | None) -> ModelMapping:
    """The requested mapping, or the one that matches the module's parameter names exactly.

    Raises OptionError for an unknown name; ModelError if no mapping or several mappings match.
    """
    if isinstance(mapping, ModelMapping):
        return mapping
    if isinstance(mapping, str):
        if mapping not in PROJECTS:
            raise OptionError(
                f'mapping: "{mapping}" is not one of {", ".join(PROJECTS)}{config.suggestion(mapping, PROJECTS)}'
            )
        return PROJECTS[mapping]
    if (settings := config_of_live(module)) is not None:
        return family_mapping(str(settings.model_type))
    names = [name for name, _ in module.named_parameters()]
    found = [known for known in PROJECTS.values() if matches(known, names)]
    if len(found) != 1:
        which = "several of" if found else "none of"
        raise ModelError(
            f"{type(module).__name__}: its parameters ({some_of(names)}) match {which} {', '.join(PROJECTS)}; "
            "describe them with mapping="
        )
    return found[0]
