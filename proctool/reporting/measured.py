"""One training run's folder as numbers: its curve, its cost, its settings and the origin of its weights."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from proctool import artifact
from proctool.errors import OptionError, RunError
from proctool.paths import user_path
from proctool.procedural.registry import parse_spec
from proctool.reporting.compare import Curve, Run
from proctool.reporting.controls import Start
from proctool.reporting.metrics import MetricsLog, read_metrics
from proctool.training.run_place import run_folder_of
from proctool.transplantation.origin import read_carried
from proctool.untrusted import parse_json


@dataclass(frozen=True, eq=False)
class Score:
    """One diagnostic from one arm with one seed: accuracy (share of correct targets) on validation samples."""

    tokens: tuple[int, ...]
    accuracy: tuple[float, ...]
    samples: int | None
    """Validation samples scored, which gives the sampling noise."""
    exact_match: float | None = None
    """Final share of samples with every target correct."""
    steps: int | None = None
    """Steps taken."""
    task: str | None = None
    """The task's full specification, including its scoring; None if the run does not record it."""

    runs: tuple[float, ...] = ()
    """The final accuracy of each run, if this is the mean of several."""

    @property
    def scoring(self) -> str | None:
        """How answers of arithmetic are scored: answer or official."""
        if self.task is None:
            return None
        with contextlib.suppress(OptionError):  # a task that is not installed here
            return getattr(parse_spec(self.task), "scoring", None)
        return None

    def differs(self, other: Score) -> str | None:
        """What makes accuracies incomparable, in words; None if nothing does."""
        if self.task is None or other.task is None or self.task == other.task:
            return None
        return f"task {self.task} instead of {other.task}"


