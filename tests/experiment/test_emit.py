"""The graph handed to other schedulers: real make, and a stand-in for Slurm, over the stand-in for proctool."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_experiment import FAKE, planned

from proctool.errors import OptionError
from proctool.experiment import emit
from proctool.experiment.graph import Plan, plan
from proctool.recipe import load_recipe

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
    plan = planned(Path("runs/tiny"), launch={"sbatch": {"signal": "USR1@90"}})
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


# Every character that a shell, make, sbatch or Slurm's file names treat as its own.
ODD = "my 'runs' $HOME $(x) #1 100% \"q\" ~ * ;|&<> = : `d` é"


def sbatch_words(line: str) -> list[str]:
    """The words of a `#SBATCH` line as sbatch cuts them (get_argument in Slurm's src/sbatch/opt.c)."""
    words, word, quote, place = [], "", "", len("#SBATCH")
    while place < len(line):
        letter = line[place]
        if letter == "\\":
            place += 1
            word += line[place]
        elif quote:
            quote, word = ("", word) if letter == quote else (quote, word + letter)
        elif letter in "\"'":
            quote = letter
        elif letter == "#":
            break
        elif letter.isspace():
            words, word = [*words, word] if word else words, ""
        else:
            word += letter
        place += 1
    assert not quote
    return [*words, word] if word else words


@pytest.mark.parametrize("run", [make, submit])
@pytest.mark.parametrize("folder", [ODD, "back\\slash"])
def test_folders_of_any_name(there: Path, run: object, folder: str) -> None:
    plan = planned(Path(folder) / "tiny", arms=ARMS)
    plan.root.mkdir(parents=True)
    if run is submit and "\\" in folder:  # Slurm would write to a file named %x-%a.txt
        with pytest.raises(OptionError, match="backslash"):
            emit.slurm(plan)
        return
    assert run(plan) == 0  # type: ignore[operator]
    assert plan.missing() == []
    assert (plan.root / "report.html").exists()


def test_no_form_holds_a_line_break(there: Path) -> None:
    for made in (planned(Path("two\nlines/tiny")), planned(Path("tiny"), corpus="two\nlines")):
        for form in (emit.makefile, emit.slurm):
            with pytest.raises(OptionError, match="line break"):
                form(made)


def test_options_of_sbatch_arrive_as_they_are_written(there: Path) -> None:
    path = there / "r.yaml"
    path.write_text(
        "name: tiny\nmodel: 2x2x16\ncorpus: python\narms: {cold: {}}\nlaunch:\n  sbatch:\n"
        "    time: 24:00:00\n    begin: 16:00\n    account: 0123\n    cpus-per-task: 010\n    nodes: 1\n"
        "    constraint: a100|h100\n    comment: 'it''s #1 \"x\" \\ $HOME'\n"
        "    exclusive: true\n    hold:\n    contiguous: false\n"
    )
    files = {each.name: text for each, text in emit.slurm(plan(load_recipe(path), Path(ODD) / "tiny")).items()}
    lines = [line for line in files["stage.sh"].splitlines() if line.startswith("#SBATCH")]
    options = [word for line in lines for word in sbatch_words(line)]
    wanted = {
        "--time=24:00:00", "--begin=16:00", "--account=0123", "--cpus-per-task=010", "--nodes=1",
        "--constraint=a100|h100", "--comment=it's #1 \"x\" \\ $HOME", "--exclusive", "--hold", "--ntasks=1",
        "--signal=TERM@120", "--requeue", f"--output={ODD.replace('%', '%%')}/tiny/slurm/%x-%a.txt",
    }  # fmt: skip
    assert set(options) == wanted
    report = shlex.split(files["submit.sh"].splitlines()[-1])
    assert {"--time=24:00:00", "--constraint=a100|h100", '--comment=it\'s #1 "x" \\ $HOME'} < set(report)


@pytest.mark.parametrize("sent", ["TERM", "USR1"])
def test_a_signal_to_the_script_reaches_the_stage_and_asks_for_another_turn(there: Path, sent: str) -> None:
    plan = planned(Path("runs/tiny"), launch={"sbatch": {"signal": "B:USR1@300"}})
    for path, text in emit.slurm(plan).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    script = Path("runs/tiny/slurm/stage.sh")
    signals = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH --signal")]
    assert signals == ["#SBATCH --signal=B:USR1@300"]
    fakes = {
        "proctool": "trap 'echo saved >> log; exit 130' TERM\necho $$ > stage\nwhile :; do sleep 0.02; done\n",
        "scontrol": 'echo "$@" >> log\n',
        "scancel": '[ "$*" = "--signal=TERM 70" ] && kill -TERM $(cat stage)\n',
    }
    for name, text in fakes.items():
        (there / "bin" / name).write_text("#!/bin/bash\n" + text)
        (there / "bin" / name).chmod(0o755)
    numbers = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": "70"}
    process = subprocess.Popen(["bash", script, "runs/tiny/slurm/1-1.txt"], env={**os.environ, **numbers})
    while not Path("stage").exists() or not Path("stage").read_text():
        assert process.poll() is None
    process.send_signal(getattr(signal, f"SIG{sent}"))
    assert process.wait(timeout=60) == 130
    assert Path("log").read_text().splitlines() == ["saved", "requeue 7_0"]


@pytest.mark.parametrize("written", ["USR9@60", "B:KILL@60", "STOP", "9", "TERM @60", "@60", ""])
def test_a_signal_that_no_stage_can_catch_is_refused(root: Path, written: str) -> None:
    with pytest.raises(OptionError, match=r"launch\.sbatch\.signal"):
        emit.slurm(planned(root, launch={"sbatch": {"signal": written}}))
