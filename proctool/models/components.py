"""Finds the component of each parameter from the model's modules, not from substrings of tensor names.

attention   attention modules with everything inside: projections, query and key norms
mixer       token mixers that are not attention: state-space (Mamba), linear recurrence, gated short convolution
mlp         feed-forward modules; in a mixture of experts the router, every expert and the shared expert
norms       normalisation between those modules, and after the last layer
embeddings  the token embedding
positions   learned position embeddings
head        the output projection, unless it is tied to the token embedding
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proctool import config
from proctool.errors import ModelError, OptionError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

COMPONENTS = ("attention", "mixer", "mlp", "norms", "embeddings", "positions", "head")

# Endings of the class names of each kind of module in transformers, after the family's prefix.
_ATTENTION = ("Attention", "AttentionBlock")
_NORMS = ("Norm", "Norm1P")
_ENDINGS = (
    ("attention", _ATTENTION),
    ("mixer", ("Mixer", "MambaLayer", "DeltaNet", "ShortConv", "RecurrentBlock")),
    ("norms", _NORMS),
    ("mlp", ("MLP", "Mlp", "FeedForward", "MoE", "Moe", "MoeBlock", "MoEBlock", "MoELayer")),
)


@dataclass(frozen=True)
class Place:
    """The place of a parameter: its component and its layer (None outside the stack of layers)."""

    component: str
    layer: int | None


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model. Tied parameters appear once, under their first name."""

    parameters: dict[str, Place]
    buffers: dict[str, Place]
    """Buffers that are saved with the weights (routing biases, learned activations), with their module's place."""
    stack: str
    """Name of the module that holds the layers: "transformer.h"."""
    layers: int
    position_offset: int
    """Rows of the position embedding before the first position (two in OPT)."""

    def in_layer(self, name: str, layer: int) -> str:
        """The name that tensor `name` of one layer has in `layer`."""
        inside = name.removeprefix(f"{self.stack}.").partition(".")[2]
        return f"{self.stack}.{layer}.{inside}"


def parse_components(names: Sequence[str], option: str = "components") -> tuple[str, ...]:
    """Component names in the standard order; ("none",) means no components.

    Raises OptionError, in the name of the `option`, on an unknown or repeated name.
    """
    if tuple(names) == ("none",):
        return ()
    for name in names:
        if name not in COMPONENTS:
            raise OptionError(f'{option}: "{name}" is not a component{config.suggestion(name, COMPONENTS)}')
    if len(set(names)) != len(names):
        raise OptionError(f"{option}: {', '.join(names)}: the same component is given twice; give it once")
    return tuple(name for name in COMPONENTS if name in names)


def components(model: PreTrainedModel) -> dict[str, Place]:
    """The place of every parameter by name, in the model's order. `anatomy` gives more."""
    return anatomy(model).parameters


def anatomy(model: PreTrainedModel) -> Anatomy:
    """The parts of `model`, which may be on any device, including meta.

    A model is a stack of layers with modules before and after it. The class of each direct child of a layer determines
    its component. Raises ModelError, naming the part, if a part has no known component.
    """
    from torch import nn

    family = str(model.config.model_type)
    found = list(stacks(model.base_model))
    if len(found) != 1:
        raise ModelError(f"{family}: expected one stack of layers, found {len(found)}: {_UNSUPPORTED}")
    stack = found[0]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        head = getattr(model, "score", None)  # of a classifier
    offset = 0
    placed: list[tuple[nn.Module, Place]] = []
    for child in _around(model.base_model, stack):
        if isinstance(child, nn.Embedding) and child is not embedding:
            offset = int(getattr(child, "offset", 0))
            _check_positions(child, offset, model)
            placed.append((child, Place("positions", None)))
        elif child is not embedding and child is not head and _is_filled(child):
            placed.append((child, Place(_kind(child, family), None)))
    for layer, block in enumerate(stack):
        for name, child in block.named_children():
            if _is_filled(child):
                # OPT and similar families keep the two matrices of the MLP directly in the layer.
                is_half = isinstance(child, nn.Linear) and name in ("fc1", "fc2")
                placed.append((child, Place("mlp" if is_half else _kind(child, family), layer)))
    if head is not None:
        placed.append((head, Place("head", None)))
    placed.append((embedding, Place("embeddings", None)))  # last, because a tied head's weight counts as an embedding
    parameters = {id(each): place for part, place in placed for each in part.parameters()}
    buffers = {id(each): place for part, place in placed for each in part.buffers()}
    saved = model.state_dict(keep_vars=True).keys()

    def place(tensor: object, name: str, places: dict[int, Place]) -> Place:
        if id(tensor) not in places:
            raise ModelError(f"{family}: {name} belongs to no known component: {_UNSUPPORTED}")
        return places[id(tensor)]

    return Anatomy(
        {name: place(each, name, parameters) for name, each in model.named_parameters()},
        {name: place(each, name, buffers) for name, each in model.named_buffers() if name in saved},
        next(name for name, module in model.named_modules() if module is stack),
        len(stack),
        offset,
    )


