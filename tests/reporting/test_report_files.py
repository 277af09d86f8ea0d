from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from proctool.cli.report import Form, print_report
from proctool.errors import RunError
from proctool.events import from_json
from proctool.reporting.experiment import load_experiment
from proctool.reporting.measured import read_settings
from proctool.reporting.metrics import MetricsLog, read_metrics
from proctool.reporting.page import page, write_page
from proctool.reporting.record import RECORD
from proctool.reporting.render import markdown
from proctool.reporting.report import build_report
from proctool.reporting.run_folders import load_runs
from proctool.reporting.sheets import summary
from tests.reporting.made import HOSTILE, Made, training, two_arms, write_events


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return two_arms(tmp_path / "tiny")


def test_an_experiment_is_compared_as_a_whole(experiment: Path) -> None:
    report = build_report(load_experiment(experiment))
    cold, warm = report.results
    assert (cold.arm, warm.arm, warm.seeds) == ("cold", HOSTILE, (0, 1))
    assert warm.saved is not None
    assert warm.saved.value == pytest.approx(0.3, abs=0.02)
    assert warm.warmup_tokens == 100_000
    assert warm.saved_total is not None
    assert warm.saved_total.value == pytest.approx(warm.saved.value - 1)
    assert any(said.startswith(f"haystack: cold ends at 30.0 %, {HOSTILE} at 90.5 %") for said in report.verdicts)
    table = summary(report)
    assert table.heads[-1] == "haystack accuracy"
    assert [cells[0] for cells in table.rows] == ["cold", HOSTILE]
    assert json.loads(json.dumps(report.as_json()))["arms"][1]["saved"]["value"] == warm.saved.value


def test_unfinished_runs_are_left_out_and_named(experiment: Path) -> None:
    write_events(experiment / "hot1", *training(end=False))
    report = build_report(load_experiment(experiment))
    assert report.experiment.missing == ("hot1",)
    assert report.results[1].seeds == (0,)
    assert "are not finished and are left out" in page(report)
    for seed in (0, 1):
        write_events(experiment / f"cold{seed}", *training(end=False))
    assert build_report(load_experiment(experiment)).results == []


@pytest.mark.parametrize("smoke", [True, False, None])
def test_a_smoke_run_is_said_before_everything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], smoke: bool | None
) -> None:
    """Records of earlier versions do not have the key."""
    folder = two_arms(tmp_path / "tiny", **({} if smoke is None else {"smoke": smoke}))
    report = build_report(load_experiment(folder))
    said = "smoke run: a few tiny steps; its numbers mean nothing"
    print_report(report, Form.TERMINAL)
    shown = capsys.readouterr().out
    assert (shown.splitlines()[0] == said) is bool(smoke)
    for place in (shown, markdown(report), page(report)):  # and no claim is made of such numbers
        assert ("run the recipe without --smoke" in place, "tokens to reach" in place) == (bool(smoke), not smoke)
    assert markdown(report).startswith(f"**{said}**") is bool(smoke)
    before, _, after = page(report).partition('<section class="verdict"')
    assert ((said in before) is bool(smoke), said in after) == (True, False)
    assert report.as_json()["smoke"] is bool(smoke)


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)


