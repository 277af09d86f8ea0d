"""Scores of single attention heads, by default on random tokens that are repeated.

A sample is a sequence of `length` random tokens (all different if the vocabulary allows), repeated `repeats` times.
The first pass cannot be predicted; every later pass can, by attending to earlier ones.

induction       attention to the tokens that follow earlier occurrences of the current token, over positions with such
                occurrences; on repeated tokens, from the second pass on: the "prefix matching score" of Olsson et al.
                2022 (arXiv 2209.11895, appendix)
lookup          attention to earlier occurrences of the target that is predicted: on repeated tokens, the same as
                induction; on a task, whether the head attends to the answer
previous_token  attention to the token before, from the second token on
entropy         entropy of a position's attention in nats, from the second token on; 0: attends to one position
normalised_entropy  the same over the logarithm of the number of visible positions; 1: attends uniformly
copying         whether attending to a token raises that token's own logit: the sum of the eigenvalues of the head's OV
                circuit through embedding and unembedding over the sum of their magnitudes; 1: copies, -1: suppresses
                (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). Includes the gains of the
                norms in between, but not their centring and scaling.

Attention sums to 1, so a head with uniform attention has small scores too: `even` gives them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.errors import ModelError
from proctool.models.heads import OUTPUT, VALUE, HeadMap, eager, entropies, head_map, patterns, visible

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from proctool.models.probes import Probe

_TOGETHER = 1 << 17
"""Entries of one head's patterns in memory at a time."""
ATTENDED = ("induction", "lookup", "previous_token", "entropy", "normalised_entropy")
"""Scores of what a head attends to, in the order of `_attended`."""


@dataclass(frozen=True)
class Heads:
    """Scores by layer and head, NaN if a head does not have the score; (layers, heads)."""

    layers: tuple[int, ...]
    """Layers with attention: the rows of the scores."""
    induction: NDArray[np.float64]
    lookup: NDArray[np.float64]
    previous_token: NDArray[np.float64]
    entropy: NDArray[np.float64]
    normalised_entropy: NDArray[np.float64]
    copying: NDArray[np.float64]
    even: dict[str, float | None]
    """The scores of a head with uniform attention, without copying."""
    loss_first: float | None
    """Loss of the first pass in nats per token, from the second token on; None unless samples are repeated tokens."""
    loss: float
    """Loss in nats per target; on repeated tokens, from the second pass on."""
    accuracy: float
    """Share of targets that have the highest logit."""
    patterns: NDArray[np.float32]
    """Attention in the first sample: (layers, heads, tokens, tokens), from row to column."""
    tokens: NDArray[np.int64]
    """The first sample: (tokens,)."""
    probe: Probe

    def as_json(self) -> dict[str, Any]:
        """Everything but the patterns."""
        names = (*ATTENDED, "copying")
        rows = [
            {"layer": layer, "head": head, **{name: _number(getattr(self, name)[row, head]) for name in names}}
            for row, layer in enumerate(self.layers)
            for head in range(self.entropy.shape[1])
        ]
        repeats = self.probe.length is not None
        return {
            "samples": self.probe.label,
            "length": self.probe.length,
            "repeats": self.probe.repeats,
            "loss_first": self.loss_first,
            "loss_repeated": self.loss if repeats else None,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "even": self.even,
            "heads": rows,
        }


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def score_model(model: PreTrainedModel, probe: Probe, name: str) -> Heads:
    """Scores of every head of a model in memory, which is left as it was. `name` stands for it in errors.

    Raises ModelError without attention.
    """
    with eager(model):
        return _score(model, probe, name)


def _score(model: PreTrainedModel, probe: Probe, name: str) -> Heads:
    import torch

    sums: list[NDArray[np.float64]] = []
    flat: list[NDArray[np.float64]] = []
    losses, first, right = [], [], 0
    shown: list[NDArray[np.float32]] = []
    for row, targets, attentions, logits in _forward(model, probe):
        if not attentions:
            raise ModelError(f"{name}: a {model.config.model_type} model shows no attention to look at")
        layers = _layers(model, len(attentions))
        found = [each.double() for each in attentions]  # (heads, L, L) each
        seen = [visible(model.config, layer, len(row)) for layer in layers]
        sums.append(np.array([_attended(each, row, targets, at) for each, at in zip(found, seen, strict=True)]))
        every = np.arange(1, len(row) + 1)
        even = torch.tril(torch.ones(1, len(row), len(row), dtype=torch.float64)) / torch.from_numpy(every)[:, None]
        flat.append(_attended(even, row, targets, every)[:, 0])
        shown = shown or [each.float().cpu().numpy() for each in found]
        logits, labels = logits[:-1].double().cpu(), torch.from_numpy(row[1:])
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
        losses.append(loss[targets[1:]])
        first.append(loss[: (probe.length or 1) - 1])
        right += int((logits.argmax(-1) == labels).numpy()[targets[1:]].sum())
    scores = _means(sums)  # (layers, scores, heads)
    scored = np.concatenate(losses)
    return Heads(
        layers=layers,
        **{each: scores[:, index] for index, each in enumerate(ATTENDED)},
        copying=copying_scores(model, layers, scores.shape[2]),
        even=dict(zip(ATTENDED, map(_number, _means(flat)), strict=True)),
        loss_first=float(np.concatenate(first).mean()) if probe.length else None,
        loss=float(scored.mean()) if len(scored) else float("nan"),
        accuracy=right / max(len(scored), 1),
        patterns=np.array(shown),
        tokens=next(probe.rows())[0],
        probe=probe,
    )


