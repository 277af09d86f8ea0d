"""The graph for other schedulers: a Makefile, or job arrays for Slurm. Each stage is the plain proctool command.

A finished stage leaves the file `.done` in its folder, by which the others know that they can start; `stamp` gives it
to those that are done when the graph is handed over. Commands go on
from their checkpoints by themselves, so a stage that was interrupted is simply started again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from proctool.errors import OptionError
from proctool.experiment.graph import Plan
from proctool.experiment.launch import written
from proctool.experiment.stage import Stage

LARGEST_ARRAY = 1000
"""Tasks in one job array; Slurm's own default limit (MaxArraySize) is 1001."""


def stamp(plan: Plan) -> None:
    """Make every stage's `.done` say what is: those done here, or taken over, have it, parents before children."""
    for stage in plan.stages:
        mark = _stamp(stage, plan.root)
        if stage.is_done(plan.root):
            mark.touch()
        else:
            mark.unlink(missing_ok=True)


def makefile(plan: Plan) -> str:
    """Rules for every stage, for the report, and the target `NAME` for all; `make -j N -k NAME` runs them.

    `NAME-report` makes the report of what is done, whatever has failed.

    Raises OptionError where a path cannot stand in a Makefile.
    """
    root, name = plan.root, plan.recipe.name
    if re.search(r"[\s#$%:=;|&*?\[\]\\'\"]", str(root)):
        raise OptionError(f"{root}: make cannot work in folders with such a name; choose another with --runs")
    done = " \\\n    ".join(str(_stamp(stage, root)) for stage in plan.stages)
    parts = [
        f"# {name}: {len(plan.stages)} stages, made by `proctool run --emit make`.",
        f"# Run them with `make -f THIS-FILE -j 2 -k {name}`: -k goes on past a stage that fails.",
        f"# Where one did, `make -f THIS-FILE {name}-report` reports on the others.",
        f".PHONY: {name} {name}-report",
        f"{name}-report:\n\tproctool report {root}",
        f"{name}: {root}/report.html",
        f"{root}/report.html: {done}\n\tproctool report {root}",
    ]
    for stage in plan.stages:
        stamp = _stamp(stage, root)
        parents = "".join(f" {_stamp(parent, root)}" for parent in stage.parents)
        command = shlex.join(written(stage, root, plan.recipe.launch)).replace("$", "$$")
        parts.append(f"{stamp}:{parents}\n\t@mkdir -p {stamp.parent}\n\t{command}\n\t@touch $@")
    return "\n\n".join(parts) + "\n"


def slurm(plan: Plan) -> dict[Path, str]:
    """Files by path: lists of command lines, a batch script that runs one line of one, and `submit.sh` for all.

    Stages that can run at the same time are one array (several, above `LARGEST_ARRAY`). An array waits for those before
    it to end, well or not; a stage whose own parents are not done then says so, and the others go on.
    """
    root, folder = plan.root, plan.root / "slurm"
    files: dict[Path, str] = {}
    submit = [
        "#!/bin/bash",
        f"# {plan.recipe.name}: {len(plan.stages)} stages. Submit from the folder in which this was written:",
        f"#   bash {shlex.quote(str(folder / 'submit.sh'))}",
        "# Submitted again after a failure or a time limit, it does what is left.",
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        "before=",
    ]
    for level, stages in enumerate(_levels(plan.stages), 1):
        submit.append("jobs=")
        for place in range(0, len(stages), LARGEST_ARRAY):
            chunk = stages[place : place + LARGEST_ARRAY]
            lines = folder / f"{level}-{place // LARGEST_ARRAY + 1}.txt"
            files[lines] = "".join(f"{_line(stage, plan)}\n" for stage in chunk)
            submit.append(
                f"jobs+=:$(sbatch --parsable ${{before:+--dependency=afterany$before}} --array=0-{len(chunk) - 1} "
                f"--job-name={plan.recipe.name}-{lines.stem} {_quoted(folder / 'stage.sh')} {_quoted(lines)})"
            )
        submit.append("before=$jobs")
    submit.append(
        f"sbatch --parsable --dependency=afterany$before {_report_options(plan)}--job-name={plan.recipe.name}-report "
        f"--output={_quoted(folder / 'report.txt')} --wrap={shlex.quote(shlex.join(['proctool', 'report', str(root)]))}"
    )
    files[folder / "stage.sh"] = _BATCH.format(
        options="".join(f"#SBATCH --{name}={value}\n" for name, value in _sbatch(plan).items())
    )
    files[folder / "submit.sh"] = "\n".join(submit) + "\n"
    return files


# TERM two minutes before the time limit lets a stage save a checkpoint; it then asks for another turn. So does one that
# a signal ended before proctool could take it: 128 and the number of HUP, USR1, USR2 or TERM. Under torchrun the exit
# code 130 becomes 1, as that of any failure: so a stage that got further than at its last turn has one more.
_BATCH = """#!/bin/bash
{options}#SBATCH --signal=TERM@120
#SBATCH --requeue
line=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")
needs() {{
    for stamp in "$@"; do
        [ -e "$stamp" ] || {{ echo "left out: $stamp is missing"; exit 1; }}
    done
}}
folder=
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2  # torchrun passes these on
eval "$line"
code=$?
latest=$(ls "$folder"/checkpoints/step-*.safetensors 2>/dev/null | tail -n 1)
further() {{
    [ -n "$latest" ] && [ "$latest" != "$(cat "$folder/.requeued" 2>/dev/null)" ]
}}
asked_to_stop() {{
    case $code in 129|130|138|140|143) true ;; *) false ;; esac
}}
if asked_to_stop || {{ [ $code -ne 0 ] && further; }}; then
    [ -z "$latest" ] || echo "$latest" > "$folder/.requeued"
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit $code
"""


def _sbatch(plan: Plan) -> dict[str, str]:
    launch = plan.recipe.launch
    options = {"output": f"{plan.root}/slurm/%x-%a.txt", "ntasks": "1"}
    if launch.processes > 1 and not any(name.startswith("gpus") or name == "gres" for name in launch.sbatch):
        options["gpus"] = str(launch.processes)
    return options | launch.sbatch


def _report_options(plan: Plan) -> str:
    """The cluster's options for the job that reports, which needs one core and no GPU."""
    ours = {
        name: value
        for name, value in plan.recipe.launch.sbatch.items()
        if not name.startswith(("gpu", "gres", "node", "ntasks", "tres")) and not name.endswith("-per-gpu")
    }
    return "".join(f"--{name}={shlex.quote(value)} " for name, value in ours.items())


def _line(stage: Stage, plan: Plan) -> str:
    stamp = _stamp(stage, plan.root)
    words = shlex.join(written(stage, plan.root, plan.recipe.launch))
    needs = "".join(f" {_quoted(_stamp(parent, plan.root))}" for parent in stage.parents)
    parts = [f"folder={_quoted(stamp.parent)}", *([f"needs{needs}"] if needs else [])]
    parts += [f"mkdir -p {_quoted(stamp.parent)}", f"{{ [ -e {_quoted(stamp)} ] || srun {words}; }}"]
    return " && ".join([*parts, f"touch {_quoted(stamp)}"])


def _levels(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages by how many others they wait for, one after the other."""
    depth: dict[str, int] = {}
    levels: list[list[Stage]] = []
    for stage in stages:
        depth[stage.key] = 1 + max((depth[parent.key] for parent in stage.parents), default=-1)
        if depth[stage.key] == len(levels):
            levels.append([])
        levels[depth[stage.key]].append(stage)
    return levels


def _stamp(stage: Stage, root: Path) -> Path:
    return stage.folder(root) / ".done"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
