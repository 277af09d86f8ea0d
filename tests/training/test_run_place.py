"""A run folder belongs to its output, and a run that an earlier version kept elsewhere is found there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from proctool.errors import ArtifactError
from proctool.events import EndEvent, Event, NoteEvent
from proctool.reporting.measured import warmup_from_lineage
from proctool.reporting.metrics import MetricsLog, read_metrics
from proctool.training.options import WarmupOptions
from proctool.training.run_place import best_of, run_folder_of
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import Killed, contents, killed_at, options, without_clock

OLD = Path("runs/m")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()


def to(output: str, **changes: Any) -> WarmupOptions:
    """Options as a user gives them who names an output alone."""
    return dataclasses.replace(options(Path()), run_dir=None, output=Path(output), **changes)


def killed(asked: WarmupOptions) -> None:
    job = warmup_job(asked)
    job.listeners = [killed_at("train", 3)]
    with pytest.raises(Killed):
        job.run()


def run(asked: WarmupOptions) -> tuple[EndEvent, list[Event]]:
    said: list[Event] = []
    job = warmup_job(asked)
    job.listeners = [said.append]
    return job.run(), said


def notes(said: list[Event]) -> str:
    return "\n".join(each.note for each in said if isinstance(each, NoteEvent))


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("a/m.safetensors", "a/m.run"), ("m.safetensors", "m.run"), ("a/v1.5", "a/v1.5.run"), ("a/m", "a/m.run"),
        ("a/m.run", "a/m.run.run"), ("a/x.y.safetensors", "a/x.y.run"),
    ],
)  # fmt: skip
def test_the_folder_stands_beside_the_output(output: str, folder: str) -> None:
    assert warmup_job(to(output)).run_path == Path(folder)


def test_outputs_of_one_name_in_two_folders_train_and_resume(tmp_path: Path) -> None:
    asked = {name: to(f"{name}/m.safetensors", seed=seed) for seed, name in enumerate("ab")}
    for each in asked.values():
        killed(each)
    for name, each in asked.items():
        _, said = run(each)
        assert "resume" in [event.kind for event in said]
        whole = options(tmp_path, f"whole-{name}", seed=each.seed)
        warmup_job(whole).run()
        assert contents(each.output) == contents(whole.output)
        assert not list(Path(name, "m.run", "checkpoints").glob("step-*"))
    assert "already complete in a/m.run" in notes(run(asked["a"])[1])
    assert not Path("runs").exists()


def test_a_model_of_another_run_is_replaced_only_with_force() -> None:
    kept, elsewhere = contents(run(to("a/m.safetensors")) and Path("a/m.safetensors")), Path("elsewhere")
    other = dataclasses.replace(to("a/m.safetensors", seed=9), run_dir=elsewhere)
    job = warmup_job(other)
    assert "a/m.safetensors: has a model that another command wrote" in (job.outlook().reason or "")
    with pytest.raises(ArtifactError, match="choose another --output, or --force to replace it"):
        job.run()
    assert (contents(Path("a/m.safetensors")), elsewhere.exists()) == (kept, False)
    # Its own run, and the same command with another run folder, need no --force.
    assert "already complete in a/m.run" in notes(run(to("a/m.safetensors"))[1])
    assert run(dataclasses.replace(to("a/m.safetensors"), run_dir=Path("again")))[0].content == kept
    assert run(dataclasses.replace(other, force=True))[0].content == contents(Path("a/m.safetensors")) != kept
    with pytest.raises(ArtifactError, match="has a model that another command wrote"):
        run(to("a/m.safetensors"))  # it has ended, but its model was replaced
    save = to("b/m.safetensors", save="both")
    run(dataclasses.replace(save, output=best_of(save.output), save=None))
    with pytest.raises(ArtifactError, match="b/m-best"):
        run(save)


def test_best_weights_share_the_folder_of_the_last() -> None:
    end, _ = run(to("a/m.safetensors", save="both"))
    assert end.best_content == contents(best_of(Path("a/m.safetensors")))
    assert sorted(path.name for path in Path("a").iterdir()) == ["m-best.safetensors", "m.run", "m.safetensors"]
    best_of(Path("a/m.safetensors")).unlink()
    assert run(to("a/m.safetensors", save="both"))[0].best_content == end.best_content
    assert best_of(Path("a/m.safetensors")).exists()


def test_an_interrupted_run_of_an_earlier_version_goes_on_in_its_folder(tmp_path: Path) -> None:
    asked = to("a/m.safetensors")
    killed(dataclasses.replace(asked, run_dir=OLD))
    end, said = run(asked)
    assert "using runs/m, where an earlier version" in notes(said)
    assert "resume" in [event.kind for event in said]
    warmup_job(options(tmp_path, "whole")).run()
    assert contents(asked.output) == contents(tmp_path / "whole.safetensors")
    assert without_clock(event_lines(OLD)) == without_clock(event_lines(tmp_path / "whole"))
    again, said = run(asked)
    assert (again, "already complete in runs/m" in notes(said)) == (end, True)
    longer = dataclasses.replace(asked, steps=16, extend=True, schedule="constant")
    with pytest.raises(ArtifactError, match=r"a/m\.safetensors: has a model that another command wrote"):
        run(dataclasses.replace(longer, lr=0.5))
    assert run(longer)[0].step == 16
    assert not run_folder_of(asked.output).exists() or not list(run_folder_of(asked.output).glob("*.jsonl"))


@pytest.mark.parametrize(
    "changes", [{"lr": 0.5}, {"resume": "never"}, {"steps": 16}, {"output": Path("b/m.safetensors")}], ids=str
)
def test_a_folder_of_an_earlier_version_is_left_to_its_own_run(changes: dict[str, Any]) -> None:
    run(dataclasses.replace(to("a/m.safetensors"), run_dir=OLD))
    before = {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()}
    asked = dataclasses.replace(to("a/m.safetensors", force=True), **changes)
    assert Path(run(asked)[0].run_dir) == run_folder_of(asked.output)
    assert {path: path.read_bytes() for path in OLD.rglob("*") if path.is_file()} == before


def test_the_output_s_own_folder_comes_first() -> None:
    asked = to("a/m.safetensors")
    killed(asked)
    killed(dataclasses.replace(asked, run_dir=OLD))
    assert Path(run(asked)[0].run_dir) == Path("a/m.run")


def test_the_run_beside_a_donor_says_what_the_donor_cost() -> None:
    run(to("a/m.safetensors"))
    Path("p.run").mkdir()
    Path("p.run/config.json").write_text('{"init": "a/m.safetensors"}')
    spent = warmup_from_lineage(Path("p.run"), MetricsLog(Path("p.run")))
    assert spent.flops == read_metrics(Path("a/m.run")).start.flops > 0  # type: ignore[union-attr]


def test_a_corpus_around_the_output_is_kept_clean(proctool: Any, text: Path) -> None:
    common = ("pretrain", "--corpus", "text", "--context", 16, "--model", "2x2x16", "--steps", 2, "--batch-size", 4)
    said = proctool(*common, "--eval-samples", 4, "-o", "text/m.safetensors")
    assert said.code == 1
    assert said.line.startswith("proctool: text/m.run: its metrics.jsonl lies in the folder text")
    assert not (text / "m.run").exists()
    assert proctool(*common, "--eval-samples", 4, "-o", "text/m.safetensors", "--run-dir", "r").code == 0
