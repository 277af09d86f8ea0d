"""The paths of a training run: its run folder and its weight files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctool.errors import ArtifactError
from proctool.events import FILE, EndEvent, read_events
from proctool.outputs import Output, holds_nothing, reads_of, require_safe
from proctool.training.extension import EXTENDABLE
from proctool.training.options import TrainingOptions
from proctool.training.run_form import changed_settings, read_form, require_run_folder

RUN_SUFFIX = ".run"
_RUNS = Path("runs")


def run_folder_of(output: Path) -> Path:
    """The run folder that belongs to an output: `a/m.run` for `a/m.safetensors`. Raises ArtifactError."""
    if not output.name:
        raise ArtifactError(f"{output}: is a folder; give a file name as --output")
    return output.with_name(output.name.removesuffix(".safetensors") + RUN_SUFFIX)


def best_of(output: Path) -> Path:
    """The file that `--save both` writes the best weights to: `a/m-best.safetensors` for `a/m.safetensors`."""
    return output.with_stem(f"{output.stem}-best")


def artifact_path(folder: Path) -> Path:
    """The file of the trained model in the run folder of a diagnostic."""
    return folder / "model.safetensors"


def outputs_of(options: TrainingOptions, output: Path | None) -> list[tuple[str, Path, str]]:
    """For each file of weights: which weights it gets ("last" or "best") and the prefix of its end event fields."""
    if output is None:
        return []
    if options.save == "both":
        return [("last", output, ""), ("best", best_of(output), "best_")]
    return [(options.save or "last", output, "")]


def run_path(command: str, options: TrainingOptions, output: Path | None) -> Path:
    """The folder of a run that writes `output`."""
    if options.run_dir is not None:
        return options.run_dir
    return run_folder_of(output) if output is not None else _RUNS / command.replace(" ", "-")


def earlier_run_path(options: TrainingOptions, output: Path | None, settings: Mapping[str, Any]) -> Path | None:
    """The folder where earlier versions of proctool put this run: `runs/NAME` for `a/NAME.safetensors`.

    None if it has no run with these settings or a run of another output, or if the run folder next to the output is in
    use. Raises RunError, OSError.
    """
    if output is None or options.run_dir is not None or options.resume == "never":
        return None
    folder = _RUNS / output.stem
    found = read_form(folder)
    if found is None or not (folder / FILE).exists() or not holds_nothing(run_folder_of(output)):
        return None
    # A run with the initial weights of that version matches too; opening it names the flag that continues it.
    may_differ = {"init_std", "tie"} | (EXTENDABLE if options.extend else frozenset())
    if not may_differ.issuperset(changed_settings(found, settings)):
        return None
    ends = [event for event in read_events(folder) if isinstance(event, EndEvent)]
    if any(os.path.realpath(end.artifact or "") != os.path.realpath(output) for end in ends):
        return None
    return folder


def check_files(command: str, options: TrainingOptions, output: Path | None) -> None:
    """Check, before any work, that the run overwrites neither its inputs nor files that proctool did not write.

    Raises ArtifactError, OptionError, RunError.
    """
    run_folder = run_path(command, options, output)
    outputs = [Output(path, "--output", "model") for _, path, _ in outputs_of(options, output)]
    cache_dir = getattr(options, "cache_dir", None)
    require_safe(outputs, reads_of(options), run_folder=run_folder, cache_dir=cache_dir)
    require_run_folder(run_folder)
