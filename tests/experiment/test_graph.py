from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_experiment import planned

from proctool import artifact
from proctool.corpora.tokenizers import ByteTokenizer

WARM = {"warmup": {"task": "set:inputs=8"}}
HAYSTACK = {"haystack": {"pairs": 4, "vocab": 32, "steps": 10, "batch_size": 4, "ramp_steps": 2}}


def keys(root: Path, **changes: Any) -> dict[str, str]:
    return {stage.name: stage.key for stage in planned(root, **changes).stages}


def test_parents_come_first_and_shared_stages_are_one(root: Path) -> None:
    arms = {
        "cold": {},
        "set": WARM,
        "attention": WARM | {"components": ["attention"]},
        "slow": {"pretrain": {"lr": 1e-4}},
    }
    plan = planned(root, arms=arms, diagnostics=HAYSTACK, seeds=[0, 1])
    names = [stage.name for stage in plan.stages]
    # Two arms share the donor of each seed; `slow` shares cold's diagnostic.
    assert sorted(name for name in names if name.startswith("warmup")) == ["warmup-set-s0", "warmup-set-s1"]
    assert sum(name.startswith("haystack") for name in names) == 2 * 3
    assert sum(name.startswith("pretrain") for name in names) == 2 * 4
    assert plan.arms["slow"][0].diagnostics["haystack"] is plan.arms["cold"][0].diagnostics["haystack"]
    for place, stage in enumerate(plan.stages):
        assert all(parent in plan.stages[:place] for parent in stage.parents)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"title": "Why?"},
        {"baseline": "set"},
        {"tokenizer": "bytes"},  # the default, written out
        {"pretrain": {"batch-size": 4, "steps": "40", "eval_every": 10, "lr": "0.001", "checkpoint_every": 7}},
        {"warmup": {"batch_size": 4, "steps": 20, "schedule": "constant"}},
        {
            "arms": {"set": {"warmup": {"task": {"name": "set", "inputs": 8, "symbols": 100}}}, "cold": None},
            "baseline": "cold",
        },
        {"arms": {"cold": {}, "set": WARM | {"components": ["norms", "mlp", "attention"]}}},
    ],
)
def test_keys_stay_when_meaning_stays(root: Path, changes: dict[str, Any]) -> None:
    assert keys(root, **changes) == keys(root)


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"pretrain": {"steps": 50, "batch_size": 4}}, {"pretrain-cold-s0", "pretrain-set-s0"}),
        ({"warmup": {"steps": 21, "batch_size": 4}}, {"warmup-set-s0", "pretrain-set-s0"}),
        ({"arms": {"cold": {}, "set": {"warmup": {"task": "set:inputs=9"}}}}, {"warmup-set-s0", "pretrain-set-s0"}),
        ({"arms": {"cold": {}, "set": WARM | {"components": ["mlp"]}}}, {"pretrain-set-s0"}),
        ({"arms": {"cold": {}, "set": WARM | {"embeddings": "mean"}}}, {"pretrain-set-s0"}),
        ({"model": "2x4x16"}, {"warmup-set-s0", "pretrain-cold-s0", "pretrain-set-s0"}),
    ],
)
def test_only_what_means_something_else_has_another_key(root: Path, changes: dict[str, Any], changed: set[str]) -> None:
    before, after = keys(root), keys(root, **changes)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == changed


def test_seeds_have_keys_of_their_own(root: Path) -> None:
    plan = planned(root, seeds=[0, 1])
    assert len({stage.key for stage in plan.stages}) == len(plan.stages) == 6


