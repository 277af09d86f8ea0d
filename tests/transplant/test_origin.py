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


OLD = {
    "scale": "fresh, with the deviation of a.safetensors",
    "mean": "every row the mean of a.safetensors",
    "sample": "rows drawn from a.safetensors",
    "copy": "the rows of a.safetensors",
    "cut": "from a, the first 61 of 128 positions",
    "extended": "from a, 32 positions stretched over 61 by interpolation",
    "fresh": "mlp not among the carried components",
    "base": "mlp outside the layers asked for",
}


def old_sentence(made: Provenance) -> str:
    """What version 0.1 wrote."""
    if made.source in OLD:
        return OLD[made.source]
    said = f"{'average, ' if len(made.donors) > 1 else ''}from {' and '.join(made.donors)}"
    said += ", layers by repeat" if made.depth_map else ""
    treatment = made.treatment
    done = ["shuffled"] * treatment.shuffle + ["scale only"] * treatment.match_scale
    done += ["noise of 0.1 of its size"] * (treatment.noise == 0.1)
    done += [f"{treatment.alpha} of the way from the start"] * (treatment.alpha < 1)
    return f"{said}; {', '.join(done)}" if done else said


@pytest.mark.parametrize("made", TAKEN + OTHERS, ids=lambda made: made.words())
def test_a_record_and_an_old_sentence_give_the_provenance_again(made: Provenance) -> None:
    assert read_provenance(made.record()) == made
    sentence = {"component": made.component, "source": made.source, "reason": old_sentence(made)}
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
