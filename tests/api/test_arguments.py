"""Arguments of a wrong type are one line that names the argument; a mistake of ours would be a TypeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import proctool
import proctool.hf
import proctool.torch
from proctool.errors import OptionError, ProctoolError

SPEC = "set:inputs=4,symbols=9"
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], tuple[str, ...]]] = {
    "load_task": (proctool.load_task, (), {}, ("spec",)),
    "to_datasets": (proctool.to_datasets, (), {"spec": SPEC, "samples": 2}, ("spec", "samples", "seed")),
    "warm_up": (proctool.warm_up, (SPEC,), {"model": "1x1x8", "steps": 1}, ("model", "steps", "output", "listen")),
    "pretrain": (
        proctool.pretrain, (), {"corpus": "python"}, ("corpus", "model", "init", "steps", "output", "listen"),
    ),
    "evaluate": (proctool.evaluate, (None, "haystack"), {}, ("listen",)),
    "run": (proctool.run, (), {"recipe": "none.yaml"}, ("recipe", "runs", "jobs", "smoke", "yes")),
    "report": (proctool.report, (), {}, ("folder",)),
    "transplant_into": (
        proctool.transplant_into, (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)), {}, ("components", "layers"),
    ),
    "TaskDataset": (proctool.torch.TaskDataset, (SPEC,), {"length": 2}, ("seed", "length", "cache_bytes")),
    "TaskStream": (proctool.torch.TaskStream, (SPEC,), {"rank": 0, "world_size": 1}, ("seed", "rank", "world_size")),
    "DiagnosticCallback": (proctool.hf.DiagnosticCallback, (SPEC,), {}, ("every", "samples", "batch_size", "log")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, call in CALLS.items() for argument in call[3]]
)
def test_a_wrong_type_is_one_line_that_names_the_argument(name: str, argument: str) -> None:
    call, given, named, _ = CALLS[name]
    for wrong in (object(), 3.5):
        with pytest.raises(ProctoolError) as raised:
            call(*given, **(named | {argument: wrong}))
        assert argument in str(raised.value)
        assert "\n" not in str(raised.value)


def test_numbers_of_numpy_and_paths_are_taken() -> None:
    assert len(proctool.torch.TaskDataset(SPEC, length=torch.tensor(3).numpy()[()])) == 3  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="length: expected a whole number, got a value of type bool"):
        proctool.torch.TaskDataset(SPEC, length=True)
