"""`proctool transplant`, `inspect --lineage`, `--layers` and `--train` as their users meet them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from proctool import artifact
from proctool.events import Event, TrainEvent
from proctool.models.components import components
from proctool.models.saved import open_model
from proctool.training.options import WarmupOptions
from proctool.training.warmup import warmup_job
from tests.conftest import Said
from tests.event_lines import event_lines
from tests.transplant.donors import save_donor, weights

SMALL = ("--model", "2x2x16", "--steps", "6", "--batch-size", "4", "--eval-every", "3", "--eval-samples", "8")
Run = Callable[..., Said]


@pytest.fixture(scope="session")
def odd_donors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of donors of which most have something wrong with them."""
    made = tmp_path_factory.mktemp("donors")
    make_odd_donors(made)
    return made


@pytest.fixture
def folder(proctool: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the donors a and b."""
    save_donor(Path("a.safetensors"), 1)
    save_donor(Path("b.safetensors"), 2)
    return Path()


def test_a_dry_run_lists_every_tensor_and_writes_nothing(proctool: Run, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    command = ("transplant", "--attention", "a.safetensors", "--mlp", "b.safetensors", "--layers", "mlp=1")
    said = proctool(*command, "--dry-run", "--json")
    assert said.code == 0, said.err
    assert sorted(folder.rglob("*")) == before
    planned = json.loads(said.out)
    places = components(open_model(Path("a.safetensors")).model())
    assert [row["tensor"] for row in planned["tensors"]] == list(places)
    lines = {words[0]: words for words in (line.split() for line in said.err.splitlines()) if words}
    for row in planned["tensors"]:
        shape, source = "x".join(map(str, row["shape"])), row["source"]
        assert lines[row["tensor"]][1:3] == [shape, source]
        moved = row["component"] == "attention" or (row["component"], row["layer"]) == ("mlp", 1)
        assert (source == "carried") == moved
    assert proctool(*command).code == 0
    made = weights(Path("mixed.safetensors"))
    for row in planned["tensors"]:
        if row["from"]:
            given = row["from"][0]
            assert torch.equal(made[row["tensor"]], weights(Path(given["donor"]))[given["tensor"]])


def test_a_model_of_another_command_is_replaced_only_with_force(proctool: Run, folder: Path) -> None:
    command = ("transplant", "--attention", "a.safetensors", "-o", "m.safetensors")
    assert proctool(*command).code == proctool(*command).code == 0
    kept = artifact.read_header(Path("m.safetensors")).content
    for dry in ((), ("--dry-run",)):
        said = proctool(*command, "--seed", 1, *dry)
        assert (said.code, said.line) == (1, (
            f"proctool: m.safetensors: has a model that another command wrote (content {kept[:12]}); "
            "choose another --output, or --force to replace it"
        ))  # fmt: skip
    assert artifact.read_header(Path("m.safetensors")).content == kept
    assert proctool(*command, "--seed", 1, "--force").code == 0
    assert artifact.read_header(Path("m.safetensors")).content != kept


def test_lineage_goes_back_to_the_generating_tasks(proctool: Run) -> None:
    assert proctool("generate", "set", "--inputs", 5, "--symbols", 9, "--samples", 64, "-o", "d.safetensors").code == 0
    assert proctool("warmup", "--data", "d.safetensors", *SMALL, "-o", "set.safetensors").code == 0
    task = "sort:inputs=5,symbols=9"
    assert proctool("warmup", "--task", task, *SMALL, "-o", "sort.safetensors").code == 0
    assert proctool("transplant", "--attention", "set.safetensors", "--mlp", "sort.safetensors").code == 0
    said = proctool("inspect", "mixed.safetensors", "--lineage")
    assert said.code == 0
    depth = {}
    for line in said.out.splitlines():
        text = line.lstrip("│├└─ ")
        depth[" ".join(text.split()[:2]).split(" (")[0]] = len(line) - len(text)
    assert depth["mixed.safetensors"] < depth["set.safetensors"] < depth["d.safetensors"]
    assert depth["d.safetensors"] < depth["task set:inputs=5,symbols=9"]
    assert depth["sort.safetensors"] < depth[f"task {task}"]
    assert depth["set.safetensors"] == depth["sort.safetensors"]
    assert "attention  from set.safetensors" in said.out
    assert said.out.count("task ") == 2


def save_without_configuration(path: Path) -> None:
    artifact.write(path, {"weight": torch.zeros(2)}, kind="model", metadata={})


def spoil(path: Path, tensor: str, value: float) -> None:
    def change(model: torch.nn.Module) -> None:
        model.get_parameter(tensor).view(-1)[3] = value

    save_donor(path, 3, change=change)


NAN = "transformer.h.1.mlp.c_fc.weight"
MISTAKES: dict[str, tuple[tuple[object, ...], str]] = {
    "no donor": ((), "no donor is given"),
    "missing donor": (("--mlp", "no.safetensors"), "no.safetensors: no such file"),
    "another family": (
        ("--attention", "a.safetensors", "--mlp", "llama.safetensors"),
        "is a llama model, but the target is",
    ),
    "another width": (
        ("--attention", "a.safetensors", "--mlp", "wide.safetensors"),
        "has 32 width, but the target has 16",
    ),
    "another depth": (
        ("--attention", "a.safetensors", "--mlp", "deep.safetensors"),
        "has 3 layers, but the target has 2",
    ),
    "other heads": (("--attention", "heads.safetensors", "--model", "2x2x16"), "has 4 heads, but the target has 2"),
    "another vocabulary": (
        ("--mlp", "a.safetensors", "--vocab-size", 41, "--embeddings", "copy"),
        "vocabulary of 30, but the target has 41",
    ),
    "another tensor's shape": (
        ("--attention", "a.safetensors", "--mlp", "inner.safetensors"),
        "tensor transformer.h.0.mlp.c_fc.weight has shape (16, 24), but the target needs (16, 64)",
    ),
    "the same component twice": (("--mlp", "a.safetensors", "--mlp", "b.safetensors"), "mlp: given twice"),
    "the same donor twice": (("--mlp", "a.safetensors,a.safetensors"), "the same donor is given twice"),
    "layers outside the model": (("--mlp", "a.safetensors", "--layers", "0-2"), "which has layers 0 to 1"),
    "layers backwards": (("--mlp", "a.safetensors", "--layers", "1-0"), "ends before it starts"),
    "no layers": (("--mlp", "a.safetensors", "--layers", "all"), '"all" is not a range'),
    "layers of what is not carried": (
        ("--mlp", "a.safetensors", "--layers", "attention=0"),
        "attention is not carried",
    ),
    "layers given twice": (("--mlp", "a.safetensors", "--layers", "0", "--layers", "1"), "layers: given twice"),
    "no configuration": (("--mlp", "bare.safetensors"), "the model has no configuration"),
    "not a number": (("--mlp", "nan.safetensors"), f"tensor {NAN} has NaN or infinite values"),
    "infinity in a base": (("--attention", "a.safetensors", "--base", "inf.safetensors"), f"tensor {NAN} has NaN"),
    "zero matches": (("--positions", "llama.safetensors"), "has no positions"),
    "no mixers": (("--mixer", "a.safetensors"), "has no mixer"),
    "control of what is not carried": (("--mlp", "a.safetensors", "--shuffle", "norms"), "norms is not carried"),
    "unknown component": (("--mlp", "a.safetensors", "--shuffle", "mpl"), 'did you mean "mlp"'),
    "two controls at once": (
        ("--mlp", "a.safetensors", "--shuffle", "mlp", "--match-scale", "mlp"),
        "mlp: shuffle and match-scale",
    ),
    "alpha too large": (("--mlp", "a.safetensors", "--alpha", "1.5"), "mlp: alpha = 1.5"),
    "noise below nothing": (("--mlp", "a.safetensors", "--noise", "mlp=-1"), "mlp: noise = -1"),
    "embeddings from whom": (
        ("--mlp", "a.safetensors", "--attention", "b.safetensors", "--embeddings", "mean"),
        "--embeddings-from",
    ),
    "embeddings how": (("--mlp", "a.safetensors", "--embeddings-from", "b.safetensors"), "needs --embeddings copy"),
    "base and model": (("--mlp", "a.safetensors", "--base", "b.safetensors", "--model", "2x2x16"), "give only one"),
    "base and vocabulary": (("--mlp", "a.safetensors", "--base", "b.safetensors", "--vocab-size", 9), "--base sets it"),
    "missing folder": (("--mlp", "a.safetensors", "-o", "no/mixed.safetensors"), "does not exist"),
    "data as donor": (("--mlp", "data.safetensors"), "holds data, expected model"),
    "a damaged donor": (("--mlp", "flipped.safetensors"), "is damaged"),
}


def make_odd_donors(folder: Path) -> None:
    for seed, name in enumerate("ab"):
        save_donor(folder / f"{name}.safetensors", seed)
    save_donor(folder / "llama.safetensors", 1, family="llama")
    save_donor(folder / "wide.safetensors", 1, model="2x2x32")
    save_donor(folder / "deep.safetensors", 1, model="3x2x16")
    save_donor(folder / "heads.safetensors", 1, model="2x4x16")
    save_without_configuration(folder / "bare.safetensors")
    spoil(folder / "nan.safetensors", NAN, float("nan"))
    spoil(folder / "inf.safetensors", NAN, float("-inf"))
    from transformers import GPT2Config

    from proctool.models.build import build_model
    from proctool.models.saved import save_model

    inner = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_inner=24, vocab_size=30, n_positions=16)
    save_model(folder / "inner.safetensors", build_model(inner, 0), {})
    artifact.write(folder / "data.safetensors", {"tokens": torch.zeros(2, 2)}, kind="data", metadata={})
    raw = bytearray((folder / "a.safetensors").read_bytes())
    header = artifact.read_header(folder / "a.safetensors")
    raw[header.tensors["transformer.h.0.mlp.c_fc.weight"].start + 5] ^= 1
    (folder / "flipped.safetensors").write_bytes(raw)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line_and_nothing_is_written(
    proctool: Run, odd_donors: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    arguments, message = MISTAKES[mistake]
    monkeypatch.chdir(odd_donors)
    before = {path: path.read_bytes() for path in odd_donors.iterdir()}
    said = proctool("transplant", *arguments)
    assert said.code == 1
    words = [line for line in said.err.splitlines() if line.startswith("proctool: ")]
    assert len(words) == 1
    assert message in words[0]
    assert {path: path.read_bytes() for path in odd_donors.iterdir()} == before


def test_pretrain_and_eval_carry_the_layers_asked_for(proctool: Run, text: Path, folder: Path) -> None:
    start = ("--init", "a.safetensors", "--components", "attention", "--layers", "1", "--dry-run", "--json")
    for command in (
        ("pretrain", "--corpus", text, "--context", 16, *SMALL),
        ("eval", "haystack", "--pairs", 2, *SMALL, "--ramp-steps", 2),
    ):
        said = proctool(*command, *start)
        assert said.code == 0, said.err
        rows = [row for row in json.loads(said.out)["carried"] if row["component"] == "attention"]
        assert {row["source"]: row["tensors"] for row in rows} == {"carried": 4, "fresh": 4}


def options(folder: Path, name: str, **changes: Any) -> WarmupOptions:
    settings = {
        "task": ("set:inputs=5,symbols=9",), "model": "2x2x16", "steps": 12, "batch_size": 8, "eval_every": 4,
        "eval_samples": 20, "log_every": 3, "checkpoint_every": 5, "run_dir": folder / name,
        "output": folder / f"{name}.safetensors", "weight_decay": 1.0,
    }  # fmt: skip
    return WarmupOptions(**{**settings, **changes})


@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}, {"accumulate": 2}])
def test_only_the_components_to_train_change(tmp_path: Path, more: dict[str, Any]) -> None:
    job = warmup_job(options(tmp_path, "run", train=("attention", "norms"), **more))
    initial = dict(job._initial()[0].named_parameters())
    job.run()
    places = components(open_model(tmp_path / "run.safetensors").model())
    for name, trained in weights(tmp_path / "run.safetensors").items():
        changed = not torch.equal(trained, initial[name])
        assert changed == (places[name].component in ("attention", "norms")), name


def test_a_frozen_run_resumes_bit_for_bit_and_keeps_state_of_what_it_trains(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, TrainEvent) and event.step == 9:
            raise Killed

    warmup_job(options(tmp_path, "whole", train=("mlp",))).run()
    job = warmup_job(options(tmp_path, "killed", train=("mlp",)))
    job.listeners = [kill]
    with pytest.raises(Killed):
        job.run()
    (checkpoint,) = (tmp_path / "killed" / "checkpoints").iterdir()
    kept = [name for name in artifact.read_header(checkpoint).tensors if name.startswith("optimiser/")]
    assert kept
    assert all(".mlp." in name for name in kept)
    warmup_job(options(tmp_path, "killed", train=("mlp",))).run()
    ends = [artifact.read_header(tmp_path / f"{name}.safetensors").content for name in ("whole", "killed")]
    assert ends[0] == ends[1]
    assert event_lines(tmp_path / "whole")[0]["trained"] < event_lines(tmp_path / "whole")[0]["parameters"]


def test_what_is_trained_belongs_to_the_run(proctool: Run) -> None:
    train = ("warmup", "--task", "set:inputs=5,symbols=9", *SMALL, "-o", "w.safetensors", "--train")
    assert proctool(*train, "attention").code == 0
    assert "belongs to a run with train = ['attention']" in proctool(*train, "attention,mlp").line


@pytest.mark.parametrize(("names", "message"), [("head", "has no head"), ("atention", 'did you mean "attention"')])
def test_training_nothing_is_refused_before_a_run_folder_is_made(proctool: Run, names: str, message: str) -> None:
    said = proctool("warmup", "--task", "set:inputs=5,symbols=9", *SMALL, "--train", names)
    assert message in said.line
    assert not Path("runs").exists()
