"""Tasks as PyTorch datasets: the stream's samples, each exactly once, however they are shared out and resumed."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import proctool
from proctool.errors import Notice, OptionError
from proctool.procedural.samples import Samples
from proctool.procedural.streams import BLOCK
from proctool.torch import IGNORED, Collator, TaskDataset, TaskStream, collate

SPEC = "set:inputs=4,symbols=50"
SPECS = (
    SPEC,
    "dyck:k=4,length=16",
    "shuffle(set:inputs=4)",
    "set:inputs=4*0.5 + union:inputs=6*0.5",
    "haystack:pairs=3",
)


def expected(spec: str, start: int, stop: int, seed: int = 0, split: str = "train") -> Samples:
    return proctool.load_task(spec).stream(seed, split).read(start, stop)


def is_sample(item: dict[str, torch.Tensor], samples: Samples, row: int) -> bool:
    labels = np.where(samples.targets[row], samples.tokens[row].astype(int), IGNORED)
    return (
        item["input_ids"].dtype == item["labels"].dtype == torch.int64
        and np.array_equal(item["input_ids"], samples.tokens[row])
        and np.array_equal(item["labels"], labels)
    )


@pytest.mark.parametrize("spec", SPECS)
def test_a_dataset_gives_the_streams_samples_by_index(spec: str) -> None:
    dataset = TaskDataset(spec, seed=3, split="validation", length=BLOCK + 5)
    samples = expected(spec, 0, BLOCK + 5, 3, "validation")
    assert len(dataset) == BLOCK + 5
    assert all(is_sample(dataset[place], samples, place) for place in (0, 7, BLOCK - 1, BLOCK, BLOCK + 4, -1))
    places = [BLOCK + 1, 2, BLOCK - 1, 2]
    assert all(
        is_sample(item, samples, place) for item, place in zip(dataset.__getitems__(places), places, strict=True)
    )
    for outside in (BLOCK + 5, -BLOCK - 6):
        with pytest.raises(IndexError):
            dataset[outside]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The blocks that a stream draws, in order."""
    from proctool.procedural import streams

    numbers: list[int] = []
    draw = streams._block.__wrapped__
    monkeypatch.setattr(streams, "_block", lambda stream, number: numbers.append(number) or draw(stream, number))
    return numbers


def test_reading_in_order_draws_each_block_once(drawn: list[int]) -> None:
    dataset = TaskDataset(SPEC, length=3 * BLOCK, cache_bytes=0)
    for place in range(0, 3 * BLOCK, 50):
        dataset[place]
    assert drawn == [0, 1, 2]


def test_shuffled_reading_draws_each_block_once_where_all_fit_and_else_says_so(drawn: list[int]) -> None:
    places = np.random.default_rng(0).permutation(4 * BLOCK)[:300]
    roomy = TaskDataset(SPEC, length=4 * BLOCK)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        for place in places:
            roomy[place]
    assert sorted(drawn) == [0, 1, 2, 3]
    small = TaskDataset(SPEC, length=4 * BLOCK, cache_bytes=1)
    with pytest.warns(Notice, match="shuffle=False"):
        assert [len(small[place]) for place in places]


def test_changing_a_sample_changes_no_other() -> None:
    dataset = TaskDataset(SPEC, length=10)
    dataset[3]["labels"][:] = 7
    dataset[3]["input_ids"][:] = 7
    assert is_sample(dataset[3], expected(SPEC, 0, 10), 3)
    stream = iter(TaskStream(SPEC))
    next(stream)["labels"][:] = 7
    assert is_sample(next(stream), expected(SPEC, 0, 2), 1)


