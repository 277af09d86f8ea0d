"""What a launcher or a profile leaves in the environment does not change a run without a word."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from proctool.errors import RunError
from proctool.events import NoteEvent
from proctool.launched import LaunchedProcess, launch
from proctool.training import environment
from proctool.training.devices import accelerator_of, start_process
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.training.runs import contents, options

IGNORED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("4", "--accumulate"),
    "ACCELERATE_MIXED_PRECISION": ("bf16", "--precision"),
    "ACCELERATE_DOWNCAST_BF16": ("yes", "--precision"),
    "ACCELERATE_FP8_BACKEND": ("TE", "--precision"),
    "ACCELERATE_DYNAMO_BACKEND": ("EAGER", "--compile"),
    "ACCELERATE_TORCH_DEVICE": ("meta", "CUDA_VISIBLE_DEVICES"),
}
RECORDED = ("ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "MKL_CBWR", "NCCL_ALGO", "TRANSFORMERS_SDPA_FORCE_GQA")
WITHOUT_EFFECT = {
    "ACCELERATE_DYNAMO_MODE": "default", "ACCELERATE_GRADIENT_CLIPPING": "0.001",
    "ACCELERATE_DEBUG_MODE": "false", "ACCELERATE_ALLOW_CP_STANDALONE": "true", "FSDP_OFFLOAD_PARAMS": "true",
    "FSDP_VERSION": "garbage", "FSDP_IGNORED_MODULES": "lm_head", "PARALLELISM_CONFIG_TP_SIZE": "2",
    "MEGATRON_LM_TP_DEGREE": "8", "TOKENIZERS_PARALLELISM": "true", "TORCHDYNAMO_DISABLE": "1",
    "TORCHINDUCTOR_CACHE_DIR": "nowhere", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "WORLD_SIZE": "1", "RANK": "0",
    "LOCAL_WORLD_SIZE": "8", "MASTER_PORT": "garbage", "PYTHONHASHSEED": "7",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the shell's."""
    found = environment.found("fp32", compiles=True)
    for name in (*found.ignored, *found.recorded):
        monkeypatch.delenv(name)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Accelerate reads the environment anew, as a new process would."""

    def reset() -> None:
        for state in (AcceleratorState, PartialState, GradientState):
            state._reset_state()

    reset()
    yield
    reset()


def run(folder: Path, name: str) -> tuple[str, list[str]]:
    said: list[str] = []
    job = warmup_job(options(folder, name, steps=4))
    job.listeners = [lambda event: said.append(event.note) if isinstance(event, NoteEvent) else None]
    job.run()
    return contents(folder / f"{name}.safetensors"), said


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The contents of a run in an environment that says nothing."""
    return run(tmp_path_factory.mktemp("plain"), "plain")[0]


