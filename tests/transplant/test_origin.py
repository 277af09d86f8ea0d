"""Where tensors come from, as data: records are read back, and so are the sentences that version 0.1 wrote."""

from __future__ import annotations

import itertools

import pytest

from proctool.transplantation.origin import Carried, Provenance, read_carried, read_provenance
from proctool.transplantation.treatments import Treatment

TREATMENTS = (
    Treatment(),
    Treatment(shuffle=True),
    Treatment(match_scale=True),
    Treatment(noise=0.1, alpha=0.5),
    Treatment(shuffle=True, alpha=0.25),
)
TAKEN = [
    Provenance("attention", "altered" if treatment != Treatment() or len(donors) > 1 else "carried", donors,
               treatment=treatment, depth_map=depth_map)
    for treatment, donors, depth_map in itertools.product(TREATMENTS, (("a.st",), ("a", "b/c")), (None, "repeat"))
]  # fmt: skip
OTHERS = [
    Provenance("mlp", "fresh", why="not-carried"),
    Provenance("mlp", "base", why="outside-layers"),
    Provenance("positions", "cut", ("a",), positions=(128, 61)),
    Provenance("positions", "extended", ("a",), positions=(32, 61)),
    *(Provenance("embeddings", way, ("a.safetensors",)) for way in ("scale", "mean", "sample", "copy")),
]


@pytest.mark.parametrize("made", TAKEN + OTHERS, ids=lambda made: made.words())
def test_a_record_and_an_old_sentence_give_the_provenance_again(made: Provenance) -> None:
    assert read_provenance(made.record()) == made
    sentence = {"component": made.component, "source": made.source, "reason": made.words()}
    assert read_provenance(sentence) == made


@pytest.mark.parametrize(
    "row",
    [None, 3, "attention", {}, {"source": 4}, {"source": "cut", "positions": [1]}, {"source": "x", "donors": 3},
     {"source": "altered", "treatment": {"shufle": True}}, {"source": "altered", "treatment": {"noise": -1}},
     {"source": "altered", "reason": "from a; noise of x of its size"}],
)  # fmt: skip
def test_what_is_no_provenance_is_none(row: object) -> None:
    assert read_provenance(row) is None
    assert read_carried([row]) == []


def test_rows_keep_their_counts() -> None:
    row = Carried(OTHERS[0], 4, 1024)
    assert read_carried([row.record()]) == [row]
    assert read_carried([{**row.record(), "tensors": "4"}]) == []
    assert read_carried("attention") == []