def hidden_matrices(model: PreTrainedModel) -> frozenset[str]:
    """Names of the matrices of attention and MLPs, routers included: 2-D weights that multiply hidden states.

    Excludes experts that a family keeps in one 3-D tensor. Raises ModelError.
    """
    norms = {
        id(each) for part in model.modules() if type(part).__name__.endswith(_NORMS) for each in part.parameters()
    }  # query and key norms may have a row per head
    places = components(model)
    return frozenset(
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and places[name].component in ("attention", "mlp") and id(parameter) not in norms
    )


def attention_modules(model: PreTrainedModel) -> dict[int, tuple[str, nn.Module]]:
    """The attention modules and their names by layer, for layers with attention. Raises ModelError."""
    parts = anatomy(model)
    found = {}
    for layer, block in enumerate(model.get_submodule(parts.stack).children()):
        for name, child in block.named_children():
            if type(child).__name__.endswith(_ATTENTION):
                found[layer] = (f"{parts.stack}.{layer}.{name}", child)
    return found


_UNSUPPORTED = "proctool cannot tell this family's components apart"


def _is_filled(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())


def stacks(module: nn.Module) -> Iterator[nn.ModuleList]:
    """The outermost module lists that contain parameters."""
    from torch import nn

    for child in module.children():
        if isinstance(child, nn.ModuleList):
            if any(True for _ in child.parameters()):
                yield child
        else:
            yield from stacks(child)


def _around(module: nn.Module, stack: nn.ModuleList) -> Iterator[nn.Module]:
    """The modules before and after the stack; modules that contain the stack are searched."""
    for child in module.children():
        if child is stack:
            continue
        if any(inner is stack for inner in child.modules()):
            yield from _around(child, stack)
        else:
            yield child


def _check_positions(module: nn.Embedding, offset: int, model: PreTrainedModel) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    if module.num_embeddings - offset != context:
        raise ModelError(
            f"{model.config.model_type}: an embedding of {module.num_embeddings} rows is neither the tokens' nor "
            f"that of {context} positions: {_UNSUPPORTED}"
        )


def _kind(module: nn.Module, family: str) -> str:
    name = type(module).__name__
    for component, endings in _ENDINGS:
        if name.endswith(endings):
            return component
    if not any(True for _ in module.parameters()):
        return "norms"  # such as rotary tables: only buffers that are not saved
    raise ModelError(f"{family}: {name} is neither attention, mixer, MLP, norm nor embedding: {_UNSUPPORTED}")


def train_only(model: PreTrainedModel, names: Sequence[str]) -> int:
    """Freeze all but the components `names`. Returns the number of trained parameters.

    Raises OptionError when a component has no parameters in this model, or a name is unknown or repeated.
    """
    names = parse_components(names, "train")
    places = components(model)
    found = {place.component for place in places.values()}
    for name in names:
        if name not in found:
            tied = " (the head shares the token embedding)" if name == "head" else ""
            raise OptionError(f"train: this {model.config.model_type} model has no {name}{tied}; leave it out")
    if not names:
        raise OptionError("train: nothing would be trained; give at least one component")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(places[name].component in names)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
