"""`--micro-batch auto` and `--gradient-checkpointing auto`: what fits is chosen, recorded, and kept on resuming."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from proctool.errors import OptionError
from proctool.events import StartEvent
from proctool.models.build import model_config, outline
from proctool.models.memory import Layout, Memory, training_memory
from proctool.training import room, step_cut
from proctool.training.options import PretrainOptions, TrainingOptions
from proctool.training.room import DeviceMemory, device_memory
from proctool.training.step_cut import StepCut, cut_for, cut_step, recorded_cut, require_possible
from proctool.training.warmup import warmup_job
from tests.conftest import Said
from tests.event_lines import event_lines
from tests.robustness.faults import ended, ranks
from tests.training.runs import Killed, contents, killed_at, options

MODEL = outline(model_config("4x4x64", vocab_size=257, context=64))
ENOUGH = 1 << 40


@functools.cache
def memory_of(checkpointing: bool, lean: bool = True) -> Memory:
    return training_memory(
        MODEL, length=64, logits_at_once=1 << 25, checkpointing=checkpointing, lean=lean, on_cpu=True
    )


def wanted(**changes: Any) -> TrainingOptions:
    return TrainingOptions(**({"batch_size": 24, "micro_batch": "auto", "gradient_checkpointing": "auto"} | changes))


def peak(cut: StepCut, *, lean: bool = True) -> int:
    memory = memory_of(cut.gradient_checkpointing, lean and not cut.gradient_checkpointing)
    return memory.peak(Layout(cut.micro_batch, accumulates=cut.accumulate > 1))


def test_as_many_samples_as_fit_and_checkpointing_only_where_nothing_else_does() -> None:
    at_most = [cut_step(wanted(), memory_of, int(ENOUGH / 1.05**step)) for step in range(400)]
    for before, cut in itertools.pairwise(at_most):
        assert cut.micro_batch * cut.accumulate == 24
        # Less memory never gives more samples at once, apart from where checkpointing begins.
        assert cut.micro_batch <= before.micro_batch or cut.gradient_checkpointing > before.gradient_checkpointing
        assert cut.gradient_checkpointing >= before.gradient_checkpointing
    sizes = {cut.micro_batch for cut in at_most if not cut.gradient_checkpointing}
    assert sizes == {1, 2, 3, 4, 6, 8, 12, 24}
    assert {cut.fits for cut in at_most} == {True, False}
    assert at_most[-1] == StepCut(1, 24, gradient_checkpointing=True, fits=False)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_is_chosen_fits_and_the_next_larger_does_not(processes: int) -> None:
    share = 24 // processes
    room = memory_of(False, True).peak(Layout(4, processes, accumulates=True)) + 1
    cut = cut_step(wanted(gradient_checkpointing=False), memory_of, room, processes=processes)
    assert (cut.micro_batch, cut.accumulate) == (4, share // 4)
    assert cut.fits
    larger = next(size for size in range(5, share + 1) if share % size == 0)
    assert memory_of(False, True).peak(Layout(larger, processes, accumulates=larger < share)) > room


def test_a_fixed_micro_batch_is_kept_and_checkpointed_only_where_needed() -> None:
    fixed = wanted(micro_batch=12)
    without = memory_of(False, True).peak(Layout(12, accumulates=True))
    assert cut_step(fixed, memory_of, without).gradient_checkpointing is False
    cut = cut_step(fixed, memory_of, without - 1)
    assert (cut.micro_batch, cut.gradient_checkpointing, cut.fits) == (12, True, True)


@pytest.mark.parametrize(("device", "compiles"), [("cuda", False), ("cuda", True), ("cpu", False)])
def test_gelu_is_recomputed_on_gpus_only_where_the_memory_is_needed(
    monkeypatch: pytest.MonkeyPatch, device: str, compiles: bool
) -> None:
    plain = wanted(micro_batch=None, accumulate=2, gradient_checkpointing=False, compile=compiles)
    kept, lean = (memory_of(False, kind).peak(Layout(12, accumulates=True)) for kind in (False, True))
    assert lean < kept
    for bytes_free, recomputes in ((kept, device == "cpu" or compiles), (kept - 1, True)):
        monkeypatch.setattr(step_cut, "device_memory", lambda *_, free=bytes_free: DeviceMemory(ENOUGH, free, free))
        cut = cut_for(plain, MODEL, 64, torch.device(device))
        assert cut == StepCut(12, 2, gradient_checkpointing=False, lean_mlp=recomputes)
        assert cut.applied(plain) == plain


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_checkpointing_recomputes_the_gelu_once(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(step_cut, "device_memory", lambda *_: DeviceMemory(ENOUGH, 1, 1))
    for given in (wanted(), wanted(micro_batch=None, gradient_checkpointing=True)):
        cut = cut_for(given, MODEL, 64, torch.device(device))
        assert (cut.gradient_checkpointing, cut.lean_mlp) == (True, False)


def test_a_batch_that_no_machine_of_this_size_could_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_cut, "device_memory", lambda *_: DeviceMemory(1 << 20, 1 << 20, 1 << 20))
    plain = wanted(micro_batch=None, accumulate=1, gradient_checkpointing=False, batch_size=10**9)
    cut = cut_for(plain, MODEL, 64, torch.device("cpu"))
    with pytest.raises(OptionError, match=r"^batch_size: 1000000000 samples of 64 tokens at once need more than"):
        require_possible(cut, MODEL, 64, torch.device("cpu"))
    require_possible(dataclasses.replace(cut, micro_batch=1), MODEL, 64, torch.device("cpu"))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the memory that runs find free."""

    def set_free(samples: int, total: int = ENOUGH) -> None:
        model = outline(model_config("2x2x16", vocab_size=15, context=11, dropout=0.1))
        memory = training_memory(model, length=11, logits_at_once=1 << 25, dropout=0.1, on_cpu=True)
        left = memory.peak(Layout(samples, accumulates=samples < 8)) + 1
        monkeypatch.setattr(step_cut, "device_memory", lambda *_: DeviceMemory(total, left, left))

    return set_free


