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
from tests.training.runs import contents, options, without_clock

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
from proctool.training import loss
from proctool.training.devices import start_process
from proctool.training.warmup import warmup_job
from tests.training.runs import killed_at, options
loss.LOGITS_AT_ONCE = 64  # the logits of few targets
changes = json.loads(sys.argv[3])
start_process()
job = warmup_job(options(Path(sys.argv[1]), sys.argv[2], **{"dropout": 0.0, "init_std": 0.02, **changes}))
job.listeners = [killed_at("train", 3)] if sys.argv[4:] else []
job.run()
"""
FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")


def launched(
    folder: Path, layout: str, config: object, *words: str, **changes: object
) -> subprocess.CompletedProcess[str]:
    """Two processes of the run in `folder` that the first word names."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if layout == "fsdp":
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", *FSDP]
    else:  # Accelerate launches DeepSpeed on accelerators alone; these are the variables it would set
        (folder / "deepspeed.json").write_text(json.dumps(config))
        environment["ACCELERATE_USE_DEEPSPEED"] = "true"
        environment["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(folder / "deepspeed.json")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    name, *more = words
    command = [*launch, str(script), str(folder), name, json.dumps(changes), *more]
    return subprocess.run(command, env=environment, capture_output=True, timeout=300, text=True)


LAYOUTS = [("fsdp", None)] + [
    (f"zero-{stage}", {"zero_optimization": {"stage": stage}, "gradient_clipping": "auto"}) for stage in (2, 3)
]


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "config"), LAYOUTS, ids=[layout for layout, _ in LAYOUTS])
def test_a_sharded_run_equals_one_process_and_resumes_bit_for_bit(tmp_path: Path, layout: str, config: object) -> None:
    if config:
        pytest.importorskip("deepspeed")
    changes: dict[str, Any] = {"accumulate": 2} | ({} if config else {"lr_of": ["embeddings=3"]})
    warmup_job(options(tmp_path, "one", dropout=0.0, init_std=0.02, **changes)).run()
    whole = launched(tmp_path, layout, config, "whole", **changes)
    assert whole.returncode == 0, whole.stderr
    one, two = (
        artifact.read_torch(artifact.read_header(tmp_path / f"{name}.safetensors")) for name in ("one", "whole")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(event_lines(tmp_path / "one"), event_lines(tmp_path / "whole"), strict=True):
        for key in mine.keys() & {"loss", "grad_norm", "accuracy"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4)

    assert launched(tmp_path, layout, config, "killed", "kill", **changes).returncode != 0
    assert list((tmp_path / "killed" / "checkpoints").iterdir())
    resumed = launched(tmp_path, layout, config, "killed", **changes)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(tmp_path / "killed.safetensors") == contents(tmp_path / "whole.safetensors")
    assert without_clock(event_lines(tmp_path / "killed")) == without_clock(event_lines(tmp_path / "whole"))


@pytest.mark.slow
def test_a_bad_step_under_deepspeed_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    """And a checkpoint whose state is cut up otherwise is refused in a line."""
    pytest.importorskip("deepspeed")
    changes = {"lr": 1e30, "ramp_steps": 0, "clip": 0.0, "weight_decay": 0.0, "checkpoint_every": 1}
    stopped = launched(tmp_path, "zero", {"zero_optimization": {"stage": 2}}, "bad", **changes)
    assert stopped.returncode != 0
    assert "ZeRO 2 detected it only after the step" in stopped.stderr
    saved = artifact.read_header(max((tmp_path / "bad" / "checkpoints").iterdir()))
    tensors = artifact.read_torch(saved)
    assert all(bool(tensor.isfinite().all()) for name, tensor in tensors.items() if name.startswith("optimiser/"))

    other = {"zero_optimization": {"stage": 3}}
    refused = launched(tmp_path, "zero", other, "bad", **changes)
    assert "made under ZeRO 2, resumed under ZeRO 3; launch as before" in refused.stderr


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
