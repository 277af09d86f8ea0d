"""Where each tensor of a model comes from, as data for metrics, artifacts and --json, and as words."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proctool.errors import OptionError
from proctool.models.components import COMPONENTS
from proctool.transplantation.treatments import Treatment

NOT_TAKEN = ("fresh", "base")
"""Sources of tensors that do not come from a donor."""

_NOT_TAKEN_BECAUSE = {
    "not-carried": "{component} is not carried",
    "outside-layers": "{component} outside the chosen layers",
    "past-donor": "after the last layer of {donors}",
    "outside-heads": "{component} of layers without a chosen head",
    "shared-by-heads": "{component} that all heads of a layer share",
    "drawn-by-default": "fresh, because --embeddings is not given",
    "as-started": "embeddings are not changed",
    "drawn-anew": "fresh, by --embeddings",
    "vocabulary-bias": "a bias over the vocabulary",
    "no-rule": "the mapping has no rule for it",
}
_OLD_PROSE = {
    "not-carried": "{component} not among the carried components",
    "outside-layers": "{component} outside the layers asked for",
    "past-donor": "past the last layer of {donors}",
    "outside-heads": "{component} of layers without a head asked for",
    "shared-by-heads": "{component} that all heads of a layer share",
    "drawn-by-default": "fresh, as no --embeddings asks for the donor's",
    "as-started": "embeddings as they start",
    "drawn-anew": "drawn anew",
    "vocabulary-bias": "a bias over the vocabulary",
    "no-rule": "no rule of the mapping covers it",
}
"""The same in the words of proctool 0.1, whose artifacts recorded them."""
_EMBEDDINGS = {
    "scale": "fresh, with the standard deviation of {donors}",
    "mean": "every row is the mean of {donors}",
    "sample": "random rows of {donors}",
    "copy": "the rows of {donors}",
}
_OLD_EMBEDDINGS = {
    "scale": "fresh, with the deviation of ",
    "mean": "every row the mean of ",
    "sample": "rows drawn from ",
    "copy": "the rows of ",
}


@dataclass(frozen=True)
class DonorTensor:
    """A tensor of a donor or a base model; `donor` is the model's label."""

    donor: str
    tensor: str


