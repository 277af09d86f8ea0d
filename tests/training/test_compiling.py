"""What torch.compile is given to compile: attention without a mask, one graph for all layers; and when it is used."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import fx, nn

from proctool.models.build import build_model, model_config
from proctool.models.faster import faster
from proctool.training import compiling
from proctool.training.batch import Batch
from proctool.training.compiling import FEW_LAYERS, WORTH_COMPILING, compile_chosen, compile_model, compile_parts
from proctool.training.engine import Engine
from proctool.training.loss import TargetLoss
from proctool.training.optimiser import make_optimiser
from proctool.training.options import WarmupOptions
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.models.tiny import VOCAB
from tests.training.rank import ALIKE
from tests.training.runs import options
from tests.training.test_sharded import FSDP, of_two

OPTIONS = WarmupOptions(task=("set:inputs=4",))
LAYERS = FEW_LAYERS + 1


class Recorder:
    """A compiler that keeps the graphs that it gets, and runs them as they are."""

    def __init__(self) -> None:
        self.graphs: list[fx.GraphModule] = []

    def __call__(self, graph: fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        self.graphs.append(graph)
        return graph.forward

    def attentions(self) -> list[fx.Node]:
        """Calls of attention, also those inside checkpointed parts."""
        parts = [part for graph in self.graphs for part in graph.modules() if isinstance(part, fx.GraphModule)]
        return [node for part in parts for node in part.graph.nodes if "scaled_dot_product" in str(node.target)]


def compiled(family: str, layers: int, checkpointing: bool = False, **values: Any) -> Recorder:
    """What the compiler gets of two training steps of a model with heads of 32 numbers; graphs never break."""
    config = model_config(f"{layers}x2x64", vocab_size=VOCAB, context=16, family=family)
    config.update(values)
    model, recorder = build_model(config, seed=0).train(), Recorder()
    if checkpointing:
        model.gradient_checkpointing_enable()
    with faster(model, lean=not checkpointing):
        compile_parts(model, backend=recorder, fullgraph=True)
        for _ in range(2):
            model.base_model(input_ids=torch.zeros(2, 16, dtype=torch.long), use_cache=False)[0].sum().backward()
    return recorder


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("layers", [2, LAYERS], ids=["whole", "layers"])
@pytest.mark.parametrize(
    "family",
    [
        *("gpt2", "llama"),
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("qwen3", "gpt_neox", "olmo2", "phi", "qwen2", "mistral")
        ),
    ],
)
def test_compiled_attention_is_causal_without_a_mask_in_one_graph(
    family: str, layers: int, checkpointing: bool
) -> None:
    recorder = compiled(family, layers, checkpointing)
    assert len(recorder.graphs) == 1
    attentions = recorder.attentions()
    assert len(attentions) == (layers if layers <= FEW_LAYERS else 1)  # one graph of a layer serves all layers
    for node in attentions:
        assert node.kwargs["is_causal"] is True
        assert node.kwargs["attn_mask"] is None


def test_heads_that_share_keys_stay_without_a_mask() -> None:
    (node,) = compiled("llama", LAYERS, num_key_value_heads=1).attentions()
    assert node.kwargs["is_causal"] is True
    assert node.kwargs["attn_mask"] is None


def engine(layers: int) -> tuple[Engine, Batch]:
    model = build_model(model_config(f"{layers}x2x8", vocab_size=VOCAB, context=8), seed=0).train()
    module = TargetLoss(model)
    optimiser = make_optimiser(module, lr=1e-3, weight_decay=0.1, beta2=0.95)
    tokens = torch.arange(16).reshape(2, 8) % VOCAB
    return Engine(Accelerator(cpu=True), module, optimiser), Batch(tokens, torch.tensor([3, 9]), torch.tensor([1, 2]))


def test_a_trial_goes_through_the_wrappers_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = engine(LAYERS)
    recorder, seen = Recorder(), []

    class Wrapper(nn.Module):
        def forward(self, *parts: torch.Tensor) -> torch.Tensor:
            seen.append(parts)
            return made.module(*parts)  # type: ignore[no-any-return]

    made._prepared = Wrapper()
    monkeypatch.setattr(
        compiling, "compile_parts", lambda model: compile_parts(model, backend=recorder, fullgraph=True)
    )
    before = torch.get_rng_state()
    assert compile_model(made, batch) == f"compiled by torch.compile ({LAYERS} layers)"
    assert len(seen) == len(recorder.graphs) == 1
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in made.module.parameters())
    assert not made.optimiser.state


@pytest.mark.parametrize("layers", [1, LAYERS])
def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no compiler here")

    made, batch = engine(layers)
    wanted = made.module(*batch)
    monkeypatch.setattr(compiling, "compile_parts", lambda model: compile_parts(model, backend=fails))
    said = compile_model(made, batch)
    assert said.startswith("torch.compile does not work here (")
    assert said.endswith("; continuing without it")
    assert torch.equal(made.module(*batch), wanted)


@pytest.mark.parametrize(
    ("asked", "cuda", "flops", "wanted"),
    [
        (None, True, WORTH_COMPILING, True),
        (None, True, WORTH_COMPILING - 1, False),
        (None, False, WORTH_COMPILING, False),
        (True, False, 1, True),
        (False, True, WORTH_COMPILING, False),
    ],
)
def test_long_runs_on_gpus_are_compiled(
    monkeypatch: pytest.MonkeyPatch, asked: bool | None, cuda: bool, flops: int, wanted: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: cuda)
    assert compile_chosen(dataclasses.replace(OPTIONS, compile=asked), flops).compile is wanted


def test_compiling_by_default_is_not_for_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert compile_chosen(OPTIONS, WORTH_COMPILING).compile is False


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_two_processes_compile_what_one_computes(tmp_path: Path, layout: str) -> None:
    warmup_job(options(tmp_path, "one", **ALIKE)).run()
    environment = FSDP if layout == "fsdp" else {}
    well, said = of_two(tmp_path, "two", json.dumps({"compile": True}), "eager", **environment)
    assert well, said
    events = {name: event_lines(tmp_path / name) for name in ("one", "two")}
    assert any(event.get("note", "").startswith("compiled by torch.compile") for event in events["two"])
    one, two = ([event["loss"] for event in found if event["event"] == "train"] for found in events.values())
    np.testing.assert_allclose(two, one, rtol=1e-4)
