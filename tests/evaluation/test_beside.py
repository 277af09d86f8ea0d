"""The marks of a picture stand where a head should look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from proctool.evaluation.interpret.beside import brackets
from proctool.models.build import build_model, model_config
from proctool.models.head_scores import sought
from proctool.models.saved import save_model
from proctool.procedural.mixture import parse_tasks
from tests.conftest import Said
from tests.models.tiny import tiny


def test_brackets_are_marked_where_they_are_closed() -> None:
    #  0 1 2 3 4 5:  ( [ ] ( ) )
    marks = brackets(np.array([0, 1, 3, 0, 2, 2]), parse_tasks("dyck:k=2,length=6"))
    assert sorted(zip(*marks.nonzero(), strict=True)) == [(1, 1), (3, 3), (4, 0)]


def test_what_is_sought_is_an_earlier_copy_of_the_target() -> None:
    ids, targets = np.array([5, 7, 5, 9, 7, 5]), np.array([False, False, False, False, True, True])
    assert sorted(zip(*sought(ids, targets).nonzero(), strict=True)) == [(3, 1), (4, 0), (4, 2)]


@pytest.mark.slow
def test_two_models_are_drawn(proctool: Callable[..., Said], tmp_path: Path) -> None:
    for name, spec in (("donor", "dyck:k=2,length=12"), ("target", "haystack:pairs=4,vocab=32")):
        task = parse_tasks(spec)
        save_model(
            tmp_path / name, build_model(model_config("2x2x16", vocab_size=task.vocab_size, context=task.length), 0), {}
        )
    said = proctool(
        "eval", "interpret", "donor", "--task", "dyck:k=2,length=12", "--samples", 3, "--figures", "f",
        "--beside", "target", "--beside-task", "haystack:pairs=4,vocab=32",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert (tmp_path / "f" / "beside.png").stat().st_size > 10_000


def test_a_picture_of_two_needs_a_folder_and_a_task(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_model(tmp_path / "m", tiny("gpt2"), {})
    for arguments, message in [
        (("--beside", "m"), "beside: needs --figures FOLDER"),
        (("--beside-task", "dyck"), "beside_task: needs --beside MODEL"),
    ]:
        said = proctool("eval", "interpret", "m", *arguments)
        assert (said.code, message in said.line) == (1, True)
