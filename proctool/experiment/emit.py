"""The graph for other schedulers: a Makefile, or job arrays for Slurm. Each stage is a plain proctool command.

A stage writes the file `.done` to its folder when its command exits with 0; then the stages that need it start. `stamp`
creates this file for finished stages (`Stage.state`) when the graph is written, and removes it from the others.
Commands resume automatically, so an interrupted stage is just started again.
"""

from __future__ import annotations

import re
import shlex
import signal
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from proctool.errors import OptionError
from proctool.experiment.graph import Plan
from proctool.experiment.launch import written
from proctool.experiment.stage import Stage

LARGEST_ARRAY = 1000
"""Most tasks in a job array; Slurm's default limit (MaxArraySize) is 1001."""


def stamp(plan: Plan) -> None:
    """Create `.done` for every finished or reused stage and remove it from the others, parents before children."""
    for stage in plan.stages:
        mark = _stamp(stage, plan.root)
        if stage.is_done(plan.root):
            mark.touch()
        else:
            mark.unlink(missing_ok=True)


def makefile(plan: Plan) -> str:
    """A Makefile with a rule per stage, one for the report, and the target `NAME` for all: `make -j N -k NAME`.

    `NAME-report` reports on the finished stages even if others failed. Paths are only in recipe lines, which the shell
    reads, because make cannot quote a space or a percent sign in the name of a target.

    Raises OptionError for a path that a script cannot hold.
    """
    root, name = plan.root, plan.recipe.name
    report = _recipe(["proctool", "report", str(root)])
    targets = {stage.key: stage.folder(root).name for stage in plan.stages}
    parts = [
        f"# {name}: {len(plan.stages)} stages, made by `proctool run --emit make`.",
        f"# Run them with `make -f THIS-FILE -j 2 -k {name}`; with -k, a failed stage does not stop the others.",
        f"# If a stage failed, `make -f THIS-FILE {name}-report` reports on the others.",
        " \\\n    ".join([f".PHONY: {name} {name}-report", *targets.values()]),
        " \\\n    ".join([f"{name}:", *targets.values()]) + f"\n\t{report}",
        f"{name}-report:\n\t{report}",
    ]
    for stage in plan.stages:
        mark = _stamp(stage, root)
        parents = "".join(f" {targets[parent.key]}" for parent in stage.parents)
        unless = f"@[ -e {_recipe([str(mark)])} ] || {{ mkdir -p {_recipe([str(mark.parent)])}"
        command = _recipe(written(stage, root, plan.recipe.launch))
        shown = f"printf '%s\\n' {_recipe([shlex.join(written(stage, root, plan.recipe.launch))])}"
        rule = f"{unless} && {shown} && {command} && touch {_recipe([str(mark)])}; }}"
        parts.append(f"{targets[stage.key]}:{parents}\n\t{rule}")
    return "\n\n".join(parts) + "\n"


def _recipe(words: Sequence[str]) -> str:
    return _joined(words).replace("$", "$$")


def _joined(words: Sequence[str]) -> str:
    """Words quoted for a shell, on one line. Raises OptionError if a word has a line break."""
    for word in words:
        if not word.isprintable() and any(unicodedata.category(each) == "Cc" for each in word):
            raise OptionError(
                f"{word!r}: has a line break or another control character, which a script cannot hold; rename it"
            )
    return shlex.join(words)


def slurm(plan: Plan) -> dict[Path, str]:
    """The files for Slurm by path: lists of command lines, a batch script that runs one line, and `submit.sh`.

    Stages that can run at the same time are one array (several above `LARGEST_ARRAY`). An array starts when all earlier
    arrays have ended, even with failures. A stage whose parents are not done then exits with a message; the others run.
    """
    root, folder = plan.root, plan.root / "slurm"
    files: dict[Path, str] = {}
    submit = [
        "#!/bin/bash",
        f"# {plan.recipe.name}: {len(plan.stages)} stages. Submit from the folder where this file was written:",
        f"#   bash {_quoted(folder / 'submit.sh')}",
        "# After a failure or a time limit, submit again: it runs the stages that are left.",
        "set -euo pipefail",
        f"cd {_quoted(Path.cwd())}",
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
        f"--output={shlex.quote(_in_pattern(folder / 'report.txt'))} "
        f"--wrap={shlex.quote(_joined(['proctool', 'report', str(root)]))}"
    )
    options = _sbatch(plan)
    asked = dict.fromkeys(["TERM", _signal(options["signal"])])
    files[folder / "stage.sh"] = _BATCH.format(
        options="".join(f"#SBATCH {_directive(name, value)}\n" for name, value in options.items()),
        signals=" ".join(asked),
        codes="|".join(["130", *(str(128 + _number(name)) for name in dict.fromkeys([*_ENDING, *asked]))]),
    )
    files[folder / "submit.sh"] = "\n".join(submit) + "\n"
    return files


