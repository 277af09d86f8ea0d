"""Documents of programs as dataclasses: nothing is converted, and what is not of its form is named by its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctool import config
from proctool.reporting.record import StageRecord
from proctool.untrusted import Malformed, parse_json, typed

COUNT = st.integers(0, (1 << 63) - 1)


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    text: str
    inner: Mapping[str, Inner] = field(default_factory=dict)
    several: tuple[Inner, ...] = ()
    which: Literal["a", "b"] = "a"
    flag: bool = False
    maybe: str | None = None
    free: Any = None


@given(st.builds(StageRecord, steps=COUNT, tokens=COUNT, eval_samples=st.none() | COUNT))
def test_what_is_written_is_read_as_it_was(stage: StageRecord) -> None:
    assert typed(StageRecord, json.loads(json.dumps(config.plain(stage)))) == stage


def test_keys_of_a_later_version_are_left_out() -> None:
    found = typed(Outer, {"text": "x", "new": 1, "inner": {"a": {"count": 1, "new": []}}, "free": {"any": [1]}})
    assert found == Outer("x", {"a": Inner(1)}, free={"any": [1]})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"text": 3}, "text"),
        ({"text": None}, "text"),
        ({"inner": []}, "inner"),
        ({"inner": {"a": {}}}, "inner.a.count"),
        ({"inner": {"a": 1}}, "inner.a"),
        ({"several": {}}, "several"),
        ({"several": "text"}, "several"),
        ({"several": [{"count": 1.0}]}, "several.count"),
        ({"which": "c"}, "which"),
        ({"which": ["a"]}, "which"),
        ({"flag": 1}, "flag"),
        ({"flag": "true"}, "flag"),
        ({"maybe": 1}, "maybe"),
        *(({"inner": {"a": {"count": count}}}, "inner.a.count") for count in (True, -1, 1 << 63, "1", "2M", 1e3)),
        *(
            ({"inner": {"a": {"count": 1, "share": share}}}, "inner.a.share")
            for share in (True, "0.5", float("inf"), -float("inf"), float("nan"), 10**400)
        ),
    ],
)
def test_what_is_not_of_its_form_is_named_by_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(Malformed) as caught:
        typed(Outer, {"text": "x"} | change)
    assert str(caught.value) == place


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_document_that_is_no_object_is_malformed_as_a_whole(value: Any) -> None:
    with pytest.raises(Malformed, match="the whole"):
        typed(Outer, value)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "[NaN]", "[-Infinity]", '"\\ud800"', "[" * 100_000, "[1"])
def test_json_that_readers_would_take_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
