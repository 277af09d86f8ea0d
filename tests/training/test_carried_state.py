"""The optimiser's state of a warm-up, carried over with its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from proctool import artifact
from proctool.errors import ArtifactError, OptionError, ProctoolError, RunError
from proctool.events import StartEvent, read_events
from proctool.models.components import components
from proctool.models.saved import open_model
from proctool.recipe import build_recipe
from proctool.recipe.forms import arms_of
from proctool.reporting.costs import Reset, resets_of
from proctool.reporting.measured import start_of, warmup_of
from proctool.reporting.metrics import read_metrics
from proctool.reporting.record import ExperimentRecord
from proctool.training.job import Job
from proctool.training.options import PretrainOptions
from proctool.training.pretrain import pretrain_job
from proctool.training.run_form import changed_settings, read_form
from proctool.training.warmup import warmup_job
from tests.models.folders import write_folder
from tests.training.runs import TASK, Killed, contents, killed_at, options

STEPS = 4


def warmed(folder: Path, name: str = "warm", **changes: Any) -> Path:
    settings = {"steps": 6, "optimizer": "adamw", "batch_size": 4} | changes
    warmup_job(options(folder, name, output=folder / f"{name}.safetensors", run_dir=None, **settings)).run()
    return folder / f"{name}.safetensors"


def pretrained(donor: Path, text: Path, name: str, **changes: Any) -> Job:
    settings: dict[str, Any] = {
        "model": "2x2x16", "corpus": str(text), "context": 11, "steps": STEPS, "batch_size": 4, "eval_every": 2,
        "eval_samples": 8, "log_every": 1, "checkpoint_every": 2, "init": str(donor), "load_optimizer_state": True,
        "cache_dir": text.parent / "cache", "output": donor.with_name(f"{name}.safetensors"),
    }  # fmt: skip
    return pretrain_job(PretrainOptions(**settings | changes))


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    return artifact.read_torch(artifact.open_artifact(next(folder.glob("state-*.safetensors")), "checkpoint"))


@pytest.mark.parametrize(("before", "after"), [("adamw", "adamw"), ("muon", "muon"), ("adamw", "muon")])
def test_whole_tensors_go_on_with_their_moments_and_step_counts(
    before: str, after: str, text: Path, tmp_path: Path
) -> None:
    donor = warmed(tmp_path, optimizer=before)
    job = pretrained(donor, text, "whole", optimizer=after)
    job.run()
    places = components(open_model(tmp_path / "whole.safetensors").model())
    found, theirs = final_state(job.run_path), final_state(tmp_path / "warm.run")
    carried = {name for name, place in places.items() if place.component in ("attention", "mlp", "norms")}
    for name in places:
        if (key := f"optimiser/{name}/step") in found:
            assert found[key] == STEPS + (theirs.get(key, 0) if name in carried else 0), name
    # The first step mixes a tenth of its gradient into the first moment: the rest is the donor's, where it is carried.
    first = pretrained(donor, text, "first", optimizer=after, steps=1, ramp_steps=0, lr=1e-9, beta2=0.9999, clip=1e-6)
    first.run()
    found = final_state(first.run_path)
    for name in places:
        for moment, kept in (("exp_avg", 0.9), ("momentum_buffer", 0.95)):
            if (key := f"optimiser/{name}/{moment}") in found:
                expected = kept * theirs[key] if name in carried and key in theirs else torch.zeros_like(found[key])
                torch.testing.assert_close(found[key], expected, atol=1e-6, rtol=0)
    # What reports say is reset.
    start = start_of(read_metrics(job.run_path), warmup_of([read_metrics(tmp_path / "warm.run")]))
    record = ExperimentRecord(baseline="a", stages={}, arms={})
    resets = resets_of(start, record)
    assert resets is not None
    assert resets[0] == Reset("optimiser", "part")
    event = next(each for each in read_events(job.run_path) if isinstance(each, StartEvent))
    assert 0 < (event.state_carried or 0) < event.trained


def test_a_killed_run_ends_as_one_that_was_not_and_as_no_fresh_one(text: Path, tmp_path: Path) -> None:
    donor = warmed(tmp_path)
    for name, kills in (("whole", ()), ("killed", (("eval", 1), ("train", 3)))):
        for kill in kills:
            job = pretrained(donor, text, name)
            job.listeners = [killed_at(*kill)]
            with pytest.raises(Killed):
                job.run()
        pretrained(donor, text, name).run()
    assert contents(tmp_path / "killed.safetensors") == contents(tmp_path / "whole.safetensors")
    pretrained(donor, text, "fresh", load_optimizer_state=False).run()
    assert contents(tmp_path / "fresh.safetensors") != contents(tmp_path / "whole.safetensors")
    settings = [read_form(tmp_path / f"{name}.run") or {} for name in ("fresh", "whole")]
    assert changed_settings(*settings) == ["load_optimizer_state"]
    assert settings[0]["load_optimizer_state"] is None


def test_a_donor_without_its_state_is_one_line(text: Path, tmp_path: Path) -> None:
    def said(donor: Path) -> str:
        with pytest.raises(ProctoolError) as error:
            pretrained(donor, text, "never")
        assert isinstance(error.value, ArtifactError | RunError)
        assert not (tmp_path / "never.run").exists()
        return str(error.value)

    bare = warmed(tmp_path, "bare", keep_state=False)
    assert "bare.run: has no training state with the weights of" in said(bare)
    assert "--keep-state" in said(bare)
    moved = tmp_path / "elsewhere" / "moved.safetensors"
    moved.parent.mkdir()
    bare.rename(moved)
    assert "moved.run: this run folder of the donor is missing" in said(moved)
    other = warmed(tmp_path, "other", seed=3)
    moved.replace(other)
    assert "has no training state with the weights of" in said(other)
    with pytest.raises(OptionError, match="without --init there is no optimiser state"):
        pretrained(other, text, "never", init=None)
    write_folder(tmp_path / "hf")
    assert "no run of proctool wrote it" in said(tmp_path / "hf")


def test_a_recipe_says_which_arms_can_have_it() -> None:
    values: dict[str, Any] = {
        "name": "a", "model": "2x2x16", "corpus": "python", "pretrain": {"load_optimizer_state": True, "steps": 9},
        "arms": {"cold": {}, "set": {"warmup": {"task": TASK}}}, "controls": ["scale", "text", "shuffled"],
    }  # fmt: skip
    asked = {name: arm.pretrain().load_optimizer_state for name, arm in arms_of(build_recipe(values)).items()}
    assert asked == {"cold": False, "set": True, "set-scale": False, "set-text": True, "set-shuffled": True}
    values["arms"]["set"] = {"donors": {key: {"task": TASK} for key in ("attention", "mlp")}}
    with pytest.raises(ProctoolError, match=r"arms\.set.*: load_optimizer_state needs a single warm-up"):
        build_recipe(values)