AUTO = {"micro_batch": "auto", "gradient_checkpointing": "auto"}


@pytest.mark.parametrize("samples", [2, 8])
def test_a_run_is_that_of_the_cut_it_chose_and_records_it(
    tmp_path: Path, free: Callable[[int], None], samples: int
) -> None:
    free(samples)
    warmup_job(options(tmp_path, "auto", **AUTO)).run()
    warmup_job(options(tmp_path, "fixed", accumulate=8 // samples)).run()
    warmup_job(options(tmp_path, "number", micro_batch=samples)).run()
    fixed = contents(tmp_path / "fixed.safetensors")
    assert contents(tmp_path / "auto.safetensors") == contents(tmp_path / "number.safetensors") == fixed
    start = event_lines(tmp_path / "auto")[0]
    assert (start["micro_batch"], start["gradient_checkpointing"]) == (samples, False)
    settings = json.loads((tmp_path / "auto" / "config.json").read_text())
    assert (settings["micro_batch"], settings["gradient_checkpointing"]) == ("auto", "auto")
    assert not {"micro_batch", "gradient_checkpointing"} & event_lines(tmp_path / "number")[0].keys()


def test_a_resumed_run_keeps_its_cut_while_the_device_can_hold_it(tmp_path: Path, free: Callable[..., None]) -> None:
    free(4)
    warmup_job(options(tmp_path, "whole", **AUTO)).run()
    job = warmup_job(options(tmp_path, "killed", **AUTO))
    job.listeners = [killed_at("train", 3)]
    with pytest.raises(Killed):
        job.run()
    free(1)  # something else uses the memory now
    warmup_job(options(tmp_path, "killed", **AUTO)).run()
    assert contents(tmp_path / "killed.safetensors") == contents(tmp_path / "whole.safetensors")
    events = [StartEvent(steps=12, micro_batch=4, gradient_checkpointing=False)]
    small = options(tmp_path, **AUTO)
    model = outline(model_config("2x2x16", vocab_size=15, context=11, dropout=0.1))
    free(8)
    kept = cut_for(small, model, 11, torch.device("cpu"), events)
    assert (kept.micro_batch, kept.lean_mlp) == (4, True)
    free(1, total=1000)  # another device, which never could
    assert cut_for(small, model, 11, torch.device("cpu"), events).micro_batch == 1


def test_a_run_from_before_these_options_goes_on(tmp_path: Path) -> None:
    warmup_job(options(tmp_path, "whole")).run()
    job = warmup_job(options(tmp_path, "old"))
    job.listeners = [killed_at("train", 3)]
    with pytest.raises(Killed):
        job.run()
    written = tmp_path / "old" / "config.json"
    settings = json.loads(written.read_text())
    assert settings.pop("micro_batch") is None
    assert settings["gradient_checkpointing"] is False
    written.write_text(json.dumps(settings))
    warmup_job(options(tmp_path, "old")).run()
    assert contents(tmp_path / "old.safetensors") == contents(tmp_path / "whole.safetensors")


@pytest.mark.slow
def test_two_processes_choose_one_cut(tmp_path: Path) -> None:
    common = [
        "warmup", "--task", "set:inputs=5,symbols=9", "--model", "2x2x16", "--batch-size", "8", "--steps", "4",
        "--eval-samples", "9", "--log-every", "1", "--init-std", "0.02",
    ]  # fmt: skip
    for name, more in (("auto", ["--micro-batch", "auto", "--gradient-checkpointing", "auto"]), ("plain", [])):
        for process in ranks(tmp_path, *common, *more, "--run-dir", name, "-o", f"{name}.safetensors"):
            assert ended(process)[0] == 0
    assert event_lines(tmp_path / "auto")[0]["micro_batch"] == 4
    assert contents(tmp_path / "auto.safetensors") == contents(tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    ("recorded", "processes", "expected"),
    [((6, True), 2, (6, 2, True)), ((6, True), 3, None), ((None, None), 1, None), ((5, False), 1, None)],
)
def test_a_recorded_cut_holds_where_it_divides_the_share(
    recorded: tuple[Any, Any], processes: int, expected: tuple[int, int, bool] | None
) -> None:
    start = StartEvent(steps=1, micro_batch=recorded[0], gradient_checkpointing=recorded[1])
    cut = recorded_cut(wanted(), [start], processes)
    assert (None if cut is None else dataclasses.astuple(cut)[:3]) == expected


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"micro_batch": 5}, "micro_batch = 5: does not divide batch_size = 24"),
        ({"micro_batch": 0}, "micro_batch = 0"),
        ({"micro_batch": "auto", "accumulate": 2}, "leave one of them out"),
    ],
)
def test_mistakes_are_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        wanted(**given)


