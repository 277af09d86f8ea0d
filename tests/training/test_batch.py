"""Cutting padding off and grouping by length change no loss, gradient or score."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator

from proctool.models.build import build_model, model_config
from proctool.procedural.registry import build_task
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream
from proctool.training.batch import Batch, by_length
from proctool.training.loss import TargetLoss
from proctool.training.step import micro_batches


def test_groups_hold_every_sample_once_and_are_cut_to_what_predictions_need() -> None:
    samples = Stream(build_task("haystack", {}), 0, "train").read(0, 300)
    groups = list(by_length(samples))
    assert len(groups) > 2
    rows = np.concatenate([np.concatenate([group.tokens, group.targets], 1) for group in groups])
    wanted = np.concatenate([samples.tokens, samples.targets], 1)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, wanted.tolist()))
    lengths = [Batch.of(group).tokens.shape[1] for group in groups]
    assert lengths == sorted(lengths)
    assert lengths[0] <= 16
    assert sum(n * len(group) for n, group in zip(lengths, groups, strict=True)) < 0.75 * samples.tokens[:, 1:].size


def test_loss_and_gradients_are_those_of_uncut_samples() -> None:
    samples = Stream(build_task("haystack", {"pairs": 20}), 3, "train").read(0, 128)
    model = build_model(model_config("1x2x16", vocab_size=256, context=42), seed=0)
    module = TargetLoss(model)
    logits = model(torch.from_numpy(samples.tokens.astype("int64"))).logits
    rows, places = (torch.from_numpy(part) for part in samples.targets.nonzero())
    labels = torch.from_numpy(samples.tokens.astype("int64"))[rows, places]
    plain = torch.nn.functional.cross_entropy(logits[rows, places - 1], labels, reduction="sum")
    plain.backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    total = 0.0
    for group in by_length(samples):
        batch = Batch.of(group)
        loss = module(batch.tokens, batch.positions, batch.labels)
        loss.backward()
        total += loss.item()
    assert abs(total - plain.item()) < 1e-3
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-4, rtol=1e-3)


def test_the_first_token_is_never_a_target_and_samples_without_targets_pass() -> None:
    tokens = np.arange(12, dtype=np.uint16).reshape(3, 4)
    targets = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    batch = Batch.of(Samples(tokens, targets))
    assert batch.tokens.tolist() == [[0, 1], [4, 5], [8, 9]]
    assert batch.positions.tolist() == [3]
    assert batch.labels.tolist() == [6]
    assert sum(map(len, by_length(Samples(tokens, targets)))) == 3
    alone = Batch.of(Samples(tokens[2:], targets[2:]))
    assert (alone.tokens.shape, alone.labels.numel()) == ((1, 1), 0)


def test_full_rows_stay_one_group() -> None:
    samples = Samples(np.zeros((64, 128), np.uint16), np.ones((64, 128), bool))
    assert [len(group) for group in by_length(samples)] == [64]


def test_with_room_shapes_are_those_of_the_samples_and_the_loss_stays() -> None:
    samples = Stream(build_task("haystack", {"pairs": 20}), 3, "train").read(0, 16)
    module = TargetLoss(build_model(model_config("1x2x16", vocab_size=256, context=42), seed=0))
    usual, padded = Batch.of(samples), Batch.of(samples, room=32)
    assert padded.tokens.shape == (16, samples.tokens.shape[1] - 1)
    assert (len(padded.positions), len(padded.labels)) == (32, 32)
    losses = [module(*batch) for batch in (usual, padded)]
    torch.testing.assert_close(losses[1], losses[0])
    parts, targets, _ = micro_batches(samples, 4, Accelerator(cpu=True), fixed=True)
    assert len({tuple(tensor.shape for tensor in part) for part in parts}) == 1
    assert (len(parts), len(parts[0].labels), targets) == (4, 4, 16)