# TERM two minutes before the time limit (or the signal of `sbatch: {signal: ...}`) makes a stage save a checkpoint and
# requeue. Slurm signals the stage, or with `B:` this script, which passes the signal on as TERM. It uses scancel,
# because a TERM to srun kills the stage. A stage that does not catch signals yet exits with 128 + the number of HUP,
# USR1, USR2 or TERM. Under torchrun the exit code 130 becomes 1, like that of any failure, so a failed stage is
# requeued if it has a newer checkpoint than at its last start.
_ENDING = ("HUP", "USR1", "USR2", "TERM")
_BATCH = """#!/bin/bash
{options}#SBATCH --requeue
line=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")
asked= child=
forward() {{
    asked=1
    [ -z "$child" ] || stop
}}
stop() {{
    if command -v scancel >/dev/null; then scancel --signal=TERM "$SLURM_JOB_ID"; else kill -TERM "$child"; fi
}}
trap forward {signals}
srun() {{
    [ -z "$asked" ] || return 130
    command srun "$@" &
    child=$!
    [ -z "$asked" ] || stop
    while
        asked=
        wait "$child"
        code=$?
        [ -n "$asked" ]  # the signal ended the wait, not the stage
    do :; done
    child=
    return $code
}}
needs() {{
    for stamp in "$@"; do
        [ -e "$stamp" ] || {{ echo "skipped: $stamp is missing"; exit 1; }}
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
if [[ $code =~ ^({codes})$ ]] || {{ [ $code -ne 0 ] && further; }}; then
    [ -z "$latest" ] || echo "$latest" > "$folder/.requeued"
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit $code
"""


def _sbatch(plan: Plan) -> dict[str, str]:
    launch = plan.recipe.launch
    output = f"{_in_pattern(plan.root / 'slurm')}/%x-%a.txt"
    options = {"output": output, "ntasks": "1", "signal": "TERM@120"}
    if launch.processes > 1 and not any(name.startswith("gpus") or name == "gres" for name in launch.sbatch):
        options["gpus"] = str(launch.processes)
    return options | launch.sbatch


def _report_options(plan: Plan) -> str:
    """The cluster's options for the report job, which needs one core and no GPU."""
    ours = {
        name: value
        for name, value in plan.recipe.launch.sbatch.items()
        if not name.startswith(("gpu", "gres", "node", "ntasks", "tres", "exclusive", "signal"))
        and not name.endswith("-per-gpu")
    }
    return "".join(f"--{name}={shlex.quote(value)} " if value else f"--{name} " for name, value in ours.items())


def _directive(name: str, value: str) -> str:
    """An option for a `#SBATCH` line. No shell reads it, but sbatch handles quotes, backslashes and comments."""
    if re.fullmatch(r"[\w@%+=:,./-]*", value):
        return f"--{name}={value}" if value else f"--{name}"
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'--{name}="{escaped}"'


def _in_pattern(path: Path) -> str:
    """A path escaped for Slurm, which expands %x in it. Raises OptionError if that is impossible."""
    if "\\" in str(path):
        raise OptionError(f"{path}: Slurm does not support a backslash in this path; choose another folder with --runs")
    _quoted(path)
    return str(path).replace("%", "%%")


def _signal(written: str) -> str:
    """The signal's name in an option of sbatch such as B:USR1@300. Raises OptionError."""
    found = re.fullmatch(r"(?:[RB]{1,2}:)?(?:SIG)?([A-Z][A-Z0-9]*|[0-9]+)(?:@[0-9]+)?", written)
    name = found[1] if found else ""
    known = {each.name.removeprefix("SIG") for each in signal.Signals} | {str(each.value) for each in signal.Signals}
    if name not in known - {"KILL", "STOP", str(int(signal.SIGKILL)), str(int(signal.SIGSTOP))}:
        raise OptionError(
            f"launch.sbatch.signal: {written!r} is not a signal that a stage can catch; write for example B:USR1@300"
        )
    return name


def _number(name: str) -> int:
    return int(name) if name.isdecimal() else int(signal.Signals[f"SIG{name}"])


def _line(stage: Stage, plan: Plan) -> str:
    stamp = _stamp(stage, plan.root)
    words = _joined(written(stage, plan.root, plan.recipe.launch))
    needs = "".join(f" {_quoted(_stamp(parent, plan.root))}" for parent in stage.parents)
    parts = [f"folder={_quoted(stamp.parent)}", *([f"needs{needs}"] if needs else [])]
    parts += [f"mkdir -p {_quoted(stamp.parent)}", f"{{ [ -e {_quoted(stamp)} ] || srun {words}; }}"]
    return " && ".join([*parts, f"touch {_quoted(stamp)}"])


def _levels(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages by the length of the chain of stages that they wait for."""
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
    return _joined([str(path)])
