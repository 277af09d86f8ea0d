"""Where in a row the loss is: sums against plain loops, tiny rows by hand, the end event of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proctool.events import EndEvent, EvalEvent, HeadsEvent, from_json, read_events, to_json
from proctool.loss_parts import Band, InductionHeads, LossParts, Ngrams, Part
from proctool.training.head_tracker import induction_heads
from proctool.training.job import Job
from proctool.training.loss_sums import LossSums, repeated
from proctool.training.options import PretrainOptions
from proctool.training.pretrain import pretrain_job
from tests.training.runs import Killed, contents, killed_at


def test_tiny_rows_by_hand() -> None:
    # Copyable bigrams: in the first row the second "1 2" and "2 3"; in the second "5 5", which overlaps itself.
    tokens = np.array([[1, 2, 3, 1, 2, 3], [5, 5, 5, 1, 2, 3]])
    targets = np.ones(tokens.shape, bool)
    targets[:, 0] = False
    targets[1, 5] = False
    nats = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0])
    sums = LossSums(6)
    sums.add(tokens, targets, nats)
    assert sums.parts() == LossParts(
        bands=(
            Band(first=1, last=1, targets=2, loss=11 / 2),
            Band(first=2, last=3, targets=4, loss=(2 + 3 + 20 + 30) / 4),
            Band(first=4, last=5, targets=3, loss=(4 + 5 + 40) / 3),
        ),
        ngrams=(
            Ngrams(n=2, copyable=Part(targets=3, loss=29 / 3), other=Part(targets=6, loss=(115 - 29) / 6)),
            Ngrams(n=3, copyable=Part(targets=1, loss=5.0), other=Part(targets=8, loss=110 / 8)),
        ),
    )


@pytest.mark.parametrize("length", [50, 51, 60])
def test_the_in_context_learning_score_is_of_full_rows(length: int) -> None:
    rng = np.random.default_rng(length)
    tokens, targets = rng.integers(0, 9, (4, length)), np.ones((4, length), bool)
    targets[:, 0] = False
    targets[1, -1] = targets[2, 49] = False  # rows that are not full, or whose 50th token is not predicted
    losses = rng.random((4, length))
    sums = LossSums(length)
    sums.add(tokens, targets, losses[targets])
    sums.add(tokens[:, :-1], targets[:, :-1], losses[:, :-1][targets[:, :-1]])
    parts = sums.parts()
    if length == 50:
        assert (parts.icl_score, parts.icl_rows) == (None, 0)
    else:
        assert parts.icl_score == pytest.approx(np.mean([losses[row, 49] - losses[row, -1] for row in (0, 3)]))
        assert parts.icl_rows == 2


@pytest.mark.parametrize("seed", range(3))
def test_parts_add_up_to_the_whole_however_rows_are_batched(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, [3, 7, 2**32 - 1][seed], (6, 40)).astype(np.uint32)
    targets = rng.random(tokens.shape) < 0.7
    targets[:, 0] = False
    losses = rng.random(tokens.shape)
    whole, apart = LossSums(40), LossSums(40)
    whole.add(tokens, targets, losses[targets])
    for row in range(6):
        apart.add(tokens[[row]], targets[[row]], losses[[row]][targets[[row]]])
    np.testing.assert_allclose(whole.values, apart.values)
    parts = whole.parts()
    assert (parts.targets, parts.loss) == (targets.sum(), pytest.approx(losses[targets].mean()))
    for each in parts.ngrams:
        assert each.copyable.targets + each.other.targets == parts.targets
        nats = sum(part.targets * (part.loss or 0) for part in (each.copyable, each.other))
        assert nats == pytest.approx(losses[targets].sum())
    for n, found in zip((1, 2, 3), repeated(tokens, (1, 2, 3)), strict=True):
        for row, ids in enumerate(tokens.tolist()):
            grams = [tuple(ids[at - n + 1 : at + 1]) if at >= n - 1 else None for at in range(40)]
            plain = [gram is not None and gram in grams[:at] for at, gram in enumerate(grams)]
            assert found[row].tolist() == plain


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({0: 0.1, 4: 0.5, 8: 0.6, 12: 0.4}, InductionHeads(threshold=0.5, score=0.4, step=8)),
        ({0: 0.1, 4: 0.5}, InductionHeads(threshold=0.5, score=0.5)),
        ({}, None),
    ],
)
def test_induction_heads_form_at_the_first_evaluation_above_the_threshold(
    scores: dict[int, float], expected: InductionHeads | None
) -> None:
    events = [
        HeadsEvent(
            step=step, samples="x", own=own, heads=[{"layer": 0, "head": 0, "induction": None},
            {"layer": 0, "head": 1, "induction": 0.9 if own else score}],
        )
        for step, score in scores.items() for own in (True, False)
    ]  # fmt: skip
    assert induction_heads(events) == expected


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))


def job(text: Path, name: str, **changes: Any) -> Job:
    settings = {
        "corpus": str(text), "model": "2x2x16", "context": 64, "steps": 6, "batch_size": 4, "eval_every": 3,
        "eval_samples": 3, "log_every": 3, "checkpoint_every": 4, "dropout": 0.1, "micro_batch": 4, "keep_state": True,
        "schedule": "constant",
        "run_dir": text.parent / name, "output": text.parent / f"{name}.safetensors",
    }  # fmt: skip
    return pretrain_job(PretrainOptions(**{**settings, **changes}))


def test_a_pretraining_ends_with_the_parts_of_its_loss_and_nothing_else_changes(text: Path) -> None:
    end = job(text, "whole", track_heads=True).run()
    parts = end.loss_parts
    assert parts is not None
    assert parts.loss == pytest.approx(end.loss, rel=1e-6)
    assert parts.targets == 3 * 63
    assert parts.icl_rows == 3
    assert end.induction is not None
    assert from_json(to_json(end)) == end
    # Without the parts, interrupted and resumed: the same weights.
    for listeners in ([killed_at("eval", 3)], []):
        plain = job(text, "plain")
        plain.by_part, plain.listeners = False, listeners
        with pytest.raises(Killed) if listeners else contextlib.nullcontext():
            assert plain.run().loss_parts is None
    assert contents(text.parent / "plain.safetensors") == contents(text.parent / "whole.safetensors")
    # Extended, it ends as a run of that length.
    more, long = job(text, "plain", steps=9, extend=True).run(), job(text, "long", steps=9).run()
    assert (more.loss_parts, more.content) == (long.loss_parts, long.content)
    assert more.loss_parts not in (None, parts)


def test_a_run_that_stops_early_has_the_parts_of_its_last_loss(text: Path) -> None:
    early = job(text, "early", until="loss=99", save="best").run()
    last = [event.loss for event in read_events(text.parent / "early") if isinstance(event, EvalEvent)][-1]
    assert early.step == 3
    assert early.loss_parts is not None
    assert early.loss_parts.loss == pytest.approx(last, rel=1e-6)


def test_old_and_damaged_end_events() -> None:
    old = from_json({"event": "end", "step": 4, "tokens": 32})
    assert isinstance(old, EndEvent)
    assert (old.loss_parts, old.induction) == (None, None)
    for value, wrong in [
        ([], "loss_parts"),
        ({"bands": {}, "ngrams": []}, "loss_parts"),
        ({"bands": [{"first": 1, "last": 1, "targets": -1}], "ngrams": []}, "loss_parts"),
        ({"bands": []}, "loss_parts"),
    ]:
        with pytest.raises(ValueError, match=wrong):
            from_json({"event": "end", "step": 4, "tokens": 32, "loss_parts": value})
    empty = LossParts(bands=(), ngrams=())
    assert math.isnan(empty.loss)
    assert dataclasses.asdict(empty)["icl_score"] is None
