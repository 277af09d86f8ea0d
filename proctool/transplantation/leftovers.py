"""Donor tensors that are not carried: those of a carried component that do not exist in the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proctool.errors import some_of
from proctool.transplantation.donors import Donor
from proctool.transplantation.plan import Graft, Target


@dataclass(frozen=True)
class Leftover:
    """Tensors of a donor's component; `donor` is the donor's label."""

    donor: str
    component: str
    tensors: tuple[str, ...]

    def words(self) -> str:
        """The note for users."""
        do, are = ("tensor does", "is") if len(self.tensors) == 1 else ("tensors do", "are")
        return (
            f"{self.donor}: {len(self.tensors)} {self.component} {do} not exist in the model and {are} not carried: "
            f"{some_of(self.tensors)}"
        )

    def record(self) -> dict[str, Any]:
        """As JSON: the first few names and the number of tensors."""
        return {
            "donor": self.donor,
            "component": self.component,
            "count": len(self.tensors),
            "first": list(self.tensors[:5]),
        }


def leftovers(target: Target, grafts: Sequence[Graft], rows_of: Donor | None) -> list[Leftover]:
    """Tensors of carried components that do not exist in the target; with `rows_of`, of embeddings and head too.

    Names are compared without layer numbers, because the options choose the layers.
    """
    places = {_kind(target, name) for name in target.places}
    carried = [(donor, graft.component) for graft in grafts for donor in graft.donors]
    carried += [(rows_of, component) for component in ("embeddings", "head") if rows_of is not None]
    found = []
    for donor, component in carried:
        names = [name for name, place in donor.places.items() if place.component == component]
        if left := tuple(name for name in names if _kind(target, name) not in places):
            found.append(Leftover(str(donor), component, left))
    return found


def _kind(target: Target, name: str) -> str:
    """A tensor's name, the same for all layers."""
    is_inside = name.startswith(f"{target.anatomy.stack}.")
    return target.anatomy.in_layer(name, 0) if is_inside else name
