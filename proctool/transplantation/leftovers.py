"""What stays behind of donors: tensors of a carried component that the target has no place for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proctool.errors import some_of
from proctool.transplantation.donors import Donor
from proctool.transplantation.plan import Graft, Target


@dataclass(frozen=True)
class Leftover:
    """Tensors of a donor's component; the donor is named by its label."""

    donor: str
    component: str
    tensors: tuple[str, ...]

    def words(self) -> str:
        """The line that people read."""
        have, stay = ("tensor has", "stays") if len(self.tensors) == 1 else ("tensors have", "stay")
        return (
            f"{self.donor}: {len(self.tensors)} {self.component} {have} no place in the model and {stay} behind: "
            f"{some_of(self.tensors)}"
        )

    def record(self) -> dict[str, Any]:
        """As JSON: the first few names, and how many there are."""
        return {
            "donor": self.donor,
            "component": self.component,
            "count": len(self.tensors),
            "first": list(self.tensors[:5]),
        }


def leftovers(target: Target, grafts: Sequence[Graft], rows_of: Donor | None) -> list[Leftover]:
    """What stays behind of the components that are carried, and of a head where `rows_of` gives its embeddings.

    Layers are not looked at one by one: which of them are carried is said by the options.
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