def test_a_pickled_dataset_leaves_its_cache_behind() -> None:
    dataset = TaskDataset(SPEC, length=10)
    dataset[0]
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 2000
    assert is_sample(pickle.loads(pickled)[3], expected(SPEC, 0, 10), 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_dataset_in_order(workers: int) -> None:
    loader = DataLoader(TaskDataset(SPEC, length=1100), batch_size=100, num_workers=workers, collate_fn=collate)
    batches = list(loader)
    assert np.array_equal(torch.cat([batch["input_ids"] for batch in batches]), expected(SPEC, 0, 1100).tokens)
    assert set(batches[0]) == {"input_ids", "labels"}


def rows(items: Any) -> list[bytes]:
    return [np.asarray(item["input_ids"], np.int64).tobytes() for item in items]


def stream_rows(start: int, stop: int) -> list[bytes]:
    return [row.tobytes() for row in expected(SPEC, start, stop).tokens.astype(np.int64)]


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_ranks_and_workers_give_every_sample_exactly_once(
    ranks: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    found = []
    for rank, worker in itertools.product(range(ranks), range(workers)):
        info = SimpleNamespace(num_workers=workers, id=worker)
        monkeypatch.setattr("proctool.torch.get_worker_info", lambda info=info: info)
        stream = TaskStream(SPEC, rank=rank, world_size=ranks)
        found += rows(itertools.islice(stream, 2 * BLOCK))
    assert sorted(found) == sorted(stream_rows(0, 2 * BLOCK * ranks * workers))


def test_workers_of_a_loader_share_the_stream_out() -> None:
    loader = DataLoader(TaskStream(SPEC), batch_size=BLOCK // 2, num_workers=2, collate_fn=collate)
    batches = list(itertools.islice(loader, 8))
    found = [row.numpy().tobytes() for batch in batches for row in batch["input_ids"]]
    assert sorted(found) == sorted(stream_rows(0, 4 * BLOCK))


def test_a_stream_takes_its_rank_from_torch_distributed_and_tells_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TaskStream(SPEC)
    with monkeypatch.context() as launched:
        launched.setattr(torch.distributed, "is_initialized", lambda: True)
        launched.setattr(torch.distributed, "get_rank", lambda: 2)
        launched.setattr(torch.distributed, "get_world_size", lambda: 4)
        assert rows([next(iter(stream))]) == stream_rows(2 * BLOCK, 2 * BLOCK + 1)
        sent = pickle.dumps(stream)
    assert rows([next(iter(pickle.loads(sent)))]) == stream_rows(2 * BLOCK, 2 * BLOCK + 1)
    assert rows([next(iter(stream))]) == stream_rows(0, 1)


@pytest.mark.parametrize("given", [0, 1, 31, 32, BLOCK - 1, BLOCK, BLOCK + 40])
def test_a_restored_stream_gives_what_the_saved_one_would_have(given: int) -> None:
    stream = TaskStream(SPEC, rank=1, world_size=2)
    items = iter(stream)
    for _ in range(given):
        next(items)
    state = stream.state_dict()
    assert pickle.loads(pickle.dumps(state)) == state
    restored = TaskStream(SPEC, rank=1, world_size=2)
    restored.load_state_dict(state)
    assert restored.state_dict() == state  # before it is iterated
    again = iter(restored)
    assert rows(itertools.islice(again, 100)) == rows(itertools.islice(items, 100))
    assert restored.state_dict() == stream.state_dict()


def test_an_iteration_begins_at_the_beginning_unless_a_state_was_loaded() -> None:
    stream = TaskStream(SPEC)
    first = rows(itertools.islice(stream, 3))
    assert rows(itertools.islice(stream, 3)) == first
    state = stream.state_dict()
    stream.load_state_dict(state)
    assert rows(itertools.islice(stream, 3)) == stream_rows(3, 6)
    assert rows(itertools.islice(stream, 3)) == first


def loaded(stream: TaskStream, state: dict[str, Any]) -> TaskStream:
    stream.load_state_dict(state)
    return stream


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (TaskStream(SPEC, seed=1), "seed = 0, not 1"),
        (TaskStream(SPEC, split="test"), "split = train, not test"),
        (TaskStream("set:inputs=5,symbols=50"), "task = set:inputs=4"),
        (TaskStream(SPEC, rank=0, world_size=2), "part 0 of 1"),
    ],
)
def test_the_state_of_another_stream_is_refused(other: TaskStream, said: str) -> None:
    state = TaskStream(SPEC).state_dict()
    with pytest.raises(OptionError, match=said):
        list(itertools.islice(loaded(other, state), 1))
    with pytest.raises(OptionError, match="has no given"):
        other.load_state_dict({**other._identity(), "shard": 0, "shards": 1})


def test_accelerates_own_sharding_of_a_whole_stream_gives_every_sample_once() -> None:
    from accelerate.data_loader import IterableDatasetShard

    found: list[bytes] = []
    for process in range(2):
        stream = TaskStream(SPEC, rank=0, world_size=1)
        shard = IterableDatasetShard(stream, batch_size=16, num_processes=2, process_index=process)
        found += rows(itertools.islice(shard, 160))
    assert sorted(found) == sorted(stream_rows(0, 320))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TaskDataset(SPEC, length=0), "length = 0"),
        (lambda: TaskDataset(SPEC, split="dev", length=1), 'split "dev"'),
        (lambda: TaskDataset("sett", length=1), 'did you mean "set"'),
        (lambda: TaskStream(SPEC, rank=1), "give both or neither"),
        (lambda: TaskStream(SPEC, rank=2, world_size=2), "ranks are 0 to world_size - 1"),
        (lambda: TaskStream(SPEC, seed=-1), "seed = -1"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


def lengths(*of: int) -> Iterator[dict[str, Any]]:
    for length in of:
        yield {"input_ids": list(range(1, length + 1)), "labels": [IGNORED, *range(2, length + 1)]}


def test_samples_of_one_length_make_a_batch_without_a_mask() -> None:
    batch = collate(list(lengths(3, 3)))
    assert set(batch) == {"input_ids", "labels"}
    assert batch["labels"].dtype == batch["input_ids"].dtype == torch.int64
    assert batch["labels"].tolist() == [[IGNORED, 2, 3]] * 2


def test_shorter_samples_are_filled_and_masked() -> None:
    batch = Collator(pad_id=9, multiple_of=4)(list(lengths(3, 5)))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9, 9, 9, 9], [1, 2, 3, 4, 5, 9, 9, 9]]
    assert batch["labels"].tolist()[0] == [IGNORED, 2, 3, *[IGNORED] * 5]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    alike = Collator(multiple_of=4)(list(lengths(3, 3)))
    assert alike["attention_mask"].tolist() == [[1, 1, 1, 0]] * 2


