"""Two processes over gloo with the run sharded between them (FSDP2, DeepSpeed): one process's numbers, exact resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from proctool import artifact
from proctool.errors import RunError
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.robustness.faults import ended, ranks
from tests.training.rank import ALIKE
from tests.training.runs import contents, options, without_clock

ROOT = Path(__file__).parents[2]
FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_SHARDING_STRATEGY": "FULL_SHARD", "FSDP_RESHARD_AFTER_FORWARD": "true", "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true", "FSDP_USE_ORIG_PARAMS": "true",
}  # fmt: skip
"""What `accelerate launch` sets, as the test of its launch sees."""


def by_accelerate(folder: Path, name: str, **changes: object) -> tuple[bool, str]:
    """Two processes of the run `name` in `folder`, sharded by FSDP2: whether both ended well, and what they said."""
    asked = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", FSDP["FSDP_AUTO_WRAP_POLICY"])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", *asked]
    command = [*launch, "-m", "tests.training.rank", str(folder), name, json.dumps(changes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, text=True, cwd=ROOT)
    return done.returncode == 0, done.stderr


def launched(folder: Path, config: object, name: str, *how: str, **changes: object) -> tuple[bool, str]:
    """As `by_accelerate`, without a launcher: by DeepSpeed as `config` says, or FSDP2 if that is None."""
    if config is None:
        environment = FSDP
    else:  # Accelerate launches DeepSpeed on accelerators alone; these are the variables it would set
        (folder / "deepspeed.json").write_text(json.dumps(config))
        environment = {"ACCELERATE_USE_DEEPSPEED": "true"}
        environment["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(folder / "deepspeed.json")
    return of_two(folder, name, json.dumps(changes), *how, **environment)


def of_two(folder: Path, *words: str, **environment: str) -> tuple[bool, str]:
    """Two processes of tests/training/rank.py: whether both ended well, and what they said."""
    both = ranks(folder, folder, *words, module="tests.training.rank", PYTHONPATH=str(ROOT), **environment)
    codes, said = zip(*map(ended, both), strict=True)
    return codes == (0, 0), "\n".join(said)


LAYOUTS = {"fsdp": None} | {
    f"zero-{stage}": {"zero_optimization": {"stage": stage}, "gradient_clipping": "auto"} for stage in (2, 3)
}


@pytest.mark.slow
@pytest.mark.parametrize("config", LAYOUTS.values(), ids=LAYOUTS)
def test_a_sharded_run_equals_one_process_and_resumes_bit_for_bit(tmp_path: Path, config: object) -> None:
    if config:
        pytest.importorskip("deepspeed")
    changes: dict[str, Any] = {"accumulate": 2} | ({} if config else {"lr_of": ["embeddings=3"]})
    warmup_job(options(tmp_path, "one", **ALIKE, **changes)).run()
    if config:
        well, said = launched(tmp_path, config, "whole", **changes)
    else:
        well, said = by_accelerate(tmp_path, "whole", **changes)
        assert json.loads((tmp_path / "environment.json").read_text()).items() >= FSDP.items()
    assert well, said
    one, two = (
        artifact.read_torch(artifact.read_header(tmp_path / f"{name}.safetensors")) for name in ("one", "whole")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(event_lines(tmp_path / "one"), event_lines(tmp_path / "whole"), strict=True):
        for key in mine.keys() & {"loss", "grad_norm", "accuracy"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4)

    assert not launched(tmp_path, config, "killed", "kill", **changes)[0]
    assert list((tmp_path / "killed" / "checkpoints").iterdir())
    well, said = launched(tmp_path, config, "killed", **changes)
    assert well, said
    assert contents(tmp_path / "killed.safetensors") == contents(tmp_path / "whole.safetensors")
    assert without_clock(event_lines(tmp_path / "killed")) == without_clock(event_lines(tmp_path / "whole"))


@pytest.mark.slow
def test_a_bad_step_under_deepspeed_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    """And a checkpoint whose state is cut up otherwise is refused in a line."""
    pytest.importorskip("deepspeed")
    changes = {"lr": 1e30, "ramp_steps": 0, "clip": 0.0, "weight_decay": 0.0, "checkpoint_every": 1}
    well, said = launched(tmp_path, {"zero_optimization": {"stage": 2}}, "bad", **changes)
    assert not well
    assert "ZeRO 2 detected it only after the step" in said
    saved = artifact.read_header(max((tmp_path / "bad" / "checkpoints").iterdir()))
    tensors = artifact.read_torch(saved)
    assert all(bool(tensor.isfinite().all()) for name, tensor in tensors.items() if name.startswith("optimiser/"))

    other = {"zero_optimization": {"stage": 3}}
    _, said = launched(tmp_path, other, "bad", **changes)
    assert "made under ZeRO 2, resumed under ZeRO 3; launch as before" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        ({"zero_optimization": {"stage": 0}}, {}, "launch for DDP"),
        ({"zero_optimization": {"stage": 2}, "optimizer": {"type": "Adam"}}, {}, "remove it"),
        ({"zero_optimization": {"stage": 2}, "gradient_clipping": 0.5}, {}, "1.0 by --clip"),
        ({"zero_optimization": {"stage": 2}, "train_batch_size": 5}, {}, "8 by --batch-size"),
        ({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}, {}, "give --precision bf16 too"),
        ({"zero_optimization": {"stage": 2}}, {"precision": "fp16"}, "use bf16"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, {}, "use cpu"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": 3}}, {}, "are sections"),
        ({"bf16": {"enabled": True}}, {"precision": "bf16"}, "specify the ZeRO"),
    ],
)
def test_deepspeed_configurations_that_the_loop_cannot_do_are_refused(
    config: object, changes: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("deepspeed")
    from proctool.training import zero

    (tmp_path / "deepspeed.json").write_text(json.dumps(config))
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "deepspeed.json"))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(RunError, match=said):
        zero._configuration(options(tmp_path, **changes), Accelerator(cpu=True))


def test_deepspeed_in_a_single_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(RunError, match="start with accelerate launch or torchrun"):
        warmup_job(options(tmp_path)).run()
