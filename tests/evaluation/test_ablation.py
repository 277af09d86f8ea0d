"""Entropies are those of the patterns put in; a head that is removed is gone, in every family, and nothing else is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from proctool.evaluation.interpret import InterpretOptions, interpret_model
from proctool.evaluation.interpret.ablation import removing
from proctool.models.build import build_model, model_config
from proctool.models.heads import OUTPUT, head_map, visible
from proctool.models.saved import save_model
from proctool.procedural.mixture import parse_tasks
from proctool.training.in_memory import score
from proctool.training.sources import TaskSource
from tests.conftest import Said
from tests.evaluation.test_interpret import VOCAB, by_head, induction_model
from tests.models.tiny import DENSE, tiny
from tests.models.tiny import VOCAB as TINY_VOCAB


def test_entropies_are_those_of_the_heads_that_were_built(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", induction_model(), {})
    result = interpret_model(tmp_path / "m.safetensors", InterpretOptions(length=VOCAB, samples=4))
    entropy, share = (by_head(result, name) for name in ("entropy", "normalised_entropy"))
    assert entropy[0, 0] < 0.05  # looks at the token before, and at nothing else
    assert share[0, 1] == pytest.approx(1)  # of zeros
    every = np.mean([math.log(count) for count in range(2, 3 * VOCAB + 1)])
    assert entropy[0, 1] == pytest.approx(every) == result["even"]["entropy"]
    assert result["even"]["normalised_entropy"] == pytest.approx(1)


def test_a_sliding_window_bounds_what_is_visible() -> None:
    config = tiny("mistral").config
    config.sliding_window = 3
    assert visible(config, 0, 5).tolist() == [1, 2, 3, 3, 3]
    assert visible(tiny("gpt2").config, 0, 5).tolist() == [1, 2, 3, 4, 5]


def test_heads_are_measured_on_a_tasks_samples(proctool: Callable[..., Said], tmp_path: Path) -> None:
    task = parse_tasks("haystack:pairs=4,vocab=32")
    model = build_model(model_config("2x2x16", vocab_size=40, context=task.length), 0)
    save_model(tmp_path / "m.safetensors", model, {})
    said = proctool(
        "eval", "interpret", "m.safetensors", "--task", task.spec, "--samples", 20, "--ablate", "zero", "--json"
    )
    assert said.code == 0, said.err
    result = json.loads(said.out)
    expected = score(model, TaskSource(task, 0, "validation"), 20, 20)
    assert (result["samples"], result["length"], result["loss_first"]) == (task.spec, None, None)
    assert result["loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert result["accuracy"] == pytest.approx(expected.accuracy)
    assert result["ablation"]["loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert task.spec in said.err
    assert "entropy" in said.err


@pytest.mark.slow
def test_heads_are_measured_on_a_text(proctool: Callable[..., Said], tmp_path: Path, text: Path) -> None:
    trained = proctool(
        "pretrain", "--corpus", text, "--model", "1x2x16", "--context", 16, "--steps", 1, "--eval-samples", 2,
        "--budget", 4000, "--cache-dir", "cache", "-o", "m.safetensors",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    said = proctool("eval", "interpret", "m.safetensors", "--corpus", text, "--samples", 3, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert "documents of" in found["samples"]
    assert 3 < found["loss"] < 8
    assert all(0 < row["normalised_entropy"] <= 1 for row in found["heads"])


@pytest.mark.parametrize("family", DENSE)
def test_a_removed_head_is_one_whose_output_weights_are_zero(family: str) -> None:
    model = tiny(family).eval()
    known, tokens = head_map(model), torch.arange(10)[None] % TINY_VOCAB
    for removed in ([(0, 1)], [(1, 0)], known.all()):
        with removing(model, removed), torch.no_grad():
            found = model(input_ids=tokens, use_cache=False).logits
        other = tiny(family).eval()
        with torch.no_grad():
            for name, rows in known.rows.items():
                heads = frozenset(head for layer, head in removed if layer == rows.layer)
                if (rows.role == OUTPUT).all():
                    other.get_parameter(name).movedim(rows.axis, 0)[torch.from_numpy(rows.of(heads, known.group))] = 0
            wanted = other(input_ids=tokens, use_cache=False).logits
            whole = model(input_ids=tokens, use_cache=False).logits
        torch.testing.assert_close(found, wanted)
        assert not torch.allclose(found, whole, atol=1e-7)


def test_the_heads_that_do_the_work_are_found(tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", induction_model(), {})
    options = InterpretOptions(length=VOCAB, samples=4, ablate="zero", orders=2)
    found = interpret_model(tmp_path / "m.safetensors", options)["ablation"]
    rises = {head: loss - found["loss"] for head, loss in by_head(found, "loss").items()}
    assert min(rises[0, 0], rises[1, 0]) > 0.2
    assert rises[0, 1] == rises[1, 1] == 0
    orders = {(each["order"], each["seed"]): each for each in found["orders"]}
    assert set(orders) == {("lowest entropy", None), ("highest entropy", None), ("random", 0), ("random", 1)}
    lowest, highest = (orders[f"{way} entropy", None] for way in ("lowest", "highest"))
    assert lowest["mean_accuracy"] < highest["mean_accuracy"]
    assert found["entropy_and_rise_of_loss"] < -0.5
    assert [point["removed"] for point in lowest["curve"]] == [0, 1, 2, 3, 4]
    ends = {(each["curve"][0]["loss"], each["curve"][-1]["loss"]) for each in orders.values()}
    assert len(ends) == 1  # no head and all heads are the same for any order


def test_the_mean_of_a_constant_output_changes_nothing(tmp_path: Path) -> None:
    model = tiny("gpt2")
    with torch.no_grad():
        attention = model.transformer.h[1].attn
        attention.c_attn.weight[:, 40:48] = 0  # the values of head 1
        attention.c_attn.bias[40:48] = 5
    save_model(tmp_path / "m.safetensors", model, {})
    losses = {}
    for way in ("zero", "mean"):
        options = InterpretOptions(length=4, samples=3, ablate=way, orders=0)
        found = interpret_model(tmp_path / "m.safetensors", options)["ablation"]
        losses[way] = by_head(found, "loss")[1, 1] - found["loss"]
    assert losses["mean"] == pytest.approx(0, abs=1e-6)
    assert abs(losses["zero"]) > 1e-4


def test_samples_that_do_not_fit_are_one_line(proctool: Callable[..., Said], tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", tiny("gpt2"), {})
    for arguments, message in [
        (("--task", "haystack"), "has a vocabulary of 23 tokens, but haystack"),
        (("--task", "identity:inputs=20,symbols=10"), "does not fit the model's context of 12 tokens"),
        (("--task", "nothing"), 'unknown task "nothing"'),
        (("--task", "dyck", "--corpus", "x"), "heads are measured on one of them"),
        (("--corpus", "gone.txt"), "no tokenizer"),
    ]:
        said = proctool("eval", "interpret", "m.safetensors", *arguments)
        assert said.code == 1, arguments
        assert message in said.line