def test_a_changed_corpus_file_changes_the_key(root: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text("one")
    before = keys(root, corpus=str(corpus))
    assert keys(root, corpus=str(corpus)) == before
    corpus.write_text("two or three")
    after = keys(root, corpus=str(corpus))
    assert {name for name in before if before[name] != after[name]} == {"pretrain-cold-s0", "pretrain-set-s0"}


# How a corpus can be named, and the file of it that is changed.
NAMED = {
    "mytext": "mytext/a.txt",
    "mytext/a.txt": "mytext/a.txt",
    "mytext/*.txt": "mytext/a.txt",
    "**/*.txt": "mytext/a.txt",
    "~/mytext": "mytext/a.txt",
    "~/mytext/*.txt": "mytext/a.txt",
    "linked": "mytext/a.txt",
    "c4:mytext": "mytext/a.jsonl",
    "c4:~/mytext": "mytext/a.jsonl",
    "wikitext:mytext": "mytext/a.txt",
    "mathematics:mytext": "mytext/train-easy/a.txt",
    "mathematics:~/mytext": "mytext/train-easy/a.txt",
}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "linked").symlink_to("mytext")
    return tmp_path


@pytest.mark.parametrize("named", NAMED)
def test_a_changed_file_changes_the_key_however_it_is_named(root: Path, there: Path, named: str) -> None:
    file = there / NAMED[named]
    file.parent.mkdir(parents=True)
    file.write_text("one\n1\n")
    before = keys(root, corpus=named)
    os.utime(file, (1, 1))  # copied or checked out again: the same text
    assert keys(root, corpus=named) == before
    file.write_text("two\n2\n")
    after = keys(root, corpus=named)
    assert {name for name in before if before[name] != after[name]} == {"pretrain-cold-s0", "pretrain-set-s0"}
    if "/a.txt" not in named:
        file.with_name(f"b{file.suffix}").write_text("three\n3\n")
        assert keys(root, corpus=named)["pretrain-cold-s0"] != after["pretrain-cold-s0"]


def test_an_unchanged_corpus_that_was_moved_keeps_its_key(root: Path, there: Path) -> None:
    (there / "mytext").mkdir()
    (there / "mytext" / "a.txt").write_text("one")
    before = keys(root, corpus="mytext")
    assert (
        keys(root, corpus="linked")
        == keys(root, corpus="~/mytext")
        == keys(root, corpus=str(there / "mytext"))
        == before
    )
    (there / "mytext").rename(there / "moved")
    assert keys(root, corpus="moved") == before


def write_model(path: Path, number: float, seed: int = 0) -> None:
    metadata = {"config": {"model_type": "gpt2", "seed": seed}}
    artifact.write(path, {"w": np.full(3, number, np.float32)}, kind="model", metadata=metadata, parents=())


def write_folder(path: Path, number: float, seed: int = 0) -> None:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"seed": seed}))
    save_file({"w": np.full(3, number, np.float32)}, path / "model.safetensors")


@pytest.mark.parametrize("write", [write_model, write_folder])
@pytest.mark.parametrize("treated", [False, True])
def test_an_init_counts_by_what_it_holds(root: Path, there: Path, write: Any, treated: bool) -> None:
    arm = {"init": "~/init.x"} | ({"treatment": {"shuffle": ["mlp"]}} if treated else {})

    def made() -> dict[str, str]:
        return {name: key for name, key in keys(root, arms={"cold": {}, "a": arm}).items() if name.endswith("-a-s0")}

    found = []
    for number, seed in ((1.0, 0), (2.0, 0), (1.0, 1), (1.0, 0)):
        write(there / "init.x", number, seed)
        found.append(made())
    assert found[3] == found[0]
    for other in found[1:3]:
        assert all(other[name] != key for name, key in found[0].items())


def test_a_tokenizer_and_a_configuration_count_by_what_they_hold(root: Path, there: Path) -> None:
    tokenizer, model = ByteTokenizer().definition, there / "model"
    (there / "t").mkdir()
    model.mkdir()

    def write(other: bool) -> dict[str, str]:
        text = tokenizer.replace("<|endoftext|>", "</s>") if other else tokenizer
        (there / "t" / "tokenizer.json").write_text(text)
        (model / "weights.bin").write_text(str(other))  # not read
        return keys(root, tokenizer="~/t", model="2x2x16")

    before, after = write(False), write(True)
    assert {name for name in before if before[name] != after[name]} == {"pretrain-cold-s0", "pretrain-set-s0"}
    assert write(False) == before
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    first = keys(root, model="~/model")
    (model / "config.json").write_text('{"model_type": "gpt2", "n_layer": 3}')
    second = keys(root, model="~/model")
    assert all(first[name] != second[name] for name in first)


