from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from proctool import config, units
from proctool.errors import OptionError


@dataclass(frozen=True)
class Inner:
    lr: float = 1e-3


@dataclass(frozen=True)
class Outer:
    steps: int
    """Steps to take."""
    kind: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    names: tuple[str, ...] = ()
    folder: Path | None = None
    quick: bool = False


@pytest.mark.parametrize(
    ("text", "value"), [("2M", 2_000_000), ("1.5B", 1_500_000_000), ("20_000", 20_000), ("1e3", 1000), ("3k", 3000)]
)
def test_counts_are_written_as_people_write_them(text: str, value: int) -> None:
    assert units.parse_count(text) == value


@pytest.mark.parametrize("text", ["", "M", "two", "1.5", "nan", "inf", "1e400", "0x10"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        units.parse_count(text)


def test_values_take_their_fields_types() -> None:
    built = config.build(
        Outer, {"steps": "2k", "inner": {"lr": "5e-4"}, "names": ["x"], "folder": "here", "quick": "true"}, "f"
    )
    assert built == Outer(2000, "a", Inner(5e-4), ("x",), Path("here"), True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 1, "stpes": 2}, 'unknown option "stpes" (did you mean "steps"?)'),
        ({}, 'option "steps" is missing'),
        ({"steps": "many"}, "f.steps: 'many' is not a number"),
        ({"steps": [1]}, "f.steps: expected a single whole number"),
        ({"steps": True}, "f.steps: expected a single whole number"),
        ({"steps": 1, "kind": "c"}, "f.kind: 'c' is not one of the choices (known: a, b)"),
        ({"steps": 1, "inner": {"rl": 1}}, 'f.inner: unknown option "rl"'),
        ({"steps": 1, "inner": 3}, "f.inner: expected a mapping"),
        ({"steps": 1, "quick": 1}, "f.quick: expected true or false"),
    ],
)
def test_errors_name_the_place(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        config.build(Outer, values, "f")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: [", "- 1", "a: 1\nb: {c: 1, c: 2}", "!!python/object/apply:os.system ['true']", "a: 'x"]
)
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"bad\.yaml"):
        config.load_yaml(path)


def test_field_help_is_the_string_under_the_field() -> None:
    assert config.field_help(Outer) == {"steps": "Steps to take."}


@pytest.mark.parametrize(
    ("loss", "wanted"), [(0.0, 1.0), (1.0, math.e), (1e4, None), (math.nan, None), (math.inf, None)]
)
def test_perplexity_is_a_number_or_none(loss: float, wanted: float | None) -> None:
    assert units.to_perplexity(loss) == wanted


@pytest.mark.parametrize(
    ("written", "seeds"),
    [("0-2", (0, 1, 2)), (["0-1", "5"], (0, 1, 5)), ("7-7", (7,)), ([3, 4], (3, 4)), ("3", (3,)), ("0,2-3", (0, 2, 3))],
)
def test_ranges_of_whole_numbers(written: object, seeds: tuple[int, ...]) -> None:
    assert config.convert(written, tuple[int, ...], "seeds") == seeds
    if isinstance(written, str):
        assert config.convert(written, tuple[str, ...], "names") == (written,)


@pytest.mark.parametrize("written", ["2-0", "0-10000", "0-", "1-2-3", "0..2"])
def test_what_is_no_range_is_refused(written: str) -> None:
    with pytest.raises(OptionError, match=r"^seeds: .*; write 0-2 or 0,1,2$"):
        config.convert(written, tuple[int, ...], "seeds")
