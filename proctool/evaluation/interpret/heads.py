"""Scores of single attention heads on random tokens that are repeated.

A sample is a sequence of `length` random tokens (all different where the vocabulary allows), `repeats` times over.
Nothing in it can be predicted before the second time, and from then on everything can, by looking back.

induction       attention paid, from the second time on, to the tokens that follow earlier occurrences of the present
                one: the "prefix matching score" of Olsson et al. 2022 (arXiv 2209.11895, appendix)
previous_token  attention paid to the token before, from the second token on (the same)
copying         does what the head reads from a token raise that token's own logit? Sum of the eigenvalues of its OV
                circuit through embedding and unembedding over the sum of their magnitudes: 1 copies, -1 suppresses
                (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). The gains of the norms on
                the way are included, their centring and scaling left out.

Attention is a share, so an idle head that spreads it evenly has small scores too: `even` says what it would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.errors import ModelError
from proctool.models.build import context_of, require_context

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

    from proctool.evaluation.interpret.options import InterpretOptions
    from proctool.models.saved import SavedModel

_USUAL_REPEATS = 4  # Olsson et al.


@dataclass(frozen=True)
class Heads:
    """Scores by layer and head, NaN where a layer has no such thing; (layers, heads)."""

    induction: NDArray[np.float64]
    previous_token: NDArray[np.float64]
    copying: NDArray[np.float64]
    even: dict[str, float]
    """The first two scores of a head that attends to all tokens alike."""
    loss_first: float
    """Nats per token the first time, from the second token on."""
    loss_repeated: float
    """Nats per token from the second time on."""
    patterns: NDArray[np.float32]
    """Attention in the first sample: (layers, heads, tokens, tokens), from row to column."""
    tokens: NDArray[np.int64]
    """The first sample: (tokens,)."""
    length: int
    repeats: int

    def as_json(self) -> dict[str, Any]:
        """Everything but the patterns."""
        layers, heads = self.induction.shape
        rows = [
            {
                "layer": layer,
                "head": head,
                "induction": _number(self.induction[layer, head]),
                "previous_token": _number(self.previous_token[layer, head]),
                "copying": _number(self.copying[layer, head]),
            }
            for layer in range(layers)
            for head in range(heads)
            if not np.isnan(self.induction[layer, head])
        ]
        return {
            "length": self.length,
            "repeats": self.repeats,
            "loss_first": self.loss_first,
            "loss_repeated": self.loss_repeated,
            "even": self.even,
            "heads": rows,
        }


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def score_heads(saved: SavedModel, options: InterpretOptions) -> Heads:
    """Scores of every head. Raises ModelError without attention, or where samples do not fit the context."""
    from proctool.training.devices import start_process

    _repeats(saved.config, options, str(saved.path))  # refused before the weights are read
    return score_model(saved.model().to(start_process().device), options, str(saved.path))


def score_model(model: PreTrainedModel, options: InterpretOptions, name: str) -> Heads:
    """Scores of every head of a model in memory, which is left as it was. `name` stands for it in errors.

    Raises ModelError without attention, or where samples do not fit the context.
    """
    was_training, attention = model.training, model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("eager")  # the others do not give their patterns
    try:
        return _score(model, options, name)
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)


def _score(model: PreTrainedModel, options: InterpretOptions, name: str) -> Heads:
    import torch

    length, repeats = options.length, _repeats(model.config, options, name)
    tokens = repeated(model.config.vocab_size, length, repeats, options.samples, options.seed)
    sums: list[NDArray[np.float64]] = []
    losses = np.zeros(tokens.shape[1] - 1)
    patterns: list[NDArray[np.float32]] = []
    for row in tokens:
        ids = torch.from_numpy(row)[None].to(model.device)
        with torch.no_grad():
            output = model(input_ids=ids, output_attentions=True, use_cache=False)
        attentions = [each for each in getattr(output, "attentions", None) or () if each is not None]
        if not attentions:
            raise ModelError(f"{name}: a {model.config.model_type} model shows no attention to look at")
        found = [each[0].double().cpu().numpy() for each in attentions]  # (heads, tokens, tokens) each
        sums.append(np.array([_attended(each, length) for each in found]))
        patterns = patterns or [each.astype(np.float32) for each in found]
        logits = output.logits[0, :-1].double()
        losses += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").cpu().numpy()
    scores = np.mean(sums, axis=0)  # (layers, 2, heads)
    losses /= len(tokens)
    even = np.tril(np.ones((1, len(tokens[0]), len(tokens[0]))))
    even /= even.sum(-1, keepdims=True)
    flat = _attended(even, length)
    return Heads(
        induction=scores[:, 0],
        previous_token=scores[:, 1],
        copying=copying_scores(model, scores.shape[0], scores.shape[2]),
        even={"induction": float(flat[0, 0]), "previous_token": float(flat[1, 0])},
        loss_first=float(losses[: length - 1].mean()),
        loss_repeated=float(losses[length - 1 :].mean()),
        patterns=np.array(patterns),
        tokens=tokens[0],
        length=length,
        repeats=repeats,
    )


def _repeats(config: PretrainedConfig, options: InterpretOptions, name: str) -> int:
    """Times that the sequence stands in a sample. Raises ModelError where that does not fit the context."""
    limit, length = context_of(config), options.length
    usual = _USUAL_REPEATS if limit is None else max(2, min(_USUAL_REPEATS, limit // length))
    repeats = options.repeats or usual
    require_context(
        config, length * repeats, f"{name}: a sample ({repeats} times {length})", "lower --length or --repeats"
    )
    return repeats


def repeated(vocab_size: int, length: int, repeats: int, samples: int, seed: int) -> NDArray[np.int64]:
    """Random tokens, repeated: (samples, length * repeats). Within one sample all differ, where there are enough."""
    draw = np.random.default_rng(seed)
    once = [draw.choice(vocab_size, length, replace=length > vocab_size) for _ in range(samples)]
    return np.tile(np.array(once, np.int64), (1, repeats))


def _attended(pattern: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Mean attention to what follows earlier occurrences, and to the token before: (2, heads)."""
    size = pattern.shape[-1]
    later = np.arange(length, size)
    following = np.zeros((len(pattern), len(later)))
    for back in range(length, size, length):
        reached = later >= back
        following[:, reached] += pattern[:, later[reached], later[reached] - back + 1]
    before = np.arange(1, size)
    return np.array([following.mean(-1), pattern[:, before, before - 1].mean(-1)])


