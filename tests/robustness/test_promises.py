"""What docs/guarantees.md promises and no other test holds."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from proctool import artifact
from proctool.artifact import writing
from proctool.training.options import PretrainOptions
from proctool.training.pretrain import pretrain_job
from proctool.training.warmup import warmup_job
from tests.event_lines import event_lines
from tests.robustness.faults import ended, start
from tests.training.runs import contents, options


def test_every_promise_names_a_test_that_exists() -> None:
    root = Path(__file__).parents[2]
    promised = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (root / "docs" / "guarantees.md").read_text())
    assert len(promised) > 15
    missing = [f"{path}::{name}" for path, name in promised if f"def {name}(" not in (root / path).read_text() and name]
    assert missing == []


def test_files_do_not_depend_on_the_place_or_the_process(tmp_path: Path) -> None:
    """Another folder, zone of time, language, seed of Python's hashes and number of threads: the same bytes."""
    made = []
    for number, more in enumerate(({"TZ": "UTC", "LC_ALL": "C"}, {"TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8"})):
        folder = tmp_path / f"folder {number}"
        folder.mkdir()
        settings = {**more, "PYTHONHASHSEED": str(number + 1), "OMP_NUM_THREADS": str(number + 1)}
        process = start(
            folder, "generate", "dyck", "--k", 4, "--length", 64, "--samples", 300, "-o", "a.safetensors", **settings
        )
        code, said = ended(process)
        assert code == 0, said
        made.append((folder / "a.safetensors").read_bytes())
    assert made[0] == made[1]


def test_a_model_does_not_depend_on_where_its_makings_lie(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        folder = tmp_path / f"folder {number}"
        folder.mkdir()
        (folder / "text.txt").write_text("".join(f"{i} and {i + 1} make {2 * i + 1}\n" for i in range(9000)))
        tokenizer = Tokenizer(WordLevel({"make": 0, "and": 1, "1": 2, "<|endoftext|>": 3}, unk_token="<|endoftext|>"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.add_special_tokens(["<|endoftext|>"])
        (folder / "words").mkdir()
        tokenizer.save(str(folder / "words" / "tokenizer.json"))
        warmup_job(options(folder, "warm", model="1x1x8", context=64)).run()
        pretrain_job(
            PretrainOptions(
                corpus=str(folder / "text.txt"), tokenizer=str(folder / "words"), model="1x1x8", context=16, steps=2,
                batch_size=4, ramp_steps=1, eval_samples=4, run_dir=folder / "run", output=folder / "m.safetensors",
                init=str(folder / "warm.safetensors"), cache_dir=folder / "cache",
            )
        ).run()  # fmt: skip
        made.append((folder / "m.safetensors").read_bytes())
    assert made[0] == made[1]


def test_a_run_does_not_depend_on_what_the_process_did_before(tmp_path: Path) -> None:
    warmup_job(options(tmp_path, "first")).run()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    torch.rand(7)
    warmup_job(options(tmp_path, "second")).run()
    assert contents(tmp_path / "first.safetensors") == contents(tmp_path / "second.safetensors")


@pytest.mark.parametrize(
    "changes",
    [{"log_every": 1}, {"checkpoint_every": 2, "keep_checkpoints": 1}, {"spike": 1000.0}, {"eval_every": 3}],
    ids=lambda changes: " ".join(changes),
)
def test_watching_a_run_changes_no_bit_of_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    warmup_job(options(tmp_path, "plain")).run()
    warmup_job(options(tmp_path, "watched", **changes)).run()
    assert contents(tmp_path / "plain.safetensors") == contents(tmp_path / "watched.safetensors")


def test_contents_keep_their_name_across_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"x": np.arange(6, dtype=np.float32)}
    here = artifact.write(tmp_path / "here", tensors, kind="data", metadata={})
    monkeypatch.setattr(writing, "versions", lambda: {"proctool": "99", "torch": "99"})
    there = artifact.write(tmp_path / "there", tensors, kind="data", metadata={})
    assert there.versions != here.versions
    assert there.content == here.content
    assert (tmp_path / "there").read_bytes() != (tmp_path / "here").read_bytes()


@pytest.mark.slow
def test_a_compiled_model_trains_alike_to_rounding(tmp_path: Path) -> None:
    for name, compiled in (("plain", False), ("compiled", True)):
        # As many samples as in a step: each size of batch is compiled once more.
        warmup_job(options(tmp_path, name, compile=compiled, dropout=0.0, eval_samples=8)).run()
    events = event_lines(tmp_path / "compiled")
    if any("torch.compile does not work here" in event.get("note", "") for event in events):
        pytest.skip("torch.compile does not work here")
    plain, compiled_losses = (
        [event["loss"] for event in event_lines(tmp_path / name) if event["event"] == "train"]
        for name in ("plain", "compiled")
    )
    np.testing.assert_allclose(compiled_losses, plain, rtol=1e-4)
