"""Scores of `benchmarks/heads.py` on attention whose scores are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import heads
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.streams import Stream

BRACKETS, HAYSTACK = "dyck:k=3,length=32", "haystack:pairs=6,vocab=32"


def even(tokens: NDArray[Any]) -> NDArray[np.float32]:
    """Uniform attention: (n, L) -> (1, n, 1, L, L)"""
    length = tokens.shape[1]
    rows = np.tril(np.ones((length, length), np.float32)) / np.arange(1, length + 1, dtype=np.float32)[:, None]
    return np.broadcast_to(rows, (1, len(tokens), 1, length, length)).copy()


def attending(monkeypatch: pytest.MonkeyPatch, pattern: Any) -> None:
    monkeypatch.setattr(heads, "attention", lambda model, tokens: pattern(tokens))


def test_the_innermost_open_bracket_is_found() -> None:
    opens = np.array([[1, 1, 0, 1, 1, 0, 0, 0, 1, 0]], bool)
    assert heads.innermost(opens).tolist() == [[0, 1, 0, 3, 4, 3, 0, -1, 8, -1]]


def test_a_head_that_attends_to_the_opening_bracket_matches_fully(monkeypatch: pytest.MonkeyPatch) -> None:
    def matching(tokens: NDArray[Any]) -> NDArray[np.float32]:
        shown = np.zeros_like(even(tokens))
        for sample, row in enumerate(tokens):
            waiting: list[int] = []
            for place, token in enumerate(row):
                if token < 3:
                    waiting.append(place)
                target = place if token < 3 else waiting.pop()
                shown[:, sample, :, place, target] = 1
        return shown

    attending(monkeypatch, matching)
    found = heads.bracket_scores(None, BRACKETS)
    assert found["match"] == 1
    assert found["match_even"] < 0.5
    assert found["foresee"] < 0.5


def test_attention_inside_the_innermost_bracket_is_told_from_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Stream(parse_tasks(BRACKETS), 0, "validation").read(0, 128).tokens
    start = heads.innermost(tokens < 3)

    def inside(tokens: NDArray[Any]) -> NDArray[np.float32]:
        shown = even(tokens)
        within = (np.arange(tokens.shape[1]) >= start[:, :, None])[None, :, None]
        return np.where(within, 3 * shown, shown).astype(np.float32)

    attending(monkeypatch, even)
    flat = heads.bracket_scores(None, BRACKETS)
    attending(monkeypatch, inside)
    wide = heads.bracket_scores(None, BRACKETS)
    assert wide["inside"] == pytest.approx(3 * flat["inside"], rel=1e-5)
    assert wide["outside"] == pytest.approx(flat["outside"], rel=1e-5)


def test_a_query_that_attends_to_its_value_looks_up_fully(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Stream(parse_tasks(HAYSTACK), 0, "validation").read(0, 64)

    def looking(tokens: NDArray[Any]) -> NDArray[np.float32]:
        """Each value attends to the token before; each query attends to the value of its key."""
        shown = even(tokens)
        for sample, row in enumerate(tokens.astype(int)):
            asked = int((row >= 16 + 6).argmax())
            value = int((row == row[asked] - 6).argmax()) + 1
            for place in (*range(1, asked, 2), asked):
                shown[:, sample, :, place] = 0
                shown[:, sample, :, place, value if place == asked else place - 1] = 1
        return shown

    attending(monkeypatch, looking)
    found = heads.haystack_scores(None, samples, 6)
    assert found["value"] == found["own_key"] == 1
    assert found["key"] == 0
    attending(monkeypatch, even)
    assert heads.haystack_scores(None, samples, 6)["value"] < 0.15
