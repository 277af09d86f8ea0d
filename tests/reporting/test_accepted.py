"""Reports of donors that had to pass a probe: what they cost, and how many passed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proctool.events import TryEvent
from proctool.reporting.acceptance import acceptance_notes
from proctool.reporting.experiment import load_experiment
from proctool.reporting.report import build_report
from tests.reporting.made import HOSTILE, training, two_arms, write_events


def tried(number: int, accuracy: float) -> dict[str, Any]:
    return {
        "event": "try", "number": number, "most": 10, "seed": number * 10**9, "diagnostic": "haystack", "above": 0.15,
        "accuracy": accuracy, "tokens": 4000, "flops": 5e9,
    }  # fmt: skip


def test_every_donor_and_probe_counts(tmp_path: Path) -> None:
    plain = build_report(load_experiment(two_arms(tmp_path / "plain")))
    folder = two_arms(tmp_path / "gated")
    for seed, accuracies in enumerate(([0.06, 0.07, 0.5], [0.31])):
        start, *rest = training(command="warmup", task="set:inputs=8")
        tries = [tried(number, accuracy) for number, accuracy in enumerate(accuracies)]
        write_events(folder / f"warm{seed}", start, *tries, *rest)
    report = build_report(load_experiment(folder))
    result, without = report.results[1], plain.results[1]
    assert result.warmup_tokens == (3 + 1) / 2 * 4000
    assert without.warmup_tokens == 100_000
    assert result.saved_total is not None
    assert without.saved_total is not None
    assert result.saved_total.value > without.saved_total.value
    notes = [note for note in report.notes if "donor" in note]
    assert len(notes) == 1
    assert notes[0].startswith(
        f"{HOSTILE}: 2 of 4 donors were accepted by a probe on haystack (accuracy of at least 15.0%;"
    )
    assert "accepted: 50.0%, 31.0%; rejected: 6.0%, 7.0%)." in notes[0]
    assert not [note for note in plain.notes if "donor" in note]


def test_arms_with_the_same_donors_share_a_note() -> None:
    events = {name: [TryEvent(number=0, most=2, seed=0, diagnostic=name, above=0.2, accuracy=0.3)] for name in "ab"}
    one, both = {"w": events["a"]}, {"w": events["a"], "v": events["b"]}
    notes = acceptance_notes({"cold": {}, "set": one, "set-scale": one, "two": both})
    assert [note.partition(" by")[0] for note in notes] == [
        "set, set-scale, two: 1 of 1 donor was accepted", "two: 1 of 1 donor was accepted",
    ]  # fmt: skip
