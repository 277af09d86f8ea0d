"""The results of diagnostics and benchmarks, and `results.jsonl`, which holds one JSON object per line for each:

    {"event": "diagnostic", "diagnostic": "haystack", "init": "warm", "seed": 0, "scores": {...}, "curve": [...], ...}
    {"event": "summary", "diagnostic": "haystack", "init": "warm", "seeds": [0, 1, 2], "scores": {...}, ...}
    {"event": "harness", "model": "m.safetensors", "results": {"piqa": {"acc": 0.61, ...}}, "samples": {...}, ...}

The file of a run has one line. The file of a study has one line per run, then one per init; that of a
benchmark has one line. Losses are in nats per
token, null if not finite; accuracies are shares from 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from proctool import artifact, config
from proctool.errors import RunError
from proctool.untrusted import parse_json, typed

RESULTS = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """The scores of a trained model, for one kind of scoring."""

    loss: float | None
    accuracy: float
    exact_match: float
    targets: int
    """Number of scored target tokens."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One evaluation of a run on samples of full size."""

    step: int
    tokens: int | None
    loss: float | None
    accuracy: float
    exact_match: float


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """The validation samples of a diagnostic, the same for all runs."""

    split: str
    seed: int
    samples: int
    sha256: str
    """Hash of the sequences and their targets."""


@dataclass(frozen=True, kw_only=True)
class DiagnosticRun:
    """One init with one seed."""

    kind: ClassVar[str] = "diagnostic"
    diagnostic: str
    task: str
    """The full specification."""
    init: str
    """The name of the init in tables."""
    init_file: str | None
    """The init; None for fresh weights."""
    init_content: str | None
    """Hash of the init's tensors, if it is an artifact."""
    seed: int
    steps: int
    tokens: int
    scores: Mapping[str, RunScores]
    """Scores by kind of scoring: answer, and official if the task has it."""
    curve: tuple[CurvePoint, ...]
    held_out: ValidationSet
    artifact: str | None
    content: str | None
    """Hash of the trained model's tensors."""
    run_dir: str
    seconds: float | None
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """The mean of a share over the seeds, with its 95 % interval for two or more seeds."""

    mean: float
    low: float | None
    high: float | None
    n: int
    method: str | None
    """Method of the interval."""


@dataclass(frozen=True, kw_only=True)
class MeanScores:
    """Scores over the seeds, for one kind of scoring."""

    accuracy: SeedMean
    exact_match: SeedMean


@dataclass(frozen=True, kw_only=True)
class MeanPoint(MeanScores):
    """A point of the learning curve over the seeds."""

    step: int


@dataclass(frozen=True, kw_only=True)
class DiagnosticSummary:
    """One init over its seeds."""

    kind: ClassVar[str] = "summary"
    diagnostic: str
    task: str
    init: str
    init_content: str | None
    seeds: tuple[int, ...]
    scores: Mapping[str, MeanScores]
    curve: tuple[MeanPoint, ...]
    held_out: ValidationSet
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class HarnessScores:
    """Scores of a model on tasks of lm-evaluation-harness."""

    kind: ClassVar[str] = "harness"
    model: str
    content: str | None
    """Hash of the model's tensors."""
    lm_eval: str
    """Version of the harness."""
    limit: int | None
    num_fewshot: int | None
    results: Mapping[str, Mapping[str, float]]
    """By task, then metric; that of a standard error ends with _stderr. Metrics that are not finite are left out."""
    samples: Mapping[str, int]
    """Number of samples by task."""
    task_versions: Mapping[str, str]


ResultLine = DiagnosticRun | DiagnosticSummary | HarnessScores
_KINDS: Mapping[str, type[ResultLine]] = {made.kind: made for made in (DiagnosticRun, DiagnosticSummary, HarnessScores)}


def to_json(line: ResultLine) -> dict[str, Any]:
    """The result as a JSON object."""
    return {"event": line.kind, **config.plain(line)}


def write_results(path: Path, lines: Sequence[ResultLine]) -> None:
    """Write a results file atomically."""
    with artifact.replacing(path) as file:
        file.write("".join(json.dumps(to_json(line), allow_nan=False) + "\n" for line in lines).encode())


def read_results(path: Path) -> list[ResultLine]:
    """Read a results file. Raises RunError naming an invalid line; OSError."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            value = parse_json(line)
            made: ResultLine = typed(_KINDS[value["event"]], value)
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{path}: line {number} is damaged or not a result of proctool; remove the file") from None
        found.append(made)
    return found


def holds_results(path: Path) -> bool:
    """Whether proctool wrote this file, in any version: its first line names a kind of result."""
    with path.open("rb") as file:
        line = file.readline(1 << 26)
    try:
        return parse_json(line)["event"] in _KINDS
    except (ValueError, KeyError, TypeError):
        return False
