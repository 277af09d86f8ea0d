"""YAML as users write it: YAML 1.2's core schema, and text where text is meant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proctool import config
from proctool.errors import OptionError
from proctool.recipe import build_recipe, load_recipe
from proctool.untrusted import parse_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("24:00:00", "24:00:00"), ("16:00", "16:00"), ("1_000", "1_000"), ("2026-11-26", "2026-11-26"), ("=", "="),
        *((word, word) for word in ("no", "off", "yes", "On", "y", "N", "tRue", "1:2", "0b1", "0o8", "-0x1", ".")),
        ("true", True), ("False", False), ("TRUE", True), ("~", None), ("Null", None), ("", None),
        ("0100", 100), ("+3", 3), ("-07", -7), ("0o17", 15), ("0x1F", 31),
        ("1e-3", 1e-3), ("12e03", 12e3), (".5", 0.5), ("5.", 5.0), ("1.10", 1.1), ("-.inf", -math.inf),
        ("'no'", "no"), ("!!str 010", "010"), ("!!int 010", 10), ("!!float 3", 3.0),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(written: str, value: Any) -> None:
    found = parse_yaml(f"a: {written}\r\n", "f")["a"]
    assert found == value
    assert isinstance(found, type(value))


def test_not_a_number() -> None:
    assert math.isnan(parse_yaml(".NaN", "f"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n'a': 2", '"a" is given twice'),
        ("1: a\n'1': b", '"1" is given twice'),
        ("? [1]\n: 2", "a key must be text"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("a:\n\tb: 1", "line 2, column 1: found character '\\t'"),
        ("!!timestamp 2026-11-26", "tag"),
        ("!!binary aGk=", "tag"),
        ("!!set {a}", "tag"),
        ("!!int x", "not valid YAML"),
        ("!!bool yes", "is not a valid bool"),
        ("!!null x", "is not a valid null"),
        ("<<: 3", "merging"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_yaml(text, "f")
    assert said in str(caught.value)


def test_anchors_and_merge_keys_share_options() -> None:
    text = "\ufeffx: &x {p: 1, q: 1}\ny: {<<: *x, q: 2}\nz: {q: 3, <<: [*x, {r: 4}]}\n"
    found = parse_yaml(text, "f")
    assert found["y"] == {"p": 1, "q": 2}
    assert found["z"] == {"p": 1, "q": 3, "r": 4}


@dataclass(frozen=True)
class Options:
    count: int = 0
    rate: float = 0.0
    text: str = ""
    texts: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    path: Path = Path()
    flag: bool = False


@pytest.mark.parametrize("written", ["0123", "010", "1.10", "1e3", "24:00:00", "no", "0x1F", "+3", "1_000"])
def test_text_is_kept_as_written_where_text_is_meant(tmp_path: Path, written: str) -> None:
    path = tmp_path / "o.yaml"
    path.write_text(f"text: {written}\ntexts: [{written}]\nnamed: {{{written}: {written}}}\npath: {written}\n")
    built = config.build(Options, config.load_yaml(path), "f")
    assert built == Options(text=written, texts=(written,), named={written: written}, path=Path(written))


@pytest.mark.parametrize(
    ("written", "count"), [("0100", 100), ("0o10", 8), ("1_000", 1000), ("2k", 2000), ("1e3", 1000)]
)
def test_a_number_is_a_number_where_one_is_meant(tmp_path: Path, written: str, count: int) -> None:
    path = tmp_path / "o.yaml"
    path.write_text(f"count: {written}\nrate: {written}\nflag: off\n")
    assert config.build(Options, config.load_yaml(path), "f") == Options(count, float(count))


@pytest.mark.parametrize("written", ["24:00:00", "2026-11-26", ".inf", ".nan", "no", "true", "~", "1:30", "1.5"])
def test_what_is_no_number_is_refused_by_name(written: str) -> None:
    with pytest.raises(OptionError, match=r"^f\.count: "):
        config.build(Options, parse_yaml(f"count: {written}", "f"), "f")


def test_names_of_arms_stay(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    arms = ("no", "off", "1.10", "0100", "null", "true", "2026-11-26")
    path.write_text(
        "name: 1.10\nmodel: 2x4x16\ncorpus: python\npretrain: {steps: 0100}\nbaseline: 1.10\narms:\n"
        + "".join(f"  {arm}:\n" for arm in arms)
    )
    recipe = load_recipe(path)
    assert (recipe.name, recipe.baseline, tuple(recipe.arms)) == ("1.10", "1.10", arms)
    assert recipe.pretrain == {"steps": 100}


_TWICE = {"batch_size": 4, "batch-size": 8}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"warmup": _TWICE}, "warmup"),
        ({"pretrain": _TWICE}, "pretrain"),
        ({"finetune": {"f": {"corpus": "python"} | _TWICE}}, "finetune.f"),
        ({"diagnostics": {"haystack": _TWICE}}, "diagnostics.haystack"),
        ({"diagnostics": {"haystack": {"warmup": _TWICE}}}, "diagnostics.haystack.warmup"),
        ({"arms": {"a": {"warmup": {"task": "set"} | _TWICE}}}, "arms.a.warmup"),
        ({"arms": {"a": {"pretrain": _TWICE}}}, "arms.a.pretrain"),
        ({"arms": {"a": {"donors": {"mlp": {"task": "set"} | _TWICE}}}}, "arms.a.donors.mlp"),
        ({"launch": {"sbatch": {}}, "arms": {"a": {"treatment": {"match_scale": [], "match-scale": []}}}}, "treatment"),
    ],
)
def test_an_option_in_both_spellings_is_given_twice(changes: dict[str, Any], where: str) -> None:
    values = {"name": "a", "model": "2x2x16", "corpus": "python", "arms": {"a": {}}} | changes
    with pytest.raises(OptionError, match="given twice") as caught:
        build_recipe(values)
    assert where in str(caught.value)


def test_config_files_and_set_read_yaml_alike(proctool: Callable[..., Any]) -> None:
    Path("c.yaml").write_text("batch_size: 010\nlr: 1e-3\nmodel: 2x4x16\ntask: [set:inputs=4]\nsteps: 0o12\n")
    said = proctool("warmup", "--config", "c.yaml", "--dry-run", "--json")
    assert '"steps": 10' in said.out, said.err
    assert '"tokens": 900' in said.out
    said = proctool(
        "warmup", "--config", "c.yaml", "--set", "steps=0x14", "--set", "batch-size=20", "--dry-run", "--json"
    )
    assert '"tokens": 3600' in said.out, said.err
    Path("c.yaml").write_text("batch_size: 4\nbatch-size: 8\n")
    said = proctool("warmup", "--config", "c.yaml", "--dry-run")
    assert said.code == 1
    assert 'c.yaml: option "batch_size" is given twice' in said.line
