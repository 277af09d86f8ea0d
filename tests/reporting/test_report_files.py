from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import RunError
from proctool.reporting.experiment import RECORD, load_experiment, load_runs
from proctool.reporting.figures import figures_available, write_figures
from proctool.reporting.metrics import MetricsLog, read_metrics
from proctool.reporting.page import page, write_page
from proctool.reporting.report import build_report
from proctool.reporting.table import markdown, rows, terminal_table

HOSTILE = "</script><i>set</i>"
"""An arm's name (a recipe would refuse it, a folder's name would not)."""


def write_events(folder: Path, *events: dict[str, Any], tail: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    return folder


def training(stretch: float = 1.0, end: bool = True, accuracy: float = 0.5, **start: Any) -> list[dict[str, Any]]:
    """The events of a run that sees 1000 tokens a step, whose losses come `stretch` times as early."""
    events: list[dict[str, Any]] = [
        {"event": "start", "steps": 100, "tokens_per_step": 1000, "parameters": 1000, **start}
    ]
    for step in range(0, 101, 10):
        loss = 2 + 3 / (1 + step / 10 / stretch)
        tokens = step * 1000
        events.append(
            {"event": "eval", "step": step, "tokens": tokens, "split": "validation", "loss": loss, "accuracy": accuracy}
        )
    if end:
        events.append({"event": "end", "step": 100, "tokens": 100_000, "seconds": 1.0, "content": "c0ffee" * 10})
    return events


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment of two arms and two seeds, as `proctool run` leaves it, with a hostile title."""
    root = tmp_path / "tiny"
    stages: dict[str, Any] = {}
    arms: dict[str, Any] = {"cold": {}, HOSTILE: {}}

    def stage(key: str, donor: str | None, events: list[dict[str, Any]]) -> str:
        write_events(root / key, *events)
        command = ["proctool", "pretrain", "--run-dir", key]
        stages[key] = {"name": key, "folder": key, "command": command, "donor": donor, "steps": 100, "tokens": 100_000}
        stages[key]["eval_samples"] = 1000
        return key

    for seed in (0, 1):
        warm = stage(f"warm{seed}", None, training())
        cold, hot = stage(f"cold{seed}", None, training()), stage(f"hot{seed}", warm, training(0.7 + 0.01 * seed))
        a = stage(f"hay-cold{seed}", None, training(accuracy=0.3))
        b = stage(f"hay-hot{seed}", warm, training(accuracy=0.9 + 0.01 * seed))
        arms["cold"][str(seed)] = {"pretrain": cold, "diagnostics": {"haystack": a}}
        arms[HOSTILE][str(seed)] = {"pretrain": hot, "diagnostics": {"haystack": b}}
    record = {
        "format": 1, "name": "tiny", "title": "Does </script><b>it</b> help?", "baseline": "cold", "seeds": [0, 1],
        "recipe": {"model": "2x2x16", "corpus": "python"}, "source": "name: tiny # <script>alert(1)</script>\n",
        "command": "proctool run tiny.yaml", "environment": {"python": "3.11"}, "chance": {"haystack": 0.3},
        "stages": stages, "arms": arms,
    }  # fmt: skip
    (root / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return root


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
    heads, body = rows(report)
    assert heads[-1] == "haystack accuracy"
    assert [cells[0] for cells in body] == ["cold", HOSTILE]
    assert json.loads(json.dumps(report.as_json()))["arms"][1]["saved"]["value"] == warm.saved.value


def test_unfinished_runs_are_left_out_and_named(experiment: Path) -> None:
    write_events(experiment / "hot1", *training(end=False))
    report = build_report(load_experiment(experiment))
    assert report.experiment.missing == ("hot1",)
    assert report.results[1].seeds == (0,)
    assert "Not complete" in page(report)
    for seed in (0, 1):
        write_events(experiment / f"cold{seed}", *training(end=False))
    assert build_report(load_experiment(experiment)).results == []


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


def test_tables_say_the_same(experiment: Path) -> None:
    report = build_report(load_experiment(experiment))
    lines = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 2
    assert terminal_table(report).row_count == 2


@pytest.mark.skipif(not figures_available(), reason="matplotlib is an extra")
def test_figures(experiment: Path, tmp_path: Path) -> None:
    written = write_figures(build_report(load_experiment(experiment)), tmp_path / "figures")
    assert [path.name for path in written] == ["loss.png", "savings.png", "haystack.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_run_folders_are_compared_by_name_and_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_events(tmp_path / f"a{seed}", *training(seed=seed))
        write_events(tmp_path / f"pretrain-set-s{seed}-0123abcd", *training(0.7, seed=seed))
    named = [f"cold={tmp_path}/a0", f"cold={tmp_path}/a1"]
    named += [str(tmp_path / f"pretrain-set-s{seed}-0123abcd") for seed in (1, 0)]
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
        (["empty"], None, "is this the folder of a run?"),
        (["foreign"], None, "holds no run's events"),
        (["half"], None, "not complete (step 100 of 100)"),
        (["a", "b"], "c", 'no run is named "c"'),
        (["x=a", "x=b"], None, "already has a run with seed 0"),
        (["a", "later"], None, "no seed in common"),
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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}'])
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
    assert log.end == events[-1]
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
    assert log.evals == [event for event in training(0.5) if event["event"] == "eval"]