@dataclass(frozen=True)
class Provenance:
    """How tensors of one component are made; tensors made in the same way share it."""

    component: str
    source: str
    """"fresh", "base"; or for donors' tensors "carried", "altered", "cut", "extended", or one of `EMBEDDINGS`."""
    donors: tuple[str, ...] = ()
    """Labels of the donors; several are averaged."""
    why: str | None = None
    """Why it does not come from a donor, a key of `_NOT_TAKEN_BECAUSE`."""
    treatment: Treatment = field(default_factory=Treatment)
    depth_map: str | None = None
    """How layers are matched, if donor and target differ in depth."""
    heads: tuple[str, ...] = ()
    """The carried heads, such as 1.2 for head 2 of layer 1; the others are not changed. Empty: all heads."""
    positions: tuple[int, int] | None = None
    """Positions of the donor and of the target, if they differ."""

    def words(self) -> str:
        """A description for users."""
        donors = " and ".join(self.donors)
        if self.why is not None:
            return _NOT_TAKEN_BECAUSE.get(self.why, self.why).format(component=self.component, donors=donors)
        if self.source in NOT_TAKEN:
            return ""
        if self.source in _EMBEDDINGS:
            return _EMBEDDINGS[self.source].format(donors=donors)
        said = f"average of {donors}" if len(self.donors) > 1 else f"from {donors}"
        if self.depth_map is not None:
            said += f", layers by {self.depth_map}"
        if self.heads:
            said += f", only {'head' if len(self.heads) == 1 else 'heads'} {', '.join(self.heads)}"
        if self.positions is not None:
            theirs, ours = self.positions
            said += (
                f", the first {ours} of {theirs} positions"
                if ours < theirs
                else f", {theirs} positions stretched over {ours} by interpolation"
            )
        done = self.treatment.words()
        return f"{said}; {', '.join(done)}" if done else said

    def record(self) -> dict[str, Any]:
        """As JSON, without fields at their defaults."""
        found: dict[str, Any] = {"component": self.component, "source": self.source}
        if self.donors:
            found["donors"] = list(self.donors)
        if self.treatment != Treatment():
            found["treatment"] = _changed(self.treatment)
        for name in ("why", "depth_map"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        if self.heads:
            found["heads"] = list(self.heads)
        if self.positions is not None:
            found["positions"] = list(self.positions)
        return found


@dataclass(frozen=True)
class Origin:
    """Where one tensor of the target comes from."""

    tensor: str
    shape: tuple[int, ...]
    layer: int | None
    provenance: Provenance
    given: tuple[DonorTensor, ...] = ()
    """The tensors it is made from."""

    @property
    def component(self) -> str:
        """The component it belongs to."""
        return self.provenance.component

    @property
    def source(self) -> str:
        """See `Provenance.source`."""
        return self.provenance.source

    @property
    def is_whole(self) -> bool:
        """Whether it is one tensor of a donor, unchanged."""
        how = self.provenance
        is_plain = how.treatment == Treatment() and not how.heads and how.positions is None
        return how.source in ("carried", "copy") and len(self.given) == 1 and is_plain

    @property
    def size(self) -> int:
        """Number of values in the tensor."""
        return math.prod(self.shape)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        given = [{"donor": each.donor, "tensor": each.tensor} for each in self.given]
        return {**self.provenance.record(), "from": given}


@dataclass(frozen=True)
class Carried:
    """The tensors of a component that are made in the same way, as totals."""

    provenance: Provenance
    tensors: int
    parameters: int

    def record(self) -> dict[str, Any]:
        """As JSON; `read_carried` reads it."""
        return {**self.provenance.record(), "tensors": self.tensors, "parameters": self.parameters}


def summary(origins: Sequence[Origin]) -> list[Carried]:
    """One row per component and provenance, in the order of `COMPONENTS`; tensors without a component come last."""
    tensors = Counter(origin.provenance for origin in origins)
    sizes: Counter[Provenance] = Counter()
    for origin in origins:
        sizes[origin.provenance] += origin.size
    rows = [Carried(each, tensors[each], sizes[each]) for each in tensors]
    order = {component: index for index, component in enumerate(COMPONENTS)}
    return sorted(rows, key=lambda row: order.get(row.provenance.component, len(order)))


def records(rows: Iterable[Carried]) -> list[dict[str, Any]]:
    """`summary` as JSON, for metrics and artifacts."""
    return [row.record() for row in rows]


def read_carried(rows: Any) -> list[Carried]:
    """What `records` wrote, including old versions that wrote sentences; rows of any other form are skipped."""
    found = []
    for row in rows if isinstance(rows, list) else ():
        provenance = read_provenance(row)
        counts = [row.get(key, 0) for key in ("tensors", "parameters")] if provenance is not None else []
        if provenance is not None and all(isinstance(count, int) for count in counts):
            found.append(Carried(provenance, *counts))
    return found


def read_provenance(row: Any) -> Provenance | None:
    """What `Provenance.record` wrote; None for anything else."""
    if not isinstance(row, Mapping) or not isinstance(row.get("source"), str):
        return None
    component, source = str(row.get("component", "")), row["source"]
    prose = row.get("reason", row.get("how"))
    treatment, positions, why = row.get("treatment"), row.get("positions"), row.get("why")
    try:
        if prose is not None:
            return _from_prose(component, source, str(prose))
        return Provenance(
            component, source,
            donors=tuple(map(str, row.get("donors", ()))),
            why=None if why is None else str(why),
            treatment=Treatment(**treatment) if isinstance(treatment, dict) else Treatment(),
            depth_map=None if row.get("depth_map") is None else str(row["depth_map"]),
            heads=tuple(map(str, row.get("heads", ()))),
            positions=None if positions is None else (int(positions[0]), int(positions[1])),
        )  # fmt: skip
    except (TypeError, ValueError, LookupError, OptionError):
        return None


def component_words(components: Any) -> list[tuple[str, str]]:
    """Each component in a transplanted model's metadata, with the description of its origin."""
    said = []
    for component, rows in components.items() if isinstance(components, Mapping) else ():
        if isinstance(rows, str):  # written by proctool 0.1
            said.append((str(component), rows))
            continue
        ways = filter(None, map(read_provenance, rows if isinstance(rows, list) else ()))
        said.append((str(component), "; ".join(way.source if way.source in NOT_TAKEN else way.words() for way in ways)))
    return said


def _changed(treatment: Treatment) -> dict[str, Any]:
    return {
        each.name: value
        for each in dataclasses.fields(treatment)
        if (value := getattr(treatment, each.name)) != each.default
    }


def _from_prose(component: str, source: str, prose: str) -> Provenance:
    """Read a sentence of proctool 0.1: `average, from a and b, layers by repeat; shuffled, noise of 0.1 ...`."""
    if source in NOT_TAKEN:
        if prose == "other vocabulary; fresh by --embeddings":
            return Provenance(component, source, why="drawn-by-default")
        known = {words.format(component=component, donors=""): why for why, words in _OLD_PROSE.items()}
        return Provenance(component, source, why=known.get(prose, prose or None))
    if source in _EMBEDDINGS:
        return Provenance(component, source, donors=(prose.removeprefix(_OLD_EMBEDDINGS[source]),))
    told, _, done = prose.partition("; ")
    donors, _, more = told.removeprefix("average, ").removeprefix("from ").partition(", ")
    positions = re.search(r"the first (\d+) of (\d+) positions|(\d+) positions stretched over (\d+)", more)
    noise, alpha = re.search(r"noise of (\S+) of", done), re.search(r"(\S+) of the way", done)
    numbers = [int(each) for each in positions.groups() if each is not None] if positions else []
    return Provenance(
        component, source,
        donors=tuple(donors.split(" and ")),
        treatment=Treatment(
            shuffle="shuffled" in done, match_scale="scale only" in done,
            noise=float(noise[1]) if noise else 0.0, alpha=float(alpha[1]) if alpha else 1.0,
        ),
        depth_map=depth[1] if (depth := re.search(r"layers by (\w+)", more)) else None,
        positions=(max(numbers), min(numbers)) if source == "cut" and numbers else tuple(numbers) or None,  # type: ignore[arg-type]
    )  # fmt: skip
