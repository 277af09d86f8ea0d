"""A short fuzz of every way in; `make fuzz` is the long one. And what it found, each as a case of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctool.corpora import formats
from proctool.corpora.subwords import load_tokenizer
from proctool.errors import CorpusError, OptionError, RunError
from proctool.events import EvalEvent
from proctool.procedural.mixture import parse_tasks
from proctool.recipe import load_recipe
from proctool.reporting.experiment import load_experiment
from proctool.reporting.metrics import MetricsLog, _put
from tests.conftest import Said
from tests.fuzz import hostile
from tests.fuzz.surfaces import SURFACES, verdict

_ROOT = Path(__file__).parents[2]
STAGE = {"name": "a", "folder": "a", "command": [], "donor": None, "tokens": 1}


@pytest.mark.parametrize("name", [name for name in SURFACES if name != "arguments"])  # it replaces the commands
def test_damaged_input_is_taken_or_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    with hostile.within(tmp_path):
        surface = SURFACES[name](tmp_path / "work")
        random = Random(f"tests/{name}")
        seen = {verdict(surface, surface.draw(random)) for _ in range(60)}
    assert seen <= {"taken", "refused"}
    assert not list(tmp_path.rglob(hostile.MARK))


@pytest.mark.slow
def test_damaged_command_lines_too() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--surface", "arguments", "--inputs", "300", "--seed", "5"]
    found = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


# -- findings --


def test_parquet_text_that_is_not_utf8_is_damage(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    spoilt = pyarrow.array([b"\xed\xa0", b"a"]).view(pyarrow.utf8())
    pyarrow.parquet.write_table(pyarrow.table({"text": spoilt}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="damaged"):
        list(formats.read(str(tmp_path / "a.parquet"), 0, None, "text"))


def test_parquet_names_that_are_not_utf8_are_damage(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "other": ["b"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"other", b"oth\xfer"))
    with pytest.raises(CorpusError, match="not a complete parquet file"):
        list(formats.read(str(path), 0, None, "text"))


def test_a_vocabulary_beyond_counting_is_refused() -> None:
    with pytest.raises(OptionError, match="vocabulary may have at most"):
        parse_tasks("nca:grid=12,states=2M,length=1024")


def test_options_of_a_recipe_that_are_numbers_are_refused(tmp_path: Path) -> None:
    warmup = "diagnostics: {haystack: {pairs: 4, warmup: {steps: 1, 3: 1}}}"
    (tmp_path / "a.yaml").write_text(f"name: b\nmodel: 1x1x4\n{warmup}\narms: {{cold: {{}}}}\n")
    with pytest.raises(OptionError, match=r"a\.yaml: diagnostics\.haystack"):
        load_recipe(tmp_path / "a.yaml")


def test_long_names_of_fields_are_cut(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"x" * 5000: 1}))
    (found,) = formats.read(str(tmp_path / "a.jsonl"), 0, None, "text")
    assert found.problem is not None
    assert len(found.problem) < 1000


def test_a_tokenizer_that_cannot_encode_the_text_says_so(tmp_path: Path) -> None:
    model = {"type": "Unigram", "unk_id": None, "vocab": [["<eos>", 0.0], ["a", -1.0]], "byte_fallback": False}
    made = {"version": "1.0", "added_tokens": [], "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made))
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert [ids.tolist() for ids in tokenizer.encode_batch([b"aa"])] == [[1, 1]]
    with pytest.raises(CorpusError, match="cannot encode the text"):
        tokenizer.encode_batch([b"ab"])


def test_tensors_whose_origins_have_no_known_form_are_shown_all_the_same(
    proctool: Callable[..., Said], tmp_path: Path
) -> None:
    hostile.sealed(tmp_path / "a.safetensors", {"x": ("U8", [1], b"a")}, metadata={"origins": {"x": {"how": "y"}}})
    said = proctool("inspect", "a.safetensors", "--tensors")
    assert said.code == 0
    assert "U8    [1]" in said.out


@pytest.mark.parametrize(
    "event",
    [
        '{"event": "start", "seed": []}',
        '{"event": "start", "carried": [{"component": "mlp"}]}',
        '{"event": "train", "loss": 1.0}',
        '{"event": "eval", "step": 1e400, "tokens": 1, "loss": 1.0}',
        '{"event": "eval", "step": "1", "tokens": 1, "loss": 1.0}',
        '{"event": "eval", "step": 1, "tokens": true, "loss": 1.0}',
        '{"event": "end", "flops": {}}',
        '{"event": "end", "seconds": -1}',
        '{"event": "end", "content": []}',
        '{"event": "end", "tokens": ' + "9" * 400 + "}",
    ],
)
def test_metrics_that_no_run_writes_are_refused(event: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(event + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl: an? \w+ event with"):
        MetricsLog(tmp_path).update()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"baseline": 3}, "baseline"),
        ({"baseline": "z", "arms": {"x": {}}}, "baseline: there is no arm z"),
        ({"chance": {"haystack": 1e400}}, "chance"),
        ({"stages": {"a": {}}}, r"stages\.a\.name"),
        ({"stages": {"a": STAGE | {"folder": "../elsewhere"}}}, r"stages\.a\.folder"),
        ({"stages": {"a": STAGE | {"donor": "b"}}}, r"stages\.a"),
        ({"stages": {"a": STAGE}, "arms": {"x": {"0": {"pretrain": "b", "diagnostics": {}}}}}, r"arms\.x\.0"),
        ({"stages": {"a": STAGE | {"folder": "\ud800"}}}, "the whole"),
        ({"stages": {"a": STAGE}, "arms": {"x": {"-1": {"pretrain": "a", "diagnostics": {}}}}}, "arms"),
    ],
)
def test_a_record_of_another_form_is_refused(change: dict[str, object], where: str, tmp_path: Path) -> None:
    good = {"format": 1, "baseline": "x", "stages": {}, "arms": {}}
    (tmp_path / "experiment.json").write_text(json.dumps(good))
    assert load_experiment(tmp_path).runs == {}
    (tmp_path / "experiment.json").write_text(json.dumps(good | change))
    with pytest.raises(
        RunError,
        match=rf"experiment\.json: damaged, or from another version of proctool \(({where}|not valid JSON)\)",
    ):
        load_experiment(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["validation", "test"]))))
def test_of_each_step_the_last_writing_counts(written: list[tuple[int, str]]) -> None:
    events: list[EvalEvent] = []
    for number, (step, split) in enumerate(written):
        _put(events, EvalEvent(step=step, split=split, metadata={"number": number}))
    kept = [
        number
        for number, (step, split) in enumerate(written)
        if not any(later <= step and of == split for later, of in written[number + 1 :])
    ]
    assert sorted(event.metadata["number"] for event in events) == kept
    assert [event.step for event in events] == sorted(step for step, _ in (written[number] for number in kept))
