"""The report's first sentence: it answers the question, no surer than seeds and controls allow."""

from __future__ import annotations

import numpy as np
import pytest

from proctool.reporting.compare import Curve, Run
from proctool.reporting.controls import Start
from proctool.reporting.experiment import Experiment
from proctool.reporting.measured import Score
from proctool.reporting.record import ExperimentRecord
from proctool.reporting.report import Report, build_report
from proctool.transplantation.origin import Provenance

QUESTION = "Does a warm-up help?"
TOKENS = np.array([1e5, 2e5, 4e5, 8e5])


def told(
    losses: dict[str, list[float]] | None = None,
    accuracies: dict[str, list[float]] | None = None,
    title: str = QUESTION,
    asks: str | None = None,
) -> str:
    """The answer of an experiment with these final losses or accuracies, a list over seeds for each arm."""
    found = built(losses, accuracies, title, asks)
    assert found.sentences[0] == found.answer == found.as_json()["answer"]
    assert found.answer is not None
    return found.answer


def built(
    losses: dict[str, list[float]] | None,
    accuracies: dict[str, list[float]] | None,
    title: str = QUESTION,
    asks: str | None = None,
) -> Report:
    arms = list(losses or accuracies or {})
    runs = {
        arm: {seed: Run(Curve(TOKENS, np.array([4, 3.5, 3, loss])), 1e4) for seed, loss in enumerate(losses[arm])}
        for arm in (losses or {})
    }
    scores = {
        "haystack": {
            arm: {seed: Score((0, 100), (0.0, share), 2000) for seed, share in enumerate(shares)}
            for arm, shares in (accuracies or {}).items()
        }
    }
    carried = (Provenance("attention", "carried", ("warm.safetensors",)),)
    starts = {arm: Start(("set",), carried) if arm != "cold" else Start() for arm in arms}
    starts |= {
        arm: Start(("set",), carried, kind=arm.partition("-")[2], of=(arm.partition("-")[0],))
        for arm in arms
        if "-" in arm
    }
    record = ExperimentRecord(baseline="cold", stages={}, arms={}, title=title, asks=asks)
    return build_report(Experiment(None, record, "cold", runs, scores if accuracies else {}, starts=starts))


THREE = [2.0, 2.01, 2.02]
FLOOR, HIGH = [0.09, 0.1, 0.09], [0.87, 0.9, 0.8]


@pytest.mark.parametrize(
    ("arms", "begins", "holds"),
    [
        (
            {"cold": THREE, "set": [1.8, 1.82, 1.81], "set-scale": [1.9, 1.92, 1.91]},
            "Yes: set is better than every control: 0.1",
            "better than set-scale, the best of them (3 seeds)",
        ),
        (
            {"cold": THREE, "set": [1.8, 1.82, 1.81], "set-scale": [1.81, 1.81, 1.81]},
            "Fresh weights at the donor's scale did as well as set: set ends",
            "Against cold, set ends 0.200 [",
        ),
        (
            {"cold": THREE, "set": [1.8, 1.82, 1.81], "set-scale": [1.9, 1.92, 1.91], "set-text": [1.7, 1.72, 1.71]},
            "A warm-up on natural text did better than set: set ends 0.1",
            "worse than set-text, the best control (3 seeds)",
        ),
        (
            {"cold": THREE, "set": [1.8, 1.82, 1.81], "set-scale": [1.81, 1.81, 1.81], "set-longer": [1.4, 1.42, 1.41]},
            "More corpus instead of the warm-up did better than set: set ends 0.4",
            ", the best control (3 seeds). Fresh weights at the donor's scale did as well: set ends 0.000 [",
        ),
        (
            {"cold": THREE, "set": [1.8, 1.82, 1.81], "set-scale": [1.9, 1.92, 1.91], "set-longer": [1.4, 1.42, 1.41]},
            "More corpus instead of the warm-up did better than set: set ends 0.4",
            "No other control did as well: set ends 0.100 [",
        ),
        (
            {"cold": THREE, "set": [1.8, 1.82, 1.81], "set-text": [1.7, 1.72, 1.71], "set-longer": [1.4, 1.42, 1.41]},
            "More corpus instead of the warm-up did better than set: set ends 0.4",
            "A warm-up on natural text did better too: set ends 0.100 [",
        ),
        (
            {"cold": THREE, "set": [2.3, 2.32, 2.31], "set-text": [2.1, 2.12, 2.11]},
            "No: set ends 0.3",
            "worse than cold, which did better than every control (3 seeds)",
        ),
        ({"cold": [2.0], "set": [1.5], "set-longer": [1.4]}, "Seen in one seed only: set ends 0.1", "than set-longer"),
        ({"cold": THREE, "set": [1.8, 1.82, 1.81]}, "Yes: set ends", "set has no control"),
        ({"cold": THREE, "set": [2.2, 2.21, 2.22]}, "No: set ends", "worse than cold"),
        ({"cold": THREE, "set": [1.9, 2.1, 2.02]}, "No difference is shown: set ends", "better in 1 of 3 seeds"),
        ({"cold": [2.0, 2.5], "set": [1.9, 2.0]}, "Two seeds cannot settle it", "Run a third"),
        ({"cold": [2.0], "set": [1.999]}, "One seed cannot settle it", "Run two more seeds"),
        ({"cold": [2.0], "set": [1.5]}, "Seen in one seed", "and its controls"),
        ({"cold": [2.0], "set": [2.5]}, "Seen in one seed", "worse than cold"),
        ({"cold": THREE, "set": [1.8, 1.82, 1.81], "eca": [1.7, 1.72, 1.71]}, "Yes: eca ends", "(3 seeds)"),
    ],
)
def test_losses(arms: dict[str, list[float]], begins: str, holds: str) -> None:
    said = told(losses=arms)
    assert said.startswith(begins)
    assert holds in said