@dataclass(frozen=True)
class Setting:
    """What losses are measured on. Losses are comparable if all known fields are equal."""

    corpus: str | None
    tokenizer: str | None
    context: int | None
    content: str | None
    """Hash of the token store."""
    rows: str | None = None
    """The half of the validation rows that is scored; None for all."""

    def differs(self, other: Setting) -> str | None:
        """What makes losses incomparable, in words; None if nothing does."""
        for name in ("corpus", "tokenizer", "context", "content"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and mine != theirs:
                if name == "content":
                    return f"a corpus of the same name with different text (content {mine:.12} instead of {theirs:.12})"
                return f"{name} {mine} instead of {theirs}"
        if self.rows != other.rows:
            mine, theirs = (each.rows or "all" for each in (self, other))
            return f"losses on other validation rows ({mine} instead of {theirs})"
        return None


@dataclass(frozen=True)
class Warmup:
    """The total cost of an arm's warm-ups."""

    tokens: float | None = 0.0
    """None if not known; so are the FLOPs and the tokens of text."""
    flops: float | None = 0.0
    tasks: tuple[str, ...] = ()
    text_tokens: float | None = 0.0
    """Those of the tokens that are natural text."""
    corpora: tuple[str, ...] = ()
    """The corpora that these come from."""


def run_of(log: MetricsLog, warmup: Warmup) -> Run | None:
    """A pretraining run; None without a validation loss."""
    tokens, loss = log.measured("loss")
    if not tokens or tokens[-1] <= 0:
        return None
    curve = Curve(np.array(tokens, float), np.array(loss, float))
    others = {}
    for measure in ("accuracy", "exact_match"):
        at, shares = log.measured(measure)
        if at:
            others[measure] = Curve(np.array(at, float), np.array(shares, float))
    mixed = (log.end.procedural_tokens or 0) if log.end is not None else 0
    return Run(
        curve, warmup.tokens, flops_of(log), warmup.flops, tokens_per_step=_per_step(log), mixed_tokens=mixed,
        shares=others,
        loss_parts=log.end.loss_parts if log.end is not None else None,
        induction=log.end.induction if log.end is not None else None,
    )  # fmt: skip


def _per_step(log: MetricsLog) -> float | None:
    """Tokens per step, from the last measurement, which is right even if the run stopped early."""
    return next(
        (each.tokens / each.step for each in reversed(log.evals) if each.step and each.tokens is not None), None
    )


def joined(runs: Sequence[Run]) -> Run:
    """The same arm and seed with several budgets as one run. Raises ValueError for none."""
    if len(runs) == 1:
        return runs[0]
    ordered = sorted(runs, key=lambda run: run.curve.end)
    most = ordered[-1]
    budgets = Curve(np.array([run.curve.end for run in ordered]), np.array([run.curve.final for run in ordered]))
    return dataclasses.replace(most, by_budget=budgets)


def score_of(log: MetricsLog, samples: int | None) -> Score:
    """A diagnostic's run."""
    tokens, accuracy = log.measured("accuracy")
    exact = log.measured("exact_match")[1]
    steps = log.step if log.end is not None else log.steps  # it may have stopped early
    task = log.start.metadata.get("task") if log.start is not None else None
    return Score(tuple(tokens), tuple(accuracy), samples, exact[-1] if exact else None, steps, task)


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of several runs from one start. A run that ended early keeps its last accuracy."""
    scored = [each for each in scores if each.accuracy]
    if len(scored) < 2:
        return scored[0] if scored else scores[0]
    tokens = np.unique(np.concatenate([each.tokens for each in scored]))
    curves = [
        np.asarray(each.accuracy)[np.maximum(np.searchsorted(each.tokens, tokens, side="right") - 1, 0)]
        for each in scored
    ]
    samples = [each.samples for each in scored if each.samples is not None]
    matches = [each.exact_match for each in scored if each.exact_match is not None]
    return dataclasses.replace(
        scored[0],
        tokens=tuple(tokens.tolist()),
        accuracy=tuple(np.mean(curves, axis=0).tolist()),
        samples=sum(samples) if len(samples) == len(scored) else None,
        exact_match=fmean(matches) if len(matches) == len(scored) else None,
        runs=tuple(each.accuracy[-1] for each in scored),
    )


def setting_of(log: MetricsLog) -> Setting:
    """What a pretraining run was measured on, as far as it is recorded."""
    metadata = log.start.metadata if log.start is not None else {}
    return Setting(
        metadata.get("corpus"), metadata.get("tokenizer"), metadata.get("context"), metadata.get("corpus_content"),
        metadata.get("eval_split"),
    )  # fmt: skip


def start_of(log: MetricsLog, warmup: Warmup) -> Start:
    """Where a run's weights came from."""
    carried = tuple(row.provenance for row in read_carried(log.start.carried if log.start is not None else None))
    layers = read_settings(log.path.parent).get("layers")
    chosen = tuple(sorted(map(str, layers))) if isinstance(layers, list) else ()
    kept: Literal["part", "all"] | None = None
    if log.start is not None and log.start.state_carried:
        kept = "all" if log.start.state_carried == log.start.trained else "part"
    return Start(warmup.tasks, carried, layers=chosen, corpora=warmup.corpora, optimiser=kept)


def warmup_of(logs: Iterable[MetricsLog]) -> Warmup:
    """The total of the warm-ups with these logs."""
    tokens, flops, text, tasks, corpora = 0.0, 0.0, 0.0, [], []
    known = True
    for log in logs:
        spent = flops_of(log)
        tokens += log.spent_tokens
        known = known and spent is not None
        flops += spent or 0.0
        metadata = log.start.metadata if log.start is not None else {}
        if task := metadata.get("task"):
            tasks.append(str(task))
        elif corpus := metadata.get("corpus"):
            corpora.append(str(corpus))
            text += log.spent_tokens
    return Warmup(tokens, flops if known else None, tuple(tasks), text, tuple(corpora))


def warmup_from_lineage(folder: Path, log: MetricsLog) -> Warmup:
    """The warm-up of a run outside an experiment, from its artifact's lineage and from the log of its init.

    Tokens are None if it had a donor, but neither its own artifact nor the donor's can be found.
    Raises ArtifactError if one of them is damaged.
    """
    settings = read_settings(folder)
    init = settings.get("init")
    if not (init or settings.get("parents")):
        return Warmup()
    parents = _parents(folder, log.end.artifact if log.end is not None else None, init)
    if parents is None:
        return Warmup(None, None, text_tokens=None)
    spent = {each["content"]: each["about"] for each in _all(parents) if "about" in each}
    on_text = [about for about in spent.values() if "corpus" in about and "task" not in about]
    tasks = tuple(str(about["task"]) for about in spent.values() if "task" in about)
    corpora = tuple(str(about["corpus"]) for about in on_text)
    return Warmup(_spent(spent.values()), _donor_flops(init, set(spent)), tasks, _spent(on_text), corpora)


def _spent(donors: Iterable[Mapping[str, Any]]) -> float:
    return float(sum(int(about.get("spent_tokens", about.get("tokens", 0))) for about in donors))


def read_settings(folder: Path) -> dict[str, Any]:
    """A run folder's config.json; empty if it cannot be read."""
    try:
        found = parse_json((folder / "config.json").read_bytes(), any_text=True)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _parents(folder: Path, written: str | None, init: str | None) -> list[Mapping[str, Any]] | None:
    """The donors of a run: from its own artifact, else from its init."""
    for path in [user_path(written), folder / Path(written).name] if written else []:
        if path.is_file():
            return list(artifact.read_header(path).parents)
    if init is not None and user_path(init).is_file():
        return [artifact.read_header(user_path(init)).as_parent]
    return None


def _all(parents: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for each in parents:
        yield each
        yield from _all(each.get("parents", ()))


def _donor_flops(init: str | None, contents: set[str]) -> float | None:
    """FLOPs from the log of the run that wrote the init, if that is the only donor."""
    if init is None or len(contents) != 1:
        return None
    path = user_path(init)
    for folder in (run_folder_of(path), path.parent):
        log = MetricsLog(folder)
        log.update()
        if log.end is not None and log.end.content in contents:
            return flops_of(log)
    return None


def flops_of(log: MetricsLog) -> float | None:
    """FLOPs of a completed run: as recorded, else 6 per parameter and token (Kaplan et al. 2020, section 2.1).

    If donors had to be accepted, those of every donor and every probe.
    """
    if log.start is None:
        return None
    if log.tries:
        return float(sum(each.flops for each in log.tries))
    if log.start.flops:
        return float(log.start.flops)
    return 6.0 * log.start.parameters * log.tokens or None


def completed(folder: Path) -> MetricsLog:
    """The log of a run that has ended. Raises RunError."""
    log = read_metrics(folder)
    if log.end is None:
        raise RunError(f"{folder}: the run is not complete (step {log.step} of {log.steps or '?'}); resume it first")
    return log
