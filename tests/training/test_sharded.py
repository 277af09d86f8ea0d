"""Two processes over gloo with the model sharded between them (FSDP2): one process's numbers, and exact resume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from proctool import artifact
from proctool.training.run import read_events
from proctool.training.warmup import warmup_job
from tests.training.runs import contents, options, without_clock

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from proctool.training.devices import start_process
from proctool.training.warmup import warmup_job
from tests.training.runs import killed_at, options
start_process()
job = warmup_job(options(Path(sys.argv[1]), sys.argv[2], dropout=0.0))
job.listeners = [killed_at("train", 3)] if sys.argv[3:] else []
job.run()
"""


def sharded(folder: Path, *words: str) -> int:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--use_fsdp"]
    launch += ["--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP", str(script), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launch, *words], env=environment, capture_output=True, timeout=300).returncode


@pytest.mark.slow
def test_a_sharded_run_equals_one_process_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    warmup_job(options(tmp_path, "one", dropout=0.0)).run()
    assert sharded(tmp_path, "whole") == 0
    one, whole = (
        artifact.read_torch(artifact.read_header(tmp_path / f"{name}.safetensors")) for name in ("one", "whole")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, whole[name], rtol=1e-3, atol=1e-4)

    assert sharded(tmp_path, "killed", "kill") != 0
    assert list((tmp_path / "killed" / "checkpoints").iterdir())
    assert sharded(tmp_path, "killed") == 0
    assert contents(tmp_path / "killed.safetensors") == contents(tmp_path / "whole.safetensors")
    assert without_clock(read_events(tmp_path / "killed")) == without_clock(read_events(tmp_path / "whole"))