@pytest.mark.parametrize(
    ("arms", "begins", "holds"),
    [
        (
            {
                "cold": [0.09, 0.1, 0.09],
                "set": [0.87, 0.9, 0.8],
                "set-shuffled": [0.1, 0.09, 0.1],
                "set-scale": [0.09] * 3,
            },
            "Yes: set reaches 85.7 % on haystack where cold reaches 9.3 %",
            "set-shuffled, the best control, reaches 9.7 %",
        ),
        (
            {"cold": FLOOR, "set": HIGH, "set-scale": [0.9, 0.8, 0.9]},
            "Not because of the warm-up data",
            "set-scale",
        ),
        (
            {"cold": FLOOR, "set": HIGH, "set-scale": [0.1, 0.6, 0.7]},
            "Only in part because of the warm-up data: set reaches 85.7 % on haystack where cold reaches 9.3 %",
            "the control set-scale reaches 46.7 %",
        ),
        ({"cold": [0.09, 0.1, 0.09], "set": [0.09, 0.11, 0.08]}, "No difference is shown", "set reaches"),
        ({"cold": [0.09], "set": [0.091]}, "Not settled", "Run two more seeds"),
        ({"cold": [0.5, 0.51, 0.5], "set": [0.2, 0.21, 0.2]}, "No: set reaches 20.3 %", "cold reaches 50.3 %"),
    ],
)
def test_accuracies(arms: dict[str, list[float]], begins: str, holds: str) -> None:
    said = told(accuracies=arms)
    assert said.startswith(begins)
    assert holds in said


def test_the_answer_is_about_what_the_recipe_asks() -> None:
    losses, accuracies = {"cold": THREE, "set": [2.2, 2.21, 2.22]}, {"cold": FLOOR, "set": HIGH}
    assert told(losses, accuracies).startswith("No: set ends")
    assert told(losses, accuracies, asks="pretraining").startswith("No: set ends")
    assert told(losses, accuracies, asks="haystack").startswith("Yes: set reaches 85.7 % on haystack")
    assert told(losses, asks="haystack").startswith("No: set ends")


def test_a_question_that_is_not_yes_or_no_is_answered_without() -> None:
    said = told(losses={"cold": THREE, "set": [1.8, 1.82, 1.81]}, title="Which warm-ups help?")
    assert said.startswith("set ends 0.200 [")


def test_an_answer_on_accuracies_compares_the_seeds_that_both_have() -> None:
    accuracies = {"cold": [0.1, 0.1, 0.9], "set": [0.75, 0.62]}
    said = told(accuracies=accuracies)
    assert said.startswith("Not settled: set reaches 68.5 % on haystack where cold reaches 10.0 % (2 seeds)")
    assert "haystack, set: only over seeds 0, 1." in built(None, accuracies).notes