def copying_scores(model: PreTrainedModel, layers: int, heads: int) -> NDArray[np.float64]:
    """The copying score of every head whose value and output projections are known; NaN elsewhere. (layers, heads)"""
    import torch

    scores = np.full((layers, heads), np.nan)
    embedding = model.get_input_embeddings().weight.double()  # (V, D)
    head = model.get_output_embeddings().weight.double() * _final_gain(model)  # (V, D)
    through = head.T @ embedding  # (D, D): from what is written, over the logits, to what is read
    with torch.no_grad():
        for layer, (values, outputs, gain) in enumerate(_circuits(model, heads)):
            if layer >= layers:
                break
            for number in range(heads):
                small = outputs[number].double() @ through @ (gain[:, None] * values[number].double())
                eigenvalues = torch.linalg.eigvals(small)
                total = float(eigenvalues.abs().sum())
                if total > 1e-12:
                    scores[layer, number] = float(eigenvalues.real.sum()) / total
    return scores


def _circuits(model: PreTrainedModel, heads: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each layer with attention: value maps (heads, D, d), output maps (heads, d, D), the gain before them (D,)."""
    import torch
    from torch import nn

    from proctool.models.components import anatomy

    parts = anatomy(model)
    for block in model.get_submodule(parts.stack).children():
        attention = next((child for child in block.children() if type(child).__name__.endswith("Attention")), None)
        if attention is None:
            continue
        norm = next((child for child in block.children() if "Norm" in type(child).__name__), None)
        gain = _gain(norm, model)
        if hasattr(attention, "c_attn") and hasattr(attention, "c_proj"):  # GPT-2: (D, 3 D), heads side by side
            width = attention.c_proj.weight.shape[0]
            value, output = attention.c_attn.weight[:, -width:], attention.c_proj.weight
        elif isinstance(getattr(attention, "v_proj", None), nn.Linear):
            last = getattr(attention, "o_proj", None) or getattr(attention, "out_proj", None)
            if last is None:
                return
            value, output = attention.v_proj.weight.T, last.weight.T
        else:
            return
        size = output.shape[0] // heads
        values = value.reshape(value.shape[0], -1, size).transpose(0, 1)  # (key-value heads, D, d)
        values = torch.repeat_interleave(values, heads // len(values), 0)
        yield values, output.reshape(heads, size, -1), gain


def _final_gain(model: PreTrainedModel) -> Tensor:
    norms = [child for child in model.base_model.children() if "Norm" in type(child).__name__]
    return _gain(norms[-1] if norms else None, model)


def _gain(norm: nn.Module | None, model: PreTrainedModel) -> Tensor:
    import torch

    weight = getattr(norm, "weight", None)
    if weight is None:
        return torch.ones(model.config.hidden_size, dtype=torch.float64, device=model.device)
    # Gemma's norms keep their gain less one.
    shifted = str(model.config.model_type).startswith("gemma")
    return weight.detach().double() + (1.0 if shifted else 0.0)  # type: ignore[no-any-return]