def _forward(
    model: PreTrainedModel, probe: Probe
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_], list[Tensor], Tensor]]:
    """Tokens and targets of each sample with its attention by layer (heads, L, L) and its logits (L, V)."""
    import torch

    for length, group in itertools.groupby(probe.rows(), key=lambda row: len(row[0])):
        rows, together = list(group), max(1, _TOGETHER // length**2)
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            ids = torch.from_numpy(np.array([tokens for tokens, _ in part])).to(model.device)
            attentions, logits = patterns(model, ids)
            for index, (tokens, targets) in enumerate(part):
                yield tokens, targets, [each[index] for each in attentions], logits[index]


def _layers(model: PreTrainedModel, shown: int) -> tuple[int, ...]:
    """The layers that attention is shown of."""
    from proctool.models.components import attention_modules

    found = tuple(attention_modules(model))
    return found if len(found) == shown else tuple(range(shown))


def _means(each: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Means over samples; NaN where no sample has the score."""
    stacked = np.array(each)
    there = ~np.isnan(stacked)
    counts = there.sum(0)
    return np.where(counts > 0, np.where(there, stacked, 0).sum(0) / np.maximum(counts, 1), np.nan)


def _attended(
    pattern: Tensor, ids: NDArray[np.int64], targets: NDArray[np.bool_], seen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """`ATTENDED` of every head, means over the positions of a sample: (heads, L, L) -> (scores, heads)"""
    entropy = entropies(pattern)[:, 1:].cpu().numpy()
    weights = pattern.cpu().numpy()
    size, idle = len(ids), np.full(len(weights), np.nan)
    follows = np.zeros((size, size), bool)
    follows[:, 1:] = ids[:, None] == ids[None, :-1]
    follows = np.tril(follows, -1)
    matched = follows.any(1)
    induction = (weights * follows).sum(-1)[:, matched].mean(-1) if matched.any() else idle
    wanted = sought(ids, targets)
    asked = wanted.any(1)
    lookup = (weights * wanted).sum(-1)[:, asked].mean(-1) if asked.any() else idle
    before = np.arange(1, size)
    if size < 2:
        return np.array([induction, lookup, idle, idle, idle])
    share = entropy / np.log(np.maximum(seen[1:], 2))
    return np.array([induction, lookup, weights[:, before, before - 1].mean(-1), entropy.mean(-1), share.mean(-1)])


def sought(ids: NDArray[np.int64], targets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True at (i, j) where the token after i is a target and j is an earlier occurrence of it: (L,) -> (L, L)"""
    found = np.zeros((len(ids), len(ids)), bool)
    found[:-1] = (ids[1:, None] == ids[None, :]) & targets[1:, None]
    return np.tril(found)


def copying_scores(model: PreTrainedModel, layers: tuple[int, ...], heads: int) -> NDArray[np.float64]:
    """The copying score of every head whose value and output projections are known; NaN elsewhere. (layers, heads)"""
    import torch

    scores = np.full((len(layers), heads), np.nan)
    try:
        known = head_map(model)
    except ModelError:
        return scores
    if known.heads != heads:
        return scores
    embedding = model.get_input_embeddings().weight.double()  # (V, D)
    head = model.get_output_embeddings().weight.double() * _final_gain(model)  # (V, D)
    through = head.T @ embedding  # (D, D): from what is written, over the logits, to what is read
    with torch.no_grad():
        for layer, values, outputs, gain in _circuits(model, known):
            if layer not in layers or values.shape[2] != len(gain):
                continue
            for number in range(heads):
                small = outputs[number].double() @ through @ (gain[:, None] * values[number].double().T)
                eigenvalues = torch.linalg.eigvals(small)
                total = float(eigenvalues.abs().sum())
                if total > 1e-12:
                    scores[layers.index(layer), number] = float(eigenvalues.real.sum()) / total
    return scores


def _circuits(model: PreTrainedModel, known: HeadMap) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Of each layer with attention: value and output maps (heads, d, D) each, and the gain before them (D,)."""
    from proctool.models.components import anatomy

    stack = anatomy(model).stack
    for layer in known.layers:
        block = model.get_submodule(f"{stack}.{layer}")
        norm = next((child for child in block.children() if "Norm" in type(child).__name__), None)
        maps = {}
        for role, owners in ((VALUE, known.heads // known.group), (OUTPUT, known.heads)):
            for name, rows in known.rows.items():
                chosen = rows.role == role
                if rows.layer == layer and name.endswith("weight") and chosen.any():
                    weight = model.get_parameter(name).movedim(rows.axis, 0)[chosen]  # (rows, D)
                    maps[role] = weight.reshape(owners, -1, weight.shape[1])
        yield layer, maps[VALUE].repeat_interleave(known.group, 0), maps[OUTPUT], _gain(norm, model)


def _final_gain(model: PreTrainedModel) -> Tensor:
    norms = [child for child in model.base_model.children() if "Norm" in type(child).__name__]
    return _gain(norms[-1] if norms else None, model)


def _gain(norm: nn.Module | None, model: PreTrainedModel) -> Tensor:
    import torch

    weight = getattr(norm, "weight", None)
    if weight is None:
        return torch.ones(model.config.hidden_size, dtype=torch.float64, device=model.device)
    # Gemma's norms store the gain minus one.
    shifted = str(model.config.model_type).startswith("gemma")
    return weight.detach().double() + (1.0 if shifted else 0.0)  # type: ignore[no-any-return]
