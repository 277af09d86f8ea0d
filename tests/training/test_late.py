"""Numbers of a step that are read some steps late: the same run to the bit, and no wait of the host within a step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from proctool import artifact
from proctool.errors import RunError
from proctool.training import loop
from proctool.training.engine import Engine
from proctool.training.late import Readout
from proctool.training.step import Step
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import contents, options, without_clock


@pytest.fixture
def lag(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    steps = int(request.param)
    monkeypatch.setattr(loop, "lag_of", lambda engine: steps)
    return steps


def poison(monkeypatch: pytest.MonkeyPatch, step: int, factor: float) -> None:
    """Multiply the gradients of one step."""
    clip, calls = Engine.clip_or_step, iter(range(1, 1000))

    def poisoned(engine: Engine, limit: float | None) -> torch.Tensor:
        if next(calls) == step:
            for parameter in engine.module.parameters():
                parameter.grad.mul_(factor)
        return clip(engine, limit)

    monkeypatch.setattr(Engine, "clip_or_step", poisoned)


def checkpoint_of(folder: Path, name: str) -> tuple[str, dict[str, Any]]:
    """The latest checkpoint's content and metadata, without the clock."""
    saved = artifact.read_header(max((folder / name / "checkpoints").iterdir()))
    position = {key: value for key, value in saved.metadata["position"].items() if key != "seconds"}
    return saved.content, {**saved.metadata, "position": position}


CHANGES: dict[str, Any] = {"steps": 36, "eval_every": 18, "checkpoint_every": 14, "log_every": 4, "spike": 30.0}


def test_a_run_read_late_is_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in (0, 5):
        monkeypatch.setattr(loop, "lag_of", lambda engine, steps=steps: steps)
        changes = {"curriculum": "start=3,accuracy=.05", "context": 16, "accumulate": 2}
        warmup_job(options(tmp_path, f"lag-{steps}", **CHANGES, **changes)).run()
    assert contents(tmp_path / "lag-5.safetensors") == contents(tmp_path / "lag-0.safetensors")
    assert without_clock(event_lines(tmp_path / "lag-5")) == without_clock(event_lines(tmp_path / "lag-0"))


@pytest.mark.parametrize(
    ("factor", "step", "said"),
    [
        (float("nan"), 30, "the gradient's norm is nan at step 30"),
        (1e4, 33, "more than 30 times its median"),
    ],
)
def test_a_bad_step_read_late_stops_as_one_read_at_once(
    factor: float, step: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for steps in (0, 5):
        with monkeypatch.context() as patches:
            patches.setattr(loop, "lag_of", lambda engine, steps=steps: steps)
            poison(patches, step, factor)
            with pytest.raises(RunError, match=said) as error:
                warmup_job(options(tmp_path, f"lag-{steps}", **CHANGES)).run()
        message = str(error.value).replace(f"lag-{steps}", "run")
        assert f"a checkpoint from before it, of step {step - 1}," in message
        name = f"lag-{steps}"
        ends.append((message, checkpoint_of(tmp_path, name), without_clock(event_lines(tmp_path / name))))
    assert ends[1] == ends[0]


def test_a_run_may_end_where_it_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are those from before the bad step, and the run counts as done."""
    warmup_job(options(tmp_path, "whole", **CHANGES | {"steps": 29, "schedule": "constant"})).run()
    for steps in (0, 5):
        with monkeypatch.context() as patches:
            patches.setattr(loop, "lag_of", lambda engine, steps=steps: steps)
            poison(patches, 30, float("nan"))
            changes = CHANGES | {"schedule": "constant", "on_divergence": "end"}
            end = warmup_job(options(tmp_path, f"lag-{steps}", **changes)).run()
            assert end.diverged
            assert end.step == 29
            assert math.isnan(end.loss)
        assert contents(tmp_path / f"lag-{steps}.safetensors") == contents(tmp_path / "whole.safetensors")
        again = warmup_job(options(tmp_path, f"lag-{steps}", **changes))
        assert again.run().diverged


@pytest.mark.parametrize("lag", [0, 8], indirect=True)
def test_a_run_that_goes_on_after_a_bad_step_ends_as_if_it_had_not_been(
    lag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout of the bad step included: it is drawn again from where it began."""
    warmup_job(options(tmp_path, "whole", **CHANGES)).run()
    with monkeypatch.context() as patches:
        poison(patches, 30, float("nan"))
        with pytest.raises(RunError, match="at step 30"):
            warmup_job(options(tmp_path, "stopped", **CHANGES)).run()
    warmup_job(options(tmp_path, "stopped", **CHANGES)).run()
    assert contents(tmp_path / "stopped.safetensors") == contents(tmp_path / "whole.safetensors")
    assert without_clock(event_lines(tmp_path / "stopped")) == without_clock(event_lines(tmp_path / "whole"))


class HostReads(TorchDispatchMode):
    """Counts operations that give the host a number, or a tensor whose size depends on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("lag", [8], indirect=True)
def test_the_host_reads_nothing_within_a_step(lag: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, log = HostReads(), []
    take, read = Step.__call__, Readout.read

    def counted(step: Step, *args: Any, **more: Any) -> Readout:
        before = reads.count
        with reads:
            readout = take(step, *args, **more)
        log.append(("step", reads.count - before))
        return readout

    def noted(readout: Readout) -> list[float]:
        log.append(("read", 0))
        return read(readout)

    def listed(tensor: torch.Tensor, tolist: Any = torch.Tensor.tolist) -> Any:  # no operation that a mode sees
        reads.count += 1
        return tolist(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", listed)
    monkeypatch.setattr(Step, "__call__", counted)
    monkeypatch.setattr(Readout, "read", noted)
    warmup_job(options(tmp_path, **{**CHANGES, "steps": 40, "eval_every": 20, "checkpoint_every": 100})).run()
    assert [count for kind, count in log if kind == "step"] == [0] * 40
    kinds = "".join(kind[0] for kind, _ in log)
    assert kinds == 2 * ("s" * 8 + "sr" * 12 + "r" * 8)  # eight steps late, and all before an evaluation
