"""Bad gradients and full disks: a clear line, and a checkpoint that is whole."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from proctool import artifact
from proctool.errors import OptionError, RunError
from proctool.reporting.metrics import read_metrics
from proctool.training.guard import Guard, Judged, Objection
from proctool.training.warmup import warmup_job
from proctool.untrusted import parse_json
from tests.conftest import Said
from tests.training.runs import TASK, options


def test_a_bad_gradient_never_reaches_the_weights(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"at step \d+; a checkpoint from before it") as error:
        warmup_job(options(tmp_path, lr=1e30, clip=0, ramp_steps=0)).run()
    assert "--lr" in str(error.value)
    saved = artifact.read_header(max((tmp_path / "run" / "checkpoints").iterdir()))
    assert f"of step {saved.metadata['position']['step']}, is in" in str(error.value)
    for name, tensor in artifact.read_torch(saved).items():
        if name.startswith("model/"):
            assert torch.isfinite(tensor).all(), name
    with pytest.raises(RunError, match="at step"):  # from the checkpoint, and no worse for it
        warmup_job(options(tmp_path, lr=1e30, clip=0, ramp_steps=0)).run()


def test_a_last_loss_that_is_not_finite_is_null_and_the_weights_are_written(
    proctool: Callable[..., Said], tmp_path: Path
) -> None:
    command = ("warmup", "--task", TASK, "--model", "1x1x8", "--steps", 1, "--lr", "1e30", "--eval-samples", 8,
               "--save", "both", "--json")  # fmt: skip
    for _ in range(2):  # the second finds it done
        said = proctool(*command)
        assert said.code == 0, said.err
        assert "validation loss nan" in said.err
        end = parse_json(said.out)
        assert (end["loss"], end["best"]["loss"] is not None) == (None, False)
    assert artifact.read_header(Path("warm.safetensors")).metadata["metrics"]["loss"] is None
    recorded = [parse_json(line) for line in Path("warm.run/metrics.jsonl").read_text().splitlines()]
    assert [event["loss"] for event in recorded if event["event"] == "eval"][1:] == [None]
    assert read_metrics(Path("warm.run")).measured("loss")[0] == [0]


def _judged(guard: Guard, norm: float, loss: float = 1.0, scaled: bool = False) -> Judged:
    return Judged.of(guard.judge(torch.tensor(loss), torch.tensor(norm), scaled=scaled).tolist())


def test_a_spike_is_measured_against_the_median() -> None:
    guard = Guard(10)
    for norm in (1.0, 50.0, *[1.0] * 30):
        assert guard.objection(_judged(guard, norm)) is None
    again = Guard(10)
    again.restore(guard.state())
    assert (spike := guard.objection(_judged(guard, 10.5))) == Objection("norm", 10.5, limit=10, usual=1.0)
    assert "more than 10 times its median of 1" in spike.words()
    assert again.objection(_judged(again, 10.5)) == spike
    assert not _judged(Guard(None), 1e30).is_bad
    assert (bad := guard.objection(_judged(guard, float("inf"), loss=float("nan")))) is not None
    assert bad.words() == "the loss is nan"


def test_the_device_judges_as_the_rule_is_written() -> None:
    """Against the rule in plain Python, to the bit, past the window's length."""
    norms = torch.rand(260, generator=torch.Generator().manual_seed(0)).exp().tolist()
    recent: list[float] = []
    for norm in norms:
        guard = Guard(1.5)
        guard.restore({"recent": recent})
        usual = statistics.median(recent) if recent else math.inf
        spikes = len(recent) >= 20 and norm > 1.5 * usual
        judged = _judged(guard, norm)
        assert judged.is_bad == spikes
        assert judged.norm == norm
        assert not recent or judged.usual == usual
        if not spikes:
            recent = [*recent, norm][-100:]
        assert guard.state() == {"recent": recent}


def test_after_a_bad_step_every_step_is_held_and_none_is_remembered() -> None:
    guard = Guard(10)
    assert not _judged(guard, 1.0).is_bad
    assert _judged(guard, float("nan")).is_bad
    assert _judged(guard, 1.0).is_bad
    assert guard.state() == {"recent": [1.0]}


def test_under_a_gradient_scaler_the_loss_alone_tells() -> None:
    assert not _judged(Guard(None), float("inf"), scaled=True).is_bad
    assert _judged(Guard(None), 1.0, loss=float("nan"), scaled=True).is_bad


def test_a_spike_must_be_above_one(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="spike = 1"):
        options(tmp_path, spike=1)


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "proctool", "warmup", "--task", TASK, "--model", "2x2x16", "--batch-size", "8"]
    command += ["--steps", "40", "--checkpoint-every", "5", "--run-dir", "run", "-o", "run.safetensors"]
    script = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from proctool.cli.main import main\n"
        "from proctool.training import run\n"
        "save = run.RunFolder.save\n"
        "def limited(self, step, *rest):\n"
        "    if step == 15:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "    return save(self, step, *rest)\n"
        "run.RunFolder.save = limited\n"
        "sys.argv = ['proctool', *sys.argv[1:]]\n"
        "main()\n"
    )
    full = subprocess.run([sys.executable, "-c", script, *command[3:]], cwd=tmp_path, capture_output=True, text=True)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "step-00000015.safetensors: no room left to write" in full.stderr.splitlines()[-1]
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000005.safetensors", "step-00000010.safetensors"]
    for name in names:
        artifact.verify(artifact.read_header(tmp_path / "run" / "checkpoints" / name))
    assert not (tmp_path / "run.safetensors").exists()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    whole = [*command[:-3], "whole", "-o", "whole.safetensors"]
    subprocess.run(whole, cwd=tmp_path, check=True, capture_output=True)
    contents = [artifact.read_header(tmp_path / f"{name}.safetensors").content for name in ("run", "whole")]
    assert contents[0] == contents[1]
