"""The events of a training run, and `metrics.jsonl`, which holds one JSON object per line for each:

    {"event": "start", "command": "pretrain", "steps": 1000, "tokens_per_step": 4096, "parameters": 250000, ...}
    {"event": "train", "step": 10, "tokens": 40960, "loss": 3.2, "tokens_per_second": 9000, "seconds": 4.5, ...}
    {"event": "eval", "step": 100, "tokens": 409600, "split": "validation", "loss": 2.9, "accuracy": 0.31, ...}
    {"event": "end", "step": 1000, "tokens": 4096000, "seconds": 450.0, "artifact": "...", "content": "<hash>"}

Losses are in nats per token; `seconds` counts from the start of the run, without interruptions. A measure that is not
finite is null in JSON and nan in memory. Fields with their default are not written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar

from proctool.errors import RunError
from proctool.event_records import read_record, readers, write_record
from proctool.event_values import (
    Amount,
    Count,
    Flag,
    Measure,
    Text,
    read_carried,
    read_flag,
    read_mapping,
    read_rows,
    read_scores,
)
from proctool.loss_parts import InductionHeads, LossParts, read_induction, read_parts

FILE = "metrics.jsonl"
VALIDATION = "validation"
"""The split whose scores a run reports."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of the validation split at one step."""

    step: Count
    tokens: Count
    loss: Measure = math.nan
    accuracy: Measure = math.nan
    exact_match: Measure = math.nan


def _evaluation(value: Any) -> Evaluation:
    return read_record(Evaluation, read_mapping(value))


