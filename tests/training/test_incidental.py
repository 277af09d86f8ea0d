"""Which options leave every result as it is. Settings of runs and keys of stages stand on it, so it is written out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from proctool.evaluation.finetune.options import FinetuneOptions
from proctool.evaluation.options import DIAGNOSTICS
from proctool.training.options import PretrainOptions, TrainingOptions, WarmupOptions, incidental
from proctool.transplantation.options import TransplantOptions

INCIDENTAL = {
    "run_dir", "resume", "checkpoint_every", "keep_checkpoints", "output", "cache_dir", "log_every", "spike", "track",
    "track_heads", "extend", "keep_state", "cuda_graph", "producers", "on_divergence", "force",
}  # fmt: skip


def below(cls: type) -> Iterator[type]:
    yield cls
    for each in cls.__subclasses__():
        yield from below(each)


@pytest.mark.parametrize(
    "cls",
    sorted({*below(TrainingOptions), TransplantOptions}, key=lambda cls: cls.__name__),
    ids=lambda cls: cls.__name__,
)
def test_the_same_options_count_for_nothing_in_every_command(cls: type) -> None:
    # A class that sets another default states the metadata again, and would lose it unnoticed.
    assert incidental(cls) == INCIDENTAL & {each.name for each in dataclasses.fields(cls)}  # type: ignore[arg-type]


def test_every_training_command_is_looked_at() -> None:
    assert {WarmupOptions, PretrainOptions, FinetuneOptions, *DIAGNOSTICS.values()} <= set(below(TrainingOptions))
