"""Scores attention heads after each evaluation of a run, on random tokens and on validation samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from proctool.errors import ModelError, OptionError
from proctool.events import VALIDATION, EvalEvent, Event, HeadsEvent
from proctool.loss_parts import InductionHeads
from proctool.models.build import context_of
from proctool.models.head_scores import score_model
from proctool.models.probes import Probe, random_probe
from proctool.procedural.samples import Samples

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.training.run import RunFolder
    from proctool.training.sources import Source

INDUCTION_ABOVE = 0.5
"""A head with a higher induction score counts as an induction head: more than half of its attention is on tokens that
follow earlier occurrences of the current one. The threshold is a convention; Olsson et al. 2022 give none."""
_SAMPLES = 16
_LENGTH = 25
_MOST_TOKENS = 256
"""Tokens of a validation sample to score. Memory grows with the square of this number."""


class HeadTracker:
    """Records the head scores of a run's model at each evaluation. It does not change the model.

    Raises OptionError if samples are too short for repeated tokens, and ModelError for models without attention or with
    weights sharded over processes.
    """

    def __init__(self, model: PreTrainedModel, held_out: Source, run: RunFolder) -> None:
        self._model, self._run = model, run
        context = context_of(model.config) or 2 * _LENGTH
        if context < 4:
            raise OptionError(f"track_heads: a context of {context} tokens is too short; leave --track-heads out")
        read = held_out.read(0, _SAMPLES)
        own = Samples(read.tokens[:, :_MOST_TOKENS], read.targets[:, :_MOST_TOKENS])
        repeated = random_probe(model.config, "track_heads", length=min(_LENGTH, context // 2), samples=_SAMPLES)
        self._probes = {False: repeated, True: Probe(own, "validation samples")}

    def __call__(self, event: Event) -> None:
        """Score the heads after an evaluation."""
        if not isinstance(event, EvalEvent) or event.split != VALIDATION:
            return
        from torch.distributed.tensor import DTensor

        if any(isinstance(each, DTensor) or not each.numel() for each in self._model.parameters()):
            raise ModelError("track_heads: not supported for sharded weights; train in one process, or leave it out")
        for own, probe in self._probes.items():
            scores = score_model(self._model, probe, "track_heads").as_json()
            self._run.record(HeadsEvent(step=event.step, samples=probe.label, own=own, heads=scores["heads"]))


def induction_heads(events: Iterable[Event]) -> InductionHeads | None:
    """When induction heads form, by the scores on repeated random tokens; None if heads are not tracked."""
    highest = {
        event.step: max((head["induction"] for head in event.heads if head.get("induction") is not None), default=0.0)
        for event in events
        if isinstance(event, HeadsEvent) and not event.own
    }
    if not highest:
        return None
    formed = min((step for step, score in highest.items() if score > INDUCTION_ABOVE), default=None)
    return InductionHeads(threshold=INDUCTION_ABOVE, score=highest[max(highest)], step=formed)