def test_the_page_stands_alone_and_escapes(experiment: Path, tmp_path: Path) -> None:
    path = write_page(build_report(load_experiment(experiment)), tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    parsed = Elements()
    parsed.feed(text)
    assert parsed._open == []
    assert len(parsed.scripts) == 2
    data = json.loads(parsed.scripts[0])
    assert data["arms"] == ["cold", HOSTILE]
    assert [len(arm["runs"]) for arm in data["loss"]["arms"]] == [2, 2]
    assert data["diagnostics"][0]["chance"] == 0.3
    assert not {"b"} & {tag for tag, attributes in parsed.tags if tag == "b" and attributes}
    assert "<b>it</b>" not in text
    assert "<i>" not in text.replace(parsed.scripts[0], "")
    assert "alert(1)</script>" not in text
    for tag, attributes in parsed.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:,") == "data:,", (tag, attributes)
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not outside
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")


def test_run_folders_are_compared_by_name_and_seed(tmp_path: Path) -> None:
    experiment = Made(tmp_path)
    for seed in (0, 1):
        write_events(tmp_path / f"a{seed}", *training(seed=seed))
        experiment.measured("set", seed, experiment.stage(f"0123-s{seed}", None, training(0.7, seed=seed)), {})
    experiment.write(baseline="set")
    named = [f"cold={tmp_path}/a0", f"cold={tmp_path}/a1"]
    named += [str(tmp_path / f"0123-s{seed}") for seed in (1, 0)]  # known by their experiment's record
    report = build_report(load_runs(named, None))
    assert report.baseline == "cold"
    assert report.results[1].arm == "set"
    assert report.results[1].seeds == (0, 1)
    assert report.results[1].saved.value == pytest.approx(0.3, abs=0.02)  # type: ignore[union-attr]
    turned = build_report(load_runs(named, "set"))
    assert turned.results[1].arm == "cold"
    assert turned.results[1].reached == 0
    assert "Runs compared with cold" in page(report)


@pytest.mark.parametrize(
    ("named", "baseline", "said"),
    [
        (["nowhere"], None, "no such run folder"),
        (["empty"], None, "give the folder of a run"),
        (["foreign"], None, "has no events of a run"),
        (["half"], None, "not complete (step 100 of 100)"),
        (["a", "b"], "c", 'no run is named "c"'),
        (["x=a", "x=b"], None, "already has a run with seed 0"),
        (["a", "later"], None, "no common seed"),
    ],
)
def test_runs_that_cannot_be_compared(tmp_path: Path, named: list[str], baseline: str | None, said: str) -> None:
    for name in ("a", "b"):
        write_events(tmp_path / name, *training(seed=0))
    write_events(tmp_path / "later", *training(seed=5))
    write_events(tmp_path / "half", *training(end=False))
    write_events(tmp_path / "foreign", tail="hello\n")
    (tmp_path / "empty").mkdir()
    placed = [re.sub(r"(\w+)$", lambda found: f"{tmp_path}/{found[1]}", each) for each in named]
    with pytest.raises(RunError, match=re.escape(said)):
        load_runs(placed, baseline)


def test_a_missing_baseline_is_said(experiment: Path) -> None:
    for name in ("cold0", "cold1", "hay-cold0", "hay-cold1"):
        write_events(experiment / name, *training(end=False))
    report = build_report(load_experiment(experiment))
    assert report.results == []
    assert "The baseline, cold, has no finished run yet." in report.notes


def test_a_run_is_not_an_experiment(tmp_path: Path) -> None:
    write_events(tmp_path / "run", *training())
    with pytest.raises(RunError, match="the folder of one run"):
        load_experiment(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"experiment\.json is missing"):
        load_experiment(tmp_path / "empty")


def test_an_experiment_and_diagnostics_can_be_compared(experiment: Path, tmp_path: Path) -> None:
    whole = load_runs([str(experiment)], None)
    assert whole.baseline == "cold"
    with pytest.raises(RunError, match='no arm is named "warm"'):
        load_runs([str(experiment)], "warm")
    for name, accuracy in (("low", 0.3), ("high", 0.9)):
        write_events(tmp_path / name, *training(accuracy=accuracy, seed=0, command="eval haystack"))
    report = build_report(load_runs([f"cold={tmp_path}/low", f"set={tmp_path}/high"], None))
    assert [each.accuracy.value for each in report.diagnostics[0]] == [0.3, 0.9]
    write_events(tmp_path / "warm", *training(command="warmup"))
    with pytest.raises(RunError, match="a run of `proctool warmup`"):
        load_runs([str(tmp_path / "warm")], None)


def test_a_donor_that_is_gone_leaves_its_cost_unknown(tmp_path: Path) -> None:
    write_events(tmp_path / "cold", *training(seed=0))
    folder = write_events(tmp_path / "set", *training(0.7, seed=0))
    (folder / "config.json").write_text(json.dumps({"seed": 0, "init": str(tmp_path / "gone.safetensors")}))
    report = build_report(load_runs([str(tmp_path / "cold"), str(folder)], None))
    assert report.results[1].saved is not None
    assert report.results[1].saved_total is None
    assert any("the cost of its warm-up is unknown" in note for note in report.notes)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_settings_that_cannot_be_read_are_as_none(text: str, tmp_path: Path) -> None:
    folder = write_events(tmp_path / "set", *training(0.7, seed=0))
    (folder / "config.json").write_text(text)
    assert read_settings(folder) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', "[" * 100_000])
def test_a_damaged_record_is_a_clear_error(experiment: Path, text: str) -> None:
    (experiment / RECORD).write_text(text)
    with pytest.raises(RunError, match=r"experiment\.json: damaged"):
        load_experiment(experiment)


def test_metrics_are_followed_as_they_grow(tmp_path: Path) -> None:
    events = training()
    log = MetricsLog(tmp_path)
    assert not log.update()
    text = "".join(json.dumps(event) + "\n" for event in events)
    whole = write_events(tmp_path / "whole", *events)
    path = tmp_path / "metrics.jsonl"
    for cut in range(0, len(text) + 50, 50):  # lines arrive in pieces
        with path.open("a") as file:
            file.write(text[cut : cut + 50])
        log.update()
    assert log.evals == read_metrics(whole).evals
    assert log.end == from_json(events[-1])
    assert (log.steps, log.step, log.tokens) == (100, 100, 100_000)


def test_steps_done_again_after_an_interruption_count_once(tmp_path: Path) -> None:
    first, again = training(), training(0.5)
    write_events(tmp_path, *first[:9], {"event": "resume", "step": 50}, *again[6:], tail="")
    tokens, loss = read_metrics(tmp_path).measured("loss")
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 11
    assert loss[4] == first[5]["loss"]
    assert loss[6] == again[7]["loss"]


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    events = training()
    whole = "".join(json.dumps(event) + "\n" for event in events)
    torn = whole.replace('{"event": "end"', '{"event": "tra\n{"event": "end"')
    (tmp_path / "metrics.jsonl").write_text(torn)
    log = read_metrics(tmp_path)
    assert log.end is not None
    assert len(log.evals) == 11


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    write_events(tmp_path, *training()[:8])
    log = read_metrics(tmp_path)
    fresh = tmp_path / "fresh"
    write_events(fresh, *training(0.5))
    (fresh / "metrics.jsonl").replace(tmp_path / "metrics.jsonl")
    log.update()
    assert log.evals == [from_json(event) for event in training(0.5) if event["event"] == "eval"]
