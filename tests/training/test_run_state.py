"""One rule says how far a run is; resuming, stages and reports follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proctool import artifact
from proctool.experiment.stage import Label, Stage
from proctool.reporting.metrics import MetricsLog
from proctool.training.run import RunFolder
from proctool.training.warmup import warmup_job
from tests.training.runs import options

START = {"event": "start", "steps": 2}
EVAL = {"event": "eval", "step": 1, "tokens": 8}
EXTEND = {"event": "extend", "step": 2, "steps": 4}
ONCE = {"extended_from": [{"step": 2, "steps": 2, "content": "x"}]}


def end(content: str | None = "of m", **more: Any) -> dict[str, Any]:
    return {"event": "end", "step": 2, "tokens": 16} | ({"content": content} if content else {}) | more


STATES = {
    "no folder": (None, {}, "missing", "missing"),
    "no event": ([], {}, "missing", "missing"),
    "an event that a kill tore": (['{"event": "sta'], {}, "missing", "missing"),
    "begun": ([START], {}, "started", "started"),
    "under way": ([START, EVAL], {}, "started", "started"),
    "ended": ([START, EVAL, end()], {}, "done", "done"),
    "ended, weights of another run": ([START, end("of another")], {}, "started", "done"),
    "ended without weights": ([START, end(None)], {}, "started", "done"),
    "begun again": ([START, end(), START], {}, "started", "started"),
    "ended, best weights too": ([START, end(best_content="of best")], {}, "done", "done"),
    "ended, best weights of another run": ([START, end(best_content="of m")], {}, "started", "done"),
    "about to be extended": ([START, end()], ONCE, "started", "started"),
    "extension begun": ([START, end(), EXTEND], ONCE, "started", "started"),
    "extension ended": ([START, end(), EXTEND, end(extensions=1)], ONCE, "done", "done"),
}


@pytest.mark.parametrize("case", STATES)
def test_how_far_a_run_is(tmp_path: Path, case: str) -> None:
    """With its output, and by its metrics alone."""
    events, settings, with_output, alone = STATES[case]
    folder, output = tmp_path / "m.run", tmp_path / "m.safetensors"
    contents = {}
    for path in (output, tmp_path / "m-best.safetensors"):
        made = artifact.write(path, {"w": np.full(len(path.name), 1.0)}, kind="model", metadata={})
        contents["of " + path.stem.removeprefix("m-")] = made.content
    if events is not None:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"proctool_run": 1, **settings}))
        lines = [each if isinstance(each, str) else json.dumps(_named(each, contents)) for each in events]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    log = MetricsLog(folder)
    log.update()
    assert (log.state(output), log.state()) == (with_output, alone)
    run = RunFolder(folder, {}, writer=False)
    assert ((run.last_end(output) is not None), (run.last_end() is not None)) == (
        with_output == "done",
        alone == "done",
    )
    for damage in (lambda: output.write_bytes(output.read_bytes()[:40]), output.unlink):
        damage()
        assert log.state(output) == ("started" if with_output == "done" else with_output)
        assert log.state() == alone


def _named(event: dict[str, Any], contents: dict[str, str]) -> dict[str, Any]:
    return {key: contents.get(value, value) if key.endswith("content") else value for key, value in event.items()}


def test_a_file_alone_is_done_where_nothing_trains(tmp_path: Path) -> None:
    log, output = MetricsLog(tmp_path), tmp_path / "start.safetensors"
    assert log.state(output, trains=False) == "missing"
    output.write_bytes(b"torn")
    assert log.state(output, trains=False) == "missing"
    output.unlink()
    artifact.write(output, {}, kind="model", metadata={})
    assert log.state(output, trains=False) == "done"
    assert log.state(output) == "missing"


def test_a_stage_is_done_exactly_where_its_command_has_nothing_to_do(tmp_path: Path) -> None:
    asked = options(tmp_path)
    stage = Stage(Label("warmup"), ("warmup",), asked, {}, "run.safetensors", 11)
    folder = stage.folder(tmp_path)
    at = {"run_dir": folder, "output": folder / "run.safetensors"}
    assert stage.state(tmp_path) == "missing"
    folder.mkdir()

    def works() -> bool:
        said = []
        job = warmup_job(options(tmp_path, **at))
        job.listeners = [lambda event: said.append(event.kind)]
        job.run()
        return "start" in said or "resume" in said

    for damage in (
        lambda: None,
        at["output"].unlink,
        lambda: at["output"].write_bytes(at["output"].read_bytes()[:-4]),
    ):
        damage()
        assert stage.state(tmp_path) != "done"
        assert works()
        assert stage.state(tmp_path) == "done"
        assert not works()