@pytest.mark.parametrize("spec", SPECS)
def test_the_loss_of_transformers_is_the_mean_over_targets(spec: str) -> None:
    """Labels stand where the models of transformers expect them: their loss is that of proctool's own training."""
    from proctool.models.build import build_model, model_config
    from proctool.training.in_memory import score
    from proctool.training.sources import TaskSource

    task = proctool.load_task(spec)
    config = model_config("2x2x16", vocab_size=task.vocab_size, context=task.length, padded=False)
    model = build_model(config, 0).eval()
    batch = collate(TaskDataset(task, length=20).__getitems__(list(range(20))))
    with torch.no_grad():
        loss = float(model(**batch).loss)
    assert loss == pytest.approx(score(model, TaskSource(task, 0), 20, 20).loss, rel=1e-5)


@pytest.mark.slow
def test_a_launch_of_two_processes_with_two_workers_each_reads_every_sample_once(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ran = subprocess.run(
        [*launcher, "-m", "tests.api.shares", str(tmp_path)],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    whole = expected(SPEC, 0, 8 * BLOCK).tokens.tolist()
    assert sorted(found) == sorted(" ".join(map(str, row)) for row in whole)


def test_no_sample_lies_outside_a_dataset_or_a_stream() -> None:
    data = TaskDataset(SPEC, length=10)
    for places in ([10], [-11], [0, 12]):
        with pytest.raises(IndexError, match="of a dataset of 10"):
            data.__getitems__(places)
    assert torch.equal(data[-1]["input_ids"], data[np.int64(9)]["input_ids"])
    for start, stop in ((-3, 0), (5, 3)):
        with pytest.raises(IndexError, match="start must be at least 0"):
            data.stream.read(start, stop)


@pytest.mark.parametrize("given", [-1, 1.5, "x"])
def test_a_position_that_is_none_is_refused(given: Any) -> None:
    stream = TaskStream(SPEC, rank=0, world_size=1)
    with pytest.raises(OptionError, match="not the state of a TaskStream"):
        stream.load_state_dict({**stream.state_dict(), "given": given})


@pytest.mark.parametrize("options", [{"multiple_of": 0}, {"pad_id": -1}, {"pad_id": "x"}])
def test_a_collator_of_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must be a whole number"):
        Collator(**options)