@dataclass(frozen=True, kw_only=True)
class Event:
    """The fields of all events."""

    kind: ClassVar[str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Other facts, such as task or corpus. In JSON they are on the same level as the fields."""


@dataclass(frozen=True, kw_only=True)
class StartEvent(Event):
    """A run starts. `metadata` describes its data source."""

    kind = "start"
    command: Text = ""
    steps: Count
    tokens_per_step: Count = 0
    parameters: Count = 0
    trained: Count = 0
    flops: Amount = 0
    """Steps of the whole run; 0 in old files without it."""
    carried: Annotated[Sequence[Mapping[str, Any]], read_carried] | None = None
    state_carried: Count | None = None
    """Parameters that start with the optimiser's state of the warm-up, where it was asked for."""
    seed: Count | None = None
    eval_samples: Count | None = None
    environment: Annotated[Mapping[str, Any], read_mapping] | None = None
    micro_batch: Count | None = None
    """Samples at once on a device, if chosen by the available memory (the same for the next field)."""
    gradient_checkpointing: Flag | None = None


@dataclass(frozen=True, kw_only=True)
class ResumeEvent(Event):
    """A run resumes from a checkpoint."""

    kind = "resume"
    step: Count


@dataclass(frozen=True, kw_only=True)
class ExtendEvent(Event):
    """A finished run continues with more steps."""

    kind = "extend"
    step: Count
    steps: Count
    flops: Amount = 0
    content: Text | None = None
    """Content hash of the artifact that the run had written."""


@dataclass(frozen=True, kw_only=True)
class TrainEvent(Event):
    """Training steps up to `step`."""

    kind = "train"
    step: Count
    tokens: Count = 0
    loss: Measure = math.nan
    corpus_loss: Measure | None = None
    """With procedural rows among corpus rows, the loss of either kind in this step, where it has such rows."""
    procedural_loss: Measure | None = None
    procedural_tokens: Count | None = None
    """Those of `tokens` that are of procedural rows."""
    lr: Measure = math.nan
    grad_norm: Measure = math.nan
    tokens_per_second: Count | None = None
    mfu: Measure | None = None
    seconds: Amount | None = None
    checkpoint_seconds: Amount | None = None
    """Seconds that training waited for a checkpoint since the last train event; not part of `tokens_per_second`."""


@dataclass(frozen=True, kw_only=True)
class EvalEvent(Event):
    """An evaluation during training. A curriculum adds the size of its samples and their tokens.

    The split "procedural" is that of validation samples of procedural rows among corpus rows.
    """

    kind = "eval"
    step: Count
    tokens: Count | None = None
    split: Text = field(default=VALIDATION, metadata={"always": True})
    loss: Measure = math.nan
    accuracy: Measure = math.nan
    exact_match: Measure = math.nan
    procedural_tokens: Count | None = None
    """Those of `tokens` that are of procedural rows among corpus rows."""
    size: Count | None = None
    length: Count | None = None
    seconds: Amount | None = None


@dataclass(frozen=True, kw_only=True)
class HeadsEvent(Event):
    """Scores of attention heads at an evaluation, if they are tracked."""

    kind = "heads"
    step: Count
    samples: Text
    """The data of the measurement."""
    own: Annotated[bool, read_flag] = False
    """Whether that data is the run's validation samples instead of random tokens."""
    heads: Annotated[Sequence[Mapping[str, Any]], read_rows]
    """Layer, head and scores by name for each head (models/head_scores.py); null for a missing score."""


@dataclass(frozen=True, kw_only=True)
class CurriculumEvent(Event):
    """The size of samples changes (curriculum)."""

    kind = "curriculum"
    step: Count
    tokens: Count
    size: Count
    length: Count


@dataclass(frozen=True, kw_only=True)
class TryEvent(Event):
    """A donor that is trained and probed for acceptance starts, or has ended with an accuracy."""

    kind = "try"
    number: Count = field(metadata={"always": True})
    """Number of the donor, from 0."""
    most: Count
    """Maximum number of donors."""
    seed: Count
    diagnostic: Text
    above: Measure
    """The required accuracy."""
    accuracy: Measure | None = None
    """The accuracy of the probe, after its end."""
    tokens: Count = 0
    """Training tokens of the donor and its probe."""
    flops: Amount = 0

    @property
    def is_accepted(self) -> bool:
        """Whether the donor passed."""
        return self.accuracy is not None and self.accuracy >= self.above


@dataclass(frozen=True, kw_only=True)
class NoteEvent(Event):
    """A message for people."""

    kind = "note"
    step: Count | None = None
    note: Text


@dataclass(frozen=True, kw_only=True)
class EndEvent(Event):
    """A run is complete. `loss` and the other scores are those of the weights in `artifact`."""

    kind = "end"
    command: Text = ""
    step: Count
    tokens: Count
    procedural_tokens: Count | None = None
    """Those of `tokens` that are of procedural rows among corpus rows; None for data of one kind."""
    loss: Measure = math.nan
    accuracy: Measure = math.nan
    exact_match: Measure = math.nan
    trained_size: Count | None = None
    """Size of the last training samples, with a curriculum."""
    best: Annotated[Evaluation, _evaluation] | None = None
    diverged: Flag | None = None
    """Whether it ended early, at a loss or gradient that is not finite."""
    extensions: Count = 0
    """Number of extensions before this end."""
    loss_parts: Annotated[LossParts, read_parts] | None = None
    """The validation loss of the last weights by place in the row and by repetition; of pretraining on a corpus."""
    induction: Annotated[InductionHeads, read_induction] | None = None
    """When induction heads form, if heads are tracked."""
    scores: Annotated[Mapping[str, float | None], read_scores] | None = None
    """The scores of a fine-tuning task on its whole validation set, by name; None for one that is not finite."""
    seconds: Amount | None = None
    run_dir: Text = ""
    artifact: Text | None = None
    content: Text | None = None
    best_artifact: Text | None = None
    best_content: Text | None = None


_KINDS: Mapping[str, type[Event]] = {
    made.kind: made
    for made in (
        StartEvent, ResumeEvent, ExtendEvent, TrainEvent, EvalEvent, HeadsEvent, CurriculumEvent, TryEvent, NoteEvent,
        EndEvent,
    )
}  # fmt: skip


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object."""
    return {"event": event.kind, **write_record(event), **event.metadata}


def from_json(found: Any) -> Event | None:
    """The event in a JSON object; None for other objects. Raises ValueError for invalid values."""
    kind = found.get("event") if isinstance(found, dict) else None
    made = _KINDS.get(kind) if isinstance(kind, str) else None
    if made is None:
        return None
    others = {key: value for key, value in found.items() if key != "event" and key not in readers(made)}
    return read_record(made, found, metadata=others)


def write_event(file: IO[bytes], event: Event) -> None:
    """Append a line to `metrics.jsonl`."""
    file.write(json.dumps(to_json(event)).encode() + b"\n")
    file.flush()


def read_event(line: bytes, path: Path) -> Event | None:
    """The event in a line of `metrics.jsonl`; None for a truncated line, or a line without an event of a run.

    Raises RunError, naming `path`, for invalid values.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    try:
        return from_json(found)
    except ValueError as error:
        what = f"{'an' if found['event'][0] in 'aeiou' else 'a'} {found['event']} event with {error}"
        raise RunError(f"{path}: {what}; no run writes that, so the file is damaged: restore it or run again") from None


def read_events(folder: Path) -> list[Event]:
    """The events in a run folder's `metrics.jsonl`; empty without a file. Raises RunError, OSError."""
    path = folder / FILE
    if not path.exists():
        return []
    read = (read_event(line, path) for line in path.read_bytes().split(b"\n"))
    return [event for event in read if event is not None]
