"""A model split into parts by a mapping: the contents of each tensor, and the tensor of each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proctool.errors import ModelError, some_of
from proctool.foreign.layouts import HeadSizes, head_rows, outputs, split
from proctool.foreign.mapping import ModelMapping, TensorRule

if TYPE_CHECKING:
    import torch

Key = tuple[int | None, str]
"""A layer (None outside the layers) and a part of it: (3, "query.weight")."""


@dataclass(frozen=True)
class Slot:
    """The contents of one tensor of a model."""

    component: str
    layer: int | None
    keys: tuple[str, ...]
    """The parts that it holds, in order."""
    rule: TensorRule


@dataclass(frozen=True)
class TakenApart:
    """A model with the contents of each tensor."""

    label: str
    mapping: ModelMapping
    shapes: Mapping[str, tuple[int, ...]]
    slots: Mapping[str, Slot]
    """The tensors that the mapping covers, in the model's order."""
    layers: int
    heads: HeadSizes | None
    read: Callable[[str], torch.Tensor]
    """Reads one tensor as float32. Raises ModelError if it has NaN or infinities."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Tied tensors, such as a tied head: the alias and the name of the tensor."""
    vocabulary: int | None = None
    """Number of tokens without padding rows of the embeddings."""
    rotates_whole: bool = True
    """Whether rotary positions rotate all rows of a head."""

    def __post_init__(self) -> None:
        where: dict[Key, tuple[str, int]] = {}
        for name, slot in self.slots.items():
            for index, key in enumerate(slot.keys):
                if (other := where.setdefault((slot.layer, key), (name, index))[0]) != name:
                    raise ModelError(f"{self.label}: the mapping gives both {other} and {name} the part {key}")
        object.__setattr__(self, "where", where)

    where: dict[Key, tuple[str, int]] = field(init=False, repr=False)
    """For each part the tensor that holds it, and its index in that tensor."""

    def part(self, layer: int | None, key: str) -> torch.Tensor:
        """A part in the common form: weights (outputs, inputs), query and key rotated in halves."""
        name, index = self.where[layer, key]
        return split(self.read(name), self.slots[name].rule, self.heads, self.mapping.rotary)[index]


def slots_of(mapping: ModelMapping, names: Sequence[str], label: str) -> dict[str, Slot]:
    """The contents of each of the tensors `names`; tensors that no rule covers are left out.

    Raises ModelError if rules of two components cover the same tensor.
    """
    slots = {}
    for name in names:
        layer, inside = mapping.place(name)
        found = [(rule, ending) for rule in mapping.rules(layer) if (ending := rule.ending(inside)) is not None]
        if not found:
            continue
        rule, ending = found[0]
        for other, _ in found:
            if other.component != rule.component:
                raise ModelError(
                    f"{label}: two rules cover {name}: {rule.pattern} ({rule.component}) and "
                    f"{other.pattern} ({other.component})"
                )
        slots[name] = Slot(rule.component, layer, rule.keys(inside, ending), rule)
    return slots


def matches(mapping: ModelMapping, names: Sequence[str]) -> bool:
    """Whether the mapping covers all of the tensors `names` and every required rule covers a tensor."""
    slots = slots_of(mapping, names, mapping.name)
    if len(slots) != len(names) or not any(slot.layer is not None for slot in slots.values()):
        return False
    used = {slot.rule for slot in slots.values()}
    tied_head = {rule for rule in mapping.outside if rule.component == "head"}
    return all(rule.optional or rule in used | tied_head for rule in (*mapping.inside, *mapping.outside))


def take_apart(
    label: str,
    mapping: ModelMapping,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], torch.Tensor],
    root: Any,
    tied: Mapping[str, str] | None = None,
) -> TakenApart:
    """The model with the given shapes of tensors; the mapping looks up heads and vocabulary in `root`.

    Raises ModelError if the mapping does not fit: no layers, rows that do not fit the number of heads, two components
    for one tensor, or two tensors for one part.
    """
    tied = tied or {}
    slots = slots_of(mapping, list(shapes), label)
    # The first name of a tied tensor may be that of the head, but it counts as the embedding.
    for alias, name in tied.items():
        other = slots_of(mapping, [alias], label).get(alias)
        if other is not None and other.component == "embeddings":
            slots[name] = other
    numbers = sorted({slot.layer for slot in slots.values() if slot.layer is not None})
    if not numbers:
        raise ModelError(
            f"{label}: the mapping {mapping.name} matches no layer {mapping.stack}.0; "
            f"its tensors are {some_of(list(shapes)) or 'none'}"
        )
    if numbers != list(range(len(numbers))):
        raise ModelError(
            f"{label}: its layers are {some_of(list(map(str, numbers)))} instead of 0, 1, 2, ...; give the whole model"
        )
    return TakenApart(
        label,
        mapping,
        shapes,
        slots,
        len(numbers),
        _heads(label, mapping, shapes, slots, root),
        read,
        tied,
        _number(root, mapping.vocabulary),
        _rotates_whole(root),
    )


def _heads(
    label: str, mapping: ModelMapping, shapes: Mapping[str, tuple[int, ...]], slots: Mapping[str, Slot], root: Any
) -> HeadSizes | None:
    """The model's heads, checked against the rows of every attention tensor; None if they are not known."""
    asked = [(name, slot) for name, slot in slots.items() if "query" in slot.rule.parts]
    query = _number(root, mapping.heads)
    if not asked or query is None:
        return None
    groups = _number(root, mapping.kv_heads) or query
    if query % groups:
        raise ModelError(f"{label}: {query} heads are not a multiple of {groups} key-value heads")
    name, slot = asked[0]
    counted = HeadSizes(query, groups, 1)
    share = sum(counted.of(part) for part in slot.rule.parts)
    heads = HeadSizes(query, groups, outputs(slot.rule, shapes[name]) // share)
    for name, slot in slots.items():
        wanted = head_rows(slot.rule, heads) if slot.rule.parts else None
        if wanted is not None and outputs(slot.rule, shapes[name]) != sum(wanted):
            raise ModelError(
                f"{label}: tensor {name} has shape {shapes[name]}, which does not fit {query} heads and "
                f"{groups} key-value heads of size {heads.size}"
            )
    if mapping.rotary is not None and heads.size % 2:
        raise ModelError(f"{label}: rotary positions need an even head size, not {heads.size}")
    return heads


def _number(root: Any, where: int | str | tuple[str, ...] | None) -> int | None:
    """A number, or the number at the first of the dotted paths that has one."""
    if isinstance(where, int) or where is None:
        return where
    for path in (where,) if isinstance(where, str) else where:
        found: Any = root
        for step in path.split("."):
            found = _step(found, step)
        if isinstance(found, int):
            return found
    return None


def _step(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    modules = getattr(holder, "_modules", {})  # children of a ModuleList have the names "0", "1", ...
    return modules[name] if name in modules else getattr(holder, name, None)


def _rotates_whole(root: Any) -> bool:
    config = getattr(root, "config", None)
    rotary = getattr(config, "rope_parameters", None)
    share = rotary.get("partial_rotary_factor") if isinstance(rotary, Mapping) else None
    return share in (None, 1) and getattr(config, "rotary_percentage", 1) == 1