@pytest.mark.parametrize("name", IGNORED)
def test_what_accelerate_would_read_changes_no_bit_and_is_said(
    name: str, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    value, instead = IGNORED[name]
    monkeypatch.setenv(name, value)
    found, said = run(tmp_path, "found")
    assert found == plain
    assert said == [f"ignored from the environment: {name}={value} (use {instead})"]
    assert os.environ[name] == value, "the process keeps its environment"


def test_what_has_no_effect_changes_no_bit_and_is_not_said(
    plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    for name, value in WITHOUT_EFFECT.items():
        monkeypatch.setenv(name, value)
    assert run(tmp_path, "found") == (plain, [])


def test_what_a_launcher_sets_by_default_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IGNORED:
        monkeypatch.setenv(name, "no")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    assert environment.found("bf16", compiles=False).lines == []


@pytest.mark.parametrize("name", RECORDED)
def test_what_may_change_the_rounding_is_said_and_recorded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x1")
    _, said = run(tmp_path, "run")
    assert said == [f"the environment may change results slightly: {name}=x1"]
    (start,) = (event for event in event_lines(tmp_path / "run") if event["event"] == "start")
    assert start["environment"] == {name: "x1"}
    assert f"{name}=x1" in (tmp_path / "run" / "run.log").read_text()


@pytest.mark.parametrize(
    ("variables", "changes", "said"),
    [
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, {}, "Megatron-LM is not supported"),
        (
            {"ACCELERATE_USE_SAGEMAKER": "true", "ACCELERATE_SAGEMAKER_DISTRIBUTED_TYPE": "DATA_PARALLEL"},
            {},
            "torchrun",
        ),
        ({"ACCELERATE_USE_FSDP": "true"}, {}, "FSDP needs several processes"),
        ({"ACCELERATE_USE_FSDP": "1"}, {}, "FSDP needs several processes"),
        ({"ACCELERATE_USE_FSDP": "maybe"}, {}, "ACCELERATE_USE_FSDP=maybe: neither true nor false"),
        ({"ACCELERATE_USE_CPU": "maybe"}, {}, "ACCELERATE_USE_CPU=maybe: neither true nor false"),
        (
            {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
            {},
            "tensor, context and sequence parallelism",
        ),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, {}, "parallelism needs several processes"),
        ({"NVIDIA_TF32_OVERRIDE": "1"}, {}, "NVIDIA_TF32_OVERRIDE=1 overrides --precision fp32"),
        ({"NVIDIA_TF32_OVERRIDE": "0"}, {"precision": "bf16"}, "NVIDIA_TF32_OVERRIDE=0 overrides --precision bf16"),
        ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, {}, "ONEDNN_DEFAULT_FPMATH_MODE=BF16 overrides --precision fp32"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_what_works_against_the_options_is_refused(
    variables: dict[str, str], changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    fresh: None,
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=said):
        warmup_job(options(tmp_path, **changes)).run()
    assert not (tmp_path / "run.safetensors").exists()


def test_a_compilers_variables_count_where_a_run_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"TORCHINDUCTOR_USE_FAST_MATH": "1", "TORCHDYNAMO_DISABLE": "1", "TORCHINDUCTOR_CACHE_DIR": "nowhere"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.found("fp32", compiles=False).lines == []
    recorded = environment.found("fp32", compiles=True).recorded
    assert sorted(recorded) == ["TORCHDYNAMO_DISABLE", "TORCHINDUCTOR_USE_FAST_MATH"]


def test_the_precision_of_the_launch_is_no_matter_where_it_is_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert environment.found("bf16", compiles=False).lines == []
    assert len(environment.found("fp32", compiles=False).lines) == 1


def test_evaluations_ignore_it_too(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    for name, (value, _) in IGNORED.items():
        monkeypatch.setenv(name, value)
    accelerator = accelerator_of("fp32")
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
    assert accelerator.device == start_process().device != torch.device("meta")
    assert not accelerator.state.dynamo_plugin.to_dict().keys() - {"backend"} or (
        accelerator.state.dynamo_plugin.backend.value == "NO"
    )


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK, LOCAL_RANK, MASTER_ADDR; start with torchrun"),
        ({"RANK": "1"}, "RANK=1 without WORLD_SIZE, LOCAL_RANK, MASTER_ADDR; start with"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 without WORLD_SIZE, RANK, MASTER_ADDR; start with"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "without MASTER_ADDR"),
        (
            {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "here"},
            "without LOCAL_RANK; .* unset WORLD_SIZE RANK MASTER",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: not a number from 1 to"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0: not a number from 1 to"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=: not a number"),
        ({"RANK": "-1"}, "RANK=-1: not a number from 0 to"),
        ({"LOCAL_RANK": "1e3"}, "LOCAL_RANK=1e3: not a number"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "here"}, "ranks are 0 to 1"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "here", "MASTER_PORT": "99999"},
            "MASTER_PORT=99999: not a number from 1 to 65535",
        ),
        ({"PMI_SIZE": "2"}, "PMI_SIZE=2 without PMI_RANK; start with torchrun or accelerate launch, or unset PMI_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4 without OMPI_COMM_WORLD_RANK; start with"),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "cannot join the processes of this launch"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_half_a_launch_is_one_line(
    variables: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # what Accelerate sets while it tries is undone
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=said) as refused:
        warmup_job(options(tmp_path)).run()
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_numbers_a_single_process_is_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert launch() == LaunchedProcess(processes=1, rank=0)


def test_the_log_has_the_threads(tmp_path: Path) -> None:
    warmup_job(options(tmp_path)).run()
    (line,) = (line for line in (tmp_path / "run" / "run.log").read_text().splitlines() if "processes" in line[:40])
    assert json.loads(line[line.index("{") :])["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", None])
def test_the_allocator_of_gpus_is_set_unless_the_user_did(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
    monkeypatch.setattr(os, "environ", {each: value for each, value in os.environ.items() if each not in names})
    if name is not None:
        os.environ[name] = "max_split_size_mb:64"
    environment.prepare_allocator()
    found = {each: os.environ[each] for each in names if each in os.environ}
    assert found == ({names[0]: "expandable_segments:True"} if name is None else {name: "max_split_size_mb:64"})
