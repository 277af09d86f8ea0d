"""A model taken apart by a mapping: what each of its tensors holds, and where each part is found."""

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
"""A layer (None outside) and a part of it: (3, "query.weight")."""


@dataclass(frozen=True)
class Slot:
    """What one tensor of a model is."""

    component: str
    layer: int | None
    keys: tuple[str, ...]
    """The parts that it holds, in their order."""
    rule: TensorRule


@dataclass(frozen=True)
class TakenApart:
    """A model whose tensors are known by what they hold."""

    label: str
    mapping: ModelMapping
    shapes: Mapping[str, tuple[int, ...]]
    slots: Mapping[str, Slot]
    """Tensors that the mapping covers, in the model's order."""
    layers: int
    heads: HeadSizes | None
    read: Callable[[str], torch.Tensor]
    """One tensor in float32. Raises ModelError where it holds NaN or infinities."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Names of tensors that are another tensor again, with its name: a tied head."""
    vocabulary: int | None = None
    """Tokens that count, where embeddings may be padded."""
    rotates_whole: bool = True
    """Whether rotary positions turn all rows of a head."""

    def __post_init__(self) -> None:
        where: dict[Key, tuple[str, int]] = {}
        for name, slot in self.slots.items():
            for index, key in enumerate(slot.keys):
                if (other := where.setdefault((slot.layer, key), (name, index))[0]) != name:
                    raise ModelError(f"{self.label}: tensors {other} and {name} both claim to be {key}")
        object.__setattr__(self, "where", where)

    where: dict[Key, tuple[str, int]] = field(init=False, repr=False)
    """The tensor that holds each part, and which of its parts it is."""

    def part(self, layer: int | None, key: str) -> torch.Tensor:
        """A part in the form in the middle: weights (outputs, inputs), query and key rotating in halves."""
        name, index = self.where[layer, key]
        return split(self.read(name), self.slots[name].rule, self.heads, self.mapping.rotary)[index]


def slots_of(mapping: ModelMapping, names: Sequence[str], label: str) -> dict[str, Slot]:
    """What each of the tensors `names` is; those that no rule covers are left out.

    Raises ModelError where rules of two components claim a tensor.
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
                    f"{label}: two components claim {name}: {rule.component} by {rule.pattern}, "
                    f"{other.component} by {other.pattern}"
                )
        slots[name] = Slot(rule.component, layer, rule.keys(inside, ending), rule)
    return slots


def matches(mapping: ModelMapping, names: Sequence[str]) -> bool:
    """Whether the mapping covers every one of the tensors `names`, and no rule that a model must obey goes unused."""
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
    """The model whose tensors have the given shapes; `root` is where the mapping looks up heads and vocabulary.

    Raises ModelError when the mapping does not fit: no layers, rows that do not make the number of heads, a tensor
    that two components claim, a part that two tensors claim.
    """
    tied = tied or {}
    slots = slots_of(mapping, list(shapes), label)
    # The first name of a tied tensor may be the head's: it is the embedding all the same.
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
            f"{label}: its layers are {some_of(list(map(str, numbers)))}, not 0 and on; use the whole model"
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
    """The model's heads, compared with the rows of every attention tensor; None where they are not known."""
    asked = [(name, slot) for name, slot in slots.items() if "query" in slot.rule.parts]
    query = _number(root, mapping.heads)
    if not asked or query is None:
        return None
    groups = _number(root, mapping.kv_heads) or query
    if query % groups:
        raise ModelError(f"{label}: {query} heads are no multiple of {groups} key-value heads")
    name, slot = asked[0]
    counted = HeadSizes(query, groups, 1)
    share = sum(counted.of(part) for part in slot.rule.parts)
    heads = HeadSizes(query, groups, outputs(slot.rule, shapes[name]) // share)
    for name, slot in slots.items():
        wanted = head_rows(slot.rule, heads) if slot.rule.parts else None
        if wanted is not None and outputs(slot.rule, shapes[name]) != sum(wanted):
            raise ModelError(
                f"{label}: tensor {name} has shape {shapes[name]}, which does not make {query} heads and "
                f"{groups} key-value heads of {heads.size}"
            )
    if mapping.rotary is not None and heads.size % 2:
        raise ModelError(f"{label}: heads of {heads.size} rows cannot be rotated in pairs")
    return heads


def _number(root: Any, where: int | str | tuple[str, ...] | None) -> int | None:
    """A number, or what is found at the first of the dotted paths that leads to one."""
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
    modules = getattr(holder, "_modules", {})  # a ModuleList or ModuleDict names its children "0", "1", ...
    return modules[name] if name in modules else getattr(holder, name, None)


def _rotates_whole(root: Any) -> bool:
    config = getattr(root, "config", None)
    rotary = getattr(config, "rope_parameters", None)
    share = rotary.get("partial_rotary_factor") if isinstance(rotary, Mapping) else None
    return share in (None, 1) and getattr(config, "rotary_percentage", 1) == 1