def test_processes_need_equal_shares() -> None:
    assert wanted(micro_batch=4).samples_at_once(2) == 4
    assert wanted(micro_batch="auto").samples_at_once(2) == 12
    for given, processes in (({"micro_batch": 8}, 2), ({"micro_batch": "auto"}, 5)):
        with pytest.raises(OptionError, match="does not split"):
            wanted(**given).samples_at_once(processes)


PLAN = ("warmup", "--task", "set:inputs=5,symbols=9", "--model", "2x2x16", "--steps", "4", "--dry-run", "--json")


@pytest.mark.parametrize(
    ("words", "checkpoints"),
    [
        (["--gradient-checkpointing"], True),
        (["--gradient-checkpointing", "on"], True),
        (["--gradient-checkpointing", "--batch-size", "8"], True),
        (["--no-gradient-checkpointing"], False),
        (["--gradient-checkpointing", "off"], False),
        (["--gradient-checkpointing", "auto"], False),
        (["--set", "gradient_checkpointing=true"], True),
        (["--set", "gradient_checkpointing=auto"], False),
        ([], False),
    ],
)
def test_every_form_of_the_flag(proctool: Callable[..., Said], words: list[str], checkpoints: bool) -> None:
    said = proctool(*PLAN, "--micro-batch", "auto", *words)
    assert said.code == 0, said.err
    planned = json.loads(said.out)
    assert planned["gradient_checkpointing"] is checkpoints
    assert planned["micro_batch"] == (8 if "--batch-size" in words else 64)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "gradient_checkpointing=perhaps"), "expected true or false, got 'perhaps'; or write auto"),
        (("--micro-batch", "some"), "or write auto"),
    ],
)
def test_other_words_are_refused(proctool: Callable[..., Said], words: tuple[str, ...], says: str) -> None:
    said = proctool(*PLAN, *words)
    assert said.code == 1
    assert says in said.line


def test_a_machines_free_memory_is_within_its_containers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemFree:        1 kB\nMemAvailable:    600 kB\n")
    monkeypatch.setattr(room, "_MEMINFO", meminfo)
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    cpu = torch.device("cpu")
    found = device_memory(cpu)
    assert (found.total, found.free) == (1000 << 10, 600 << 10)
    assert 0 < found.room < found.free
    assert device_memory(cpu, sharers=2).room == found.room // 2
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300000\n")
    assert device_memory(cpu) == found
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 250000\ninactive_file 50000\n")
    assert (device_memory(cpu).total, device_memory(cpu).free) == (500000, 250000)
    meminfo.write_text("nothing\n")
    (tmp_path / "memory.max").unlink()
    assert device_memory(cpu).free * 2 == device_memory(cpu).total


def test_no_key_of_a_stage_changes_where_the_options_are_not_used() -> None:
    from proctool.config import plain

    written = plain(PretrainOptions())
    assert written["micro_batch"] is None  # None stays out of keys
    assert written["gradient_checkpointing"] is False
