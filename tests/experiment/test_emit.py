"""The graph handed to other schedulers: real make, and a stand-in for Slurm, over the stand-in for proctool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_experiment import FAKE, planned

from proctool.errors import OptionError
from proctool.experiment import emit
from proctool.experiment.graph import Plan

ARMS = {
    "cold": {}, "set": {"warmup": {"task": "set:inputs=8"}}, "sort": {"warmup": {"task": "sort:inputs=8"}},
}  # fmt: skip

_PROCTOOL = """#!/bin/sh
if [ "$1" = report ]; then touch "$2/report.html"; exit; fi
exec {python} -S {fake} "$@"
"""
# Runs each task of the array at once, one after the other, and gives the job the next number.
_SBATCH = """#!/bin/bash
echo "sbatch $*" >> sbatch.log
wrapped= array=
while [ $# -gt 0 ]; do
    case $1 in
        --wrap=*) wrapped=${1#--wrap=};;
        --array=*) array=${1#--array=};;
        --*) ;;
        *) break;;
    esac
    shift
done
if [ -n "$wrapped" ]; then sh -c "$wrapped"; fi
if [ -n "$array" ]; then
    for task in $(seq ${array/-/ }); do SLURM_ARRAY_TASK_ID=$task bash "$@" > task.log 2>&1 || true; done
fi
grep -c . sbatch.log
"""
_SRUN = '#!/bin/sh\nexec "$@"\n'


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the stand-ins first on the path."""
    tools = tmp_path / "bin"
    tools.mkdir()
    proctool = _PROCTOOL.format(python=sys.executable, fake=FAKE)
    for name, text in {"proctool": proctool, "sbatch": _SBATCH, "srun": _SRUN}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def done(plan: Plan) -> set[str]:
    return {stage.name for stage in plan.stages} - {stage.name for stage in plan.missing()}


def make(plan: Plan) -> int:
    Path("graph.mk").write_text(emit.makefile(plan))
    return subprocess.run(["make", "-f", "graph.mk", "-j", "2", "-k", "tiny"], capture_output=True).returncode


def submit(plan: Plan) -> int:
    for path, text in emit.slurm(plan).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return subprocess.run(["bash", str(plan.root / "slurm" / "submit.sh")], capture_output=True).returncode


@pytest.mark.parametrize("run", [make, submit])
def test_a_scheduler_runs_the_graph_and_goes_past_a_failure(there: Path, run: object) -> None:
    plan = planned(Path("runs/tiny"), arms=ARMS)
    plan.root.mkdir(parents=True)
    (plan.root / "fail-warmup-set").touch()
    run(plan)  # type: ignore[operator]
    assert done(plan) == {"warmup-sort-s0", "pretrain-sort-s0", "pretrain-cold-s0"}
    (plan.root / "fail-warmup-set").unlink()
    before = (plan.root / "calls").read_text()
    assert run(plan) == 0  # type: ignore[operator]
    assert plan.missing() == []
    assert (plan.root / "report.html").exists()
    # What was done before is not begun again.
    again = (plan.root / "calls").read_text()[len(before) :].splitlines()
    assert sorted(name.rpartition("-")[0] for name in again) == ["pretrain-set-s0", "warmup-set-s0"]


def test_arrays_wait_for_each_other_and_stay_within_the_limit(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "LARGEST_ARRAY", 2)
    plan = planned(Path("runs/tiny"), arms=ARMS, launch={"processes": 4, "sbatch": {"partition": "gpu"}})
    files = {path.name: text for path, text in emit.slurm(plan).items()}
    # Level 1: two warm-ups and the cold arm, as two arrays; level 2: the warmed arms.
    assert [len(files[name].splitlines()) for name in ("1-1.txt", "1-2.txt", "2-1.txt")] == [2, 1, 2]
    assert files["submit.sh"].count("--dependency=afterany$before") == 4
    assert "#SBATCH --partition=gpu\n" in files["stage.sh"]
    assert "#SBATCH --gpus=4\n" in files["stage.sh"]
    assert "srun torchrun --standalone --nproc_per_node 4 -m proctool pretrain" in files["2-1.txt"]
    submit(plan)
    assert "--dependency=afterany:1:2" in Path("sbatch.log").read_text()


def test_the_report_job_has_the_clusters_options_but_no_gpu(root: Path) -> None:
    sbatch = {"partition": "gpu", "account": "lab", "gres": "gpu:4", "nodes": "1", "gpus-per-node": "4"}
    files = {path.name: text for path, text in emit.slurm(planned(root, launch={"sbatch": sbatch})).items()}
    report = files["submit.sh"].splitlines()[-1]
    assert "--partition=gpu --account=lab " in report
    assert not any(word in report for word in ("gres", "nodes", "gpus"))


def test_make_reports_although_a_stage_failed(there: Path) -> None:
    plan = planned(Path("runs/tiny"), arms=ARMS)
    plan.root.mkdir(parents=True)
    (plan.root / "fail-warmup-set").touch()
    make(plan)
    assert not (plan.root / "report.html").exists()
    assert subprocess.run(["make", "-f", "graph.mk", "tiny-report"], capture_output=True).returncode == 0
    assert (plan.root / "report.html").exists()
    assert plan.missing()


@pytest.mark.parametrize("code", [1, 129, 130, 137, 138, 140, 143])
def test_slurm_gives_a_stage_another_turn_while_it_gets_further(there: Path, code: int) -> None:
    """Each turn ends with `code` and the checkpoint of the step that `steps` says next."""
    plan = planned(Path("runs/tiny"))
    for path, text in emit.slurm(plan).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (there / "bin" / "proctool").write_text(
        f"#!/bin/sh\nwhile [ $# -gt 0 ]; do [ $1 = --run-dir ] && folder=$2; shift; done\n"
        f'read step < step\nmkdir -p "$folder/checkpoints"\n'
        f'[ -z "$step" ] || touch "$folder/checkpoints/step-$step.safetensors"\nexit {code}\n'
    )
    (there / "bin" / "scontrol").write_text("#!/bin/sh\necho requeued >> asked\n")
    (there / "bin" / "scontrol").chmod(0o755)
    asked = []
    for step in ("", "00000010", "00000010", "00000020", "00000020"):
        Path("step").write_text(f"{step}\n")
        subprocess.run(
            ["bash", "runs/tiny/slurm/stage.sh", "runs/tiny/slurm/1-1.txt"],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "7"},
            capture_output=True,
        )
        asked.append(len(Path("asked").read_text().splitlines()) if Path("asked").exists() else 0)
    assert asked == ([0, 1, 1, 2, 2] if code in (1, 137) else [1, 2, 3, 4, 5])


def test_what_is_done_is_stamped_and_what_is_lost_is_not(there: Path) -> None:
    plan = planned(Path("runs/tiny"), arms=ARMS)
    plan.root.mkdir(parents=True)
    assert make(plan) == 0
    for mark in plan.root.glob("*/.done"):
        mark.unlink()
    lost = plan.arms["set"][0].pretrain
    assert lost is not None
    artifact = lost.artifact(plan.root)
    assert artifact is not None
    artifact.unlink()
    (lost.folder(plan.root) / ".done").touch()
    before = (plan.root / "calls").read_text()
    emit.stamp(plan)
    assert make(plan) == 0
    assert (plan.root / "calls").read_text()[len(before) :].rpartition("-")[0] == "pretrain-set-s0"


def test_make_takes_no_folder_that_it_cannot_name(root: Path) -> None:
    with pytest.raises(OptionError, match="choose another with --runs"):
        emit.makefile(planned(root.with_name("with space")))