@pytest.mark.parametrize("named", ["python", "docstrings", "mathematics", "c4", "mathematics:30000"])
def test_a_folder_that_a_name_hides_has_no_part_in_the_key(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = keys(root, corpus=named, tokenizer="bytes")
    for name in (named, named.rpartition(":")[2], "bytes"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "a.txt").write_text("one")
    assert keys(root, corpus=named, tokenizer="bytes") == before


def test_a_diagnostic_of_another_size_has_donors_of_its_own(root: Path) -> None:
    asked = HAYSTACK["haystack"] | {"model": "2x4x16", "warmup": {"steps": 5}}
    plan = planned(root, diagnostics={"haystack": asked})
    donor = plan.arms["set"][0].diagnostics["haystack"].donor
    assert donor is not None
    assert donor.options.model == "2x4x16"
    assert donor.steps == 5
    assert donor is not plan.arms["set"][0].pretrain.donor  # type: ignore[union-attr]


def test_command_lines(root: Path) -> None:
    plan = planned(root, diagnostics=HAYSTACK)
    warm, cold = plan.arms["set"][0], plan.arms["cold"][0]
    assert warm.pretrain is not None
    assert cold.pretrain is not None
    argv = warm.pretrain.argv(root)
    assert argv[0] == "pretrain"
    assert argv[argv.index("--init") + 1] == str(warm.pretrain.donor.artifact(root))  # type: ignore[union-attr]
    assert argv[argv.index("--corpus") + 1] == "python"
    assert "--init" not in cold.pretrain.argv(root)
    assert cold.diagnostics["haystack"].argv(root)[:2] == ["eval", "haystack"]


def test_names_of_folders_fit_a_file_system(root: Path) -> None:
    mixed = {"warmup": {"task": " + ".join([f"set:inputs={n}" for n in range(3, 8)] * 14), "steps": 2}}
    stages = planned(root, arms={"cold": {}, "x" * 200: mixed}, diagnostics=HAYSTACK).stages
    folders = {stage.folder(root).name for stage in stages}
    assert len(folders) == len(stages)
    assert max(map(len, folders)) <= 255 < max(len(stage.name) for stage in stages)


def test_a_renamed_arm_keeps_its_folder(root: Path) -> None:
    folder = planned(root).arms["cold"][0].pretrain.folder(root)  # type: ignore[union-attr]
    folder.mkdir(parents=True)
    renamed = planned(root, arms={"bare": {}, "set": WARM})
    assert renamed.arms["bare"][0].pretrain.folder(root) == folder  # type: ignore[union-attr]


def test_the_end_of_text_token_is_the_recipes_and_part_of_the_key(tmp_path: Path) -> None:
    without, plain, other = (
        planned(tmp_path, tokenizer="gpt2", **given)
        for given in ({}, {"end_of_text": None}, {"end_of_text": "<|im_end|>"})
    )
    keys = [
        sorted(stage.key for stage in each.stages if stage.command == ("pretrain",)) for each in (without, plain, other)
    ]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])
    pretrain = next(stage for stage in other.stages if stage.command == ("pretrain",))
    assert "--end-of-text <|im_end|>" in " ".join(pretrain.argv(tmp_path))


def test_a_tokenizer_that_only_its_stage_can_read_counts_by_its_files(root: Path, there: Path) -> None:
    """Its end-of-text token is named by an option, without which it cannot be loaded."""
    (there / "mytext.txt").write_text("one")
    folder = there / "tok"
    folder.mkdir()
    made = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    (folder / "tokenizer.json").write_text(json.dumps(made))
    asked = {"corpus": "mytext.txt", "tokenizer": "tok", "pretrain": {"steps": 4, "end_of_text": "a"}}
    before = keys(root, **asked)
    made["model"]["vocab"]["b"] = 1  # type: ignore[index]
    (folder / "tokenizer.json").write_text(json.dumps(made))
    after = keys(root, **asked)
    assert before["pretrain-cold-s0"] != after["pretrain-cold-s0"]
