"""Steps that are recorded and replayed: those of the same loop without a recording, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proctool.errors import RunError
from proctool.events import NoteEvent, read_events
from proctool.training import loop
from proctool.training.engine import Engine
from proctool.training.graphs import Capture, GraphStep
from proctool.training.guard import Guard
from proctool.training.step import has_fixed_shapes
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.recorded import NoCapture, OperationCapture
from tests.training.runs import Killed, contents, killed_at, options, without_clock

GROWING: dict[str, Any] = {
    "curriculum": "start=3,accuracy=.01", "context": 16, "steps": 40, "eval_every": 10, "checkpoint_every": 7,
}  # fmt: skip


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take steps as on CUDA, recorded by what is given."""
    monkeypatch.setattr(loop, "lag_of", lambda engine: 5)
    monkeypatch.setattr(loop, "has_fixed_shapes", lambda *_: True)
    # transformers looks whether rows are packed, which a recording could not.
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None)

    def by(capture: Capture) -> Capture:
        monkeypatch.setattr(loop, "capture_for", lambda *_, plain: capture if plain else None)
        return capture

    return by


def same(folder: Path, one: str, other: str) -> None:
    assert contents(folder / f"{one}.safetensors") == contents(folder / f"{other}.safetensors")
    assert without_clock(event_lines(folder / one)) == without_clock(event_lines(folder / other))


@pytest.mark.parametrize("changes", [{"schedule": "cosine", "accumulate": 2}, GROWING, {"spike": 50.0, "steps": 30}])
def test_recorded_steps_are_the_steps_as_written(changes: dict[str, Any], on_cuda: Any, tmp_path: Path) -> None:
    on_cuda(NoCapture())
    warmup_job(options(tmp_path, "plain", **changes)).run()
    capture = on_cuda(OperationCapture())
    warmup_job(options(tmp_path, "recorded", **changes)).run()
    same(tmp_path, "recorded", "plain")
    assert capture.recorded >= (2 if changes is GROWING else 1), "one for each size"
    assert capture.warmed + capture.replayed == changes.get("steps", 12)


def test_a_recorded_run_that_is_killed_ends_as_one_that_is_not(on_cuda: Any, tmp_path: Path) -> None:
    on_cuda(OperationCapture())
    warmup_job(options(tmp_path, "whole", **GROWING)).run()
    job = warmup_job(options(tmp_path, "killed", **GROWING))
    job.listeners = [killed_at("train", 9)]
    with pytest.raises(Killed):
        job.run()
    warmup_job(options(tmp_path, "killed", **GROWING)).run()
    same(tmp_path, "killed", "whole")


def test_padded_shapes_and_a_tensor_for_the_rate_change_rounding_alone(
    on_cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"task": ("haystack:pairs=6",), "dropout": 0.0, "batch_size": 24, "steps": 20}
    on_cuda(OperationCapture())
    warmup_job(options(tmp_path, "recorded", **changes)).run()
    monkeypatch.undo()
    warmup_job(options(tmp_path, "usual", **changes)).run()
    for mine, theirs in zip(event_lines(tmp_path / "recorded"), event_lines(tmp_path / "usual"), strict=True):
        for key in mine.keys() & {"loss", "grad_norm", "lr"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4), key


def test_where_recording_fails_the_run_goes_on_and_says_so(
    on_cuda: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(OperationCapture):
        def record(self, body: Any) -> Any:
            with monkeypatch.context() as patches:  # a host read after the backward pass, which no graph can hold
                patches.setattr(Guard, "judge", lambda self, loss, norm, **_: norm.item())
                return super().record(body)

    on_cuda(NoCapture())
    warmup_job(options(tmp_path, "plain")).run()
    on_cuda(Failing())
    warmup_job(options(tmp_path, "failing")).run()
    assert contents(tmp_path / "failing.safetensors") == contents(tmp_path / "plain.safetensors")
    notes = [event.note for event in read_events(tmp_path / "failing") if isinstance(event, NoteEvent)]
    assert notes == [
        "CUDA graphs do not work here (operation not permitted when stream is capturing); continuing without them"
    ]


def test_no_step_is_recorded_that_is_compiled_or_not_to_be(on_cuda: Any, tmp_path: Path) -> None:
    capture = on_cuda(OperationCapture())
    warmup_job(options(tmp_path, "off", cuda_graph=False)).run()
    warmup_job(options(tmp_path, "checkpointing", gradient_checkpointing=True)).run()
    assert capture.recorded == 0


def test_a_bad_step_in_a_replay_leaves_the_weights(on_cuda: Any, tmp_path: Path) -> None:
    messages = []
    for name, capture in (("plain", NoCapture()), ("recorded", OperationCapture())):
        on_cuda(capture)
        with pytest.raises(RunError, match="at step") as error:
            warmup_job(options(tmp_path, name, steps=60, lr=300.0, clip=0.0, spike=3.0, eval_every=60)).run()
        messages.append(str(error.value).replace(name, "run"))
    assert messages[0] == messages[1]
    one, two = (max((tmp_path / name / "checkpoints").iterdir()) for name in ("plain", "recorded"))
    assert (one.name, contents(one)) == (two.name, contents(two))


@pytest.mark.parametrize(
    ("device", "processes", "flops", "logits", "fixed"),
    [
        ("cuda", 1, 5e8, 1 << 20, True),
        ("cpu", 1, 5e8, 1 << 20, False),
        ("cuda", 2, 5e8, 1 << 20, False),
        ("cuda", 1, 2e13, 1 << 20, False),
        ("cuda", 1, 5e8, 1 << 26, False),
    ],
)
def test_shapes_are_fixed_where_a_gpu_waits_for_launches(
    device: str, processes: int, flops: float, logits: int, fixed: bool
) -> None:
    assert has_fixed_shapes(device, processes, flops, logits) == fixed


def test_graph_steps_need_a_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="before it changes"):
        GraphStep(Engine.__new__(Engine), None, 1.0, 0, NoCapture(), print)  # type: ignore[arg-type]
