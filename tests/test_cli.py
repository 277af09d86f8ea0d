"""The command line as its users meet it: one pipeline, and a clear line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from proctool import artifact
from tests.conftest import Said

SMALL = ("--model", "2x2x16", "--steps", "6", "--batch-size", "4", "--eval-every", "3", "--eval-samples", "8")


def warmed(proctool: Callable[..., Said], *more: object) -> Path:
    said = proctool("warmup", "--task", "set:inputs=5,symbols=9", *SMALL, "-o", "warm.safetensors", *more)
    assert said.code == 0, said.err
    return Path("warm.safetensors")


def test_the_pipeline_from_rules_to_a_hugging_face_model(proctool: Callable[..., Said], text: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from proctool.models.saved import open_model

    assert (
        proctool("generate", "set", "--inputs", 5, "--symbols", 9, "--samples", 64, "-o", "set.safetensors").code == 0
    )
    assert proctool("warmup", "--data", "set.safetensors", *SMALL, "-o", "warm.safetensors").code == 0
    said = proctool(
        "pretrain",
        "--corpus",
        text,
        "--init",
        "warm.safetensors",
        "--context",
        16,
        *SMALL,
        "-o",
        "model.safetensors",
        "--json",
    )
    assert said.code == 0, said.err
    for component in (
        "attention  carried",
        "mlp        carried",
        "norms      carried",
        "embeddings scale",
        "positions  fresh",
    ):
        assert component in said.err
    end = json.loads(said.out)
    assert end["content"] == artifact.read_header(Path("model.safetensors")).content
    said = proctool("eval", "perplexity", "model.safetensors", "--corpus", text, "--json")
    assert json.loads(said.out)["loss"] == pytest.approx(end["loss"], rel=0.2)
    said = proctool("eval", "haystack", "--init", "warm.safetensors", "--pairs", 2, *SMALL, "--ramp-steps", 2, "--json")
    assert 0 <= json.loads(said.out)["scores"]["answer"]["accuracy"] <= 1
    said = proctool("inspect", "model.safetensors")
    assert said.code == 0
    assert "warm.safetensors" in said.out
    assert "set.safetensors" in said.out
    for form in ("hf", "nanogpt"):
        said = proctool("export", "model.safetensors", form, "--format", form, "--dry-run")
        assert (said.code, Path(form).exists()) == (0, False)
        assert "nothing was written" in said.err
    assert proctool("export", "warm.safetensors", "text", "--dry-run").code == 1
    Path("export.yaml").write_text("dtype: bf16\nlicense: mit\n")
    said = proctool("export", "model.safetensors", "hf", "--config", "export.yaml", "--dtype", "fp32", "--json")
    assert json.loads(said.out)["dtype"] == "fp32"
    assert "license: mit" in Path("hf/README.md").read_text()
    assert json.loads(said.out)["files"] == sorted(path.name for path in Path("hf").iterdir())
    tokenizer = AutoTokenizer.from_pretrained("hf")
    ids = tokenizer("line 3 of 4", return_tensors="pt").input_ids
    assert tokenizer.eos_token_id == 256
    ours = open_model(Path("model.safetensors")).model().eval()
    assert torch.equal(AutoModelForCausalLM.from_pretrained("hf").eval()(ids).logits, ours(ids).logits)


def test_generated_files_are_byte_identical_for_a_seed_and_share_nothing_across(proctool: Callable[..., Said]) -> None:
    def make(name: str, *more: object) -> bytes:
        assert proctool("generate", "dyck", "--k", 4, "--length", 64, "--samples", 300, "-o", name, *more).code == 0
        return Path(name).read_bytes()

    assert make("a.safetensors") == make("b.safetensors")
    rows = []
    for name, more in (("a", ()), ("c", ("--seed", 1)), ("d", ("--split", "validation"))):
        make(f"{name}.safetensors", *more)
        tokens = artifact.read_numpy(artifact.read_header(Path(f"{name}.safetensors")))["tokens"]
        rows.append({row.tobytes() for row in tokens})
    assert sum(map(len, rows)) == len(set.union(*rows))


def test_shards_together_are_the_single_run(proctool: Callable[..., Said]) -> None:
    import numpy as np

    def tokens(name: str, *more: object) -> np.ndarray:
        assert proctool("generate", "dyck", "--length", 16, "--samples", 2500, "-o", name, *more).code == 0
        return artifact.read_numpy(artifact.read_header(Path(name)))["tokens"]

    parts = [tokens(f"{number}.safetensors", "--shard", f"{number}/3") for number in (1, 2, 3)]
    assert np.array_equal(np.concatenate(parts), tokens("all.safetensors"))


def test_flags_go_over_set_over_file(proctool: Callable[..., Said]) -> None:
    Path("w.yaml").write_text('task: ["set:inputs=5,symbols=9"]\nmodel: 2x2x16\nlr: 5e-4\nbatch-size: 4\nsteps: 1k\n')
    said = proctool(
        "warmup",
        "--config",
        "w.yaml",
        "--set",
        "steps=50",
        "--set",
        "batch_size=6",
        "--steps",
        "7",
        "--dry-run",
        "--json",
    )
    planned = json.loads(said.out)
    assert "proctool: --set steps: ignored, because a flag sets the same option\n" in said.err
    assert (planned["steps"], planned["tokens"]) == (7, 7 * 6 * 11)
    assert list(Path().glob("runs")) == []


def test_a_budget_that_repeats_the_corpus_is_said_to(proctool: Callable[..., Said], text: Path) -> None:
    arguments = ("pretrain", "--corpus", text, "--context", 16, "--model", "2x2x16", "--batch-size", 1000, "--dry-run")
    assert "repeats the corpus" in proctool(*arguments, "--steps", 40).err
    assert "repeats the corpus" not in proctool(*arguments, "--steps", 1, "--batch-size", 1).err


def test_a_dry_run_says_what_would_be_carried_and_writes_nothing(proctool: Callable[..., Said], text: Path) -> None:
    warmed(proctool)
    before = sorted(Path().rglob("*.safetensors"))
    said = proctool(
        "pretrain",
        "--corpus",
        text,
        "--init",
        "warm.safetensors",
        "--context",
        16,
        *SMALL,
        "--dry-run",
        "-o",
        "m.safetensors",
    )
    assert said.code == 0
    assert "attention  carried" in said.err
    assert "epochs" in said.err
    made = [path for path in sorted(Path().rglob("*.safetensors")) if path not in before]
    assert all("cache" in path.parts for path in made)


HAYSTACK = ("eval", "haystack", "--model", "2x2x16", "--init")
PRETRAIN = ("pretrain", "--corpus", "text", "--context", 16, "--init")
MISTAKES = {
    "unknown task": (("generate", "dick"), 'unknown task "dick" (did you mean "dyck"?)'),
    "unknown task in a specification": (("warmup", "--task", "sett"), 'unknown task "sett" (did you mean "set"?)'),
    "no bracket types": (("generate", "dyck", "--k", 0), "dyck: k = 0"),
    "odd union": (("generate", "union", "--inputs", 7), "union: inputs = 7"),
    "no number": (("generate", "dyck", "--k", "many"), "k: 'many' is not a number"),
    "negative steps": (("warmup", "--task", "set", "--steps", "-5"), "steps = -5: must be at least 1"),
    "an accuracy above 1": (("warmup", "--task", "set", "--until", "accuracy=2"), "accuracy is from 0 to 1"),
    "nothing to train on": (("warmup",), "either --task SPEC or --data FILE"),
    "missing data": (("warmup", "--data", "no.safetensors"), "no.safetensors: no such file"),
    "missing init": ((*PRETRAIN, "no.safetensors"), "no.safetensors: no such file"),
    "unknown component": ((*PRETRAIN, "warm.safetensors", "--components", "atention"), 'did you mean "attention"'),
    "another width": ((*PRETRAIN, "warm.safetensors", "--model", "2x2x32"), "16 width, but the target has 32"),
    "another vocabulary": ((*HAYSTACK, "warm.safetensors", "--embeddings", "copy"), "rows cannot be copied"),
    "missing folder": (("generate", "set", "-o", "no/set.safetensors"), "the folder no does not exist"),
    "missing folder for a model": (("warmup", "--task", "set", "-o", "no/w.safetensors"), "the folder"),
    "output is a folder": (("generate", "set", "--samples", 5, "-o", "text"), "is a folder"),
    "data where a model belongs": ((*PRETRAIN, "set.safetensors"), "holds data, expected model"),
    "a model where data belong": (("warmup", "--data", "warm.safetensors", "-o", "w"), "holds model, expected data"),
    "too little text": (("pretrain", "--corpus", "short.txt", "--context", 64), "short.txt"),
    "missing corpus": (("pretrain", "--corpus", "no-such.txt"), "no-such.txt"),
    "a device as a corpus": (("pretrain", "--corpus", "/dev/null"), "/dev/null: is a pipe or a device; give a file"),
    "unknown option in a file": (("warmup", "--config", "bad.yaml"), 'bad.yaml: unknown option "stepz"'),
    "the field's name of an option": (("warmup", "--set", "learning_rate=3"), '(did you mean "lr"?)'),
    "another command's option": (("warmup", "--set", "zzz=3"), '--set: unknown option "zzz" (the closest of '),
    "no number in a file": (("pretrain", "--config", "many.yaml"), "many.yaml: steps: 'many' is not a number"),
    "out of range in a file": (("warmup", "--config", "range.yaml"), "range.yaml: batch_size = -3: must be at least 1"),
    "a flag over a file": (("warmup", "--config", "range.yaml", "--batch-size", -4), ": batch_size = -4: must be at"),
    "an output with a slash": (("warmup", "--task", "set", "-o", "x/"), "x/: is the name of a folder; --output takes"),
    "a slash in a file": (("warmup", "--task", "set", "--config", "slash.yaml"), "x/: is the name of a folder"),
    "a mistake beside a file": (
        ("warmup", "--config", "fine.yaml", "--task", "set", "--data", "x"),
        "proctool: give either",
    ),
    "an option of a task given twice": (("generate", "set:inputs=4,inputs=5"), "inputs is given twice; remove one"),
    "an empty model": (("warmup", "--task", "set", "--model", ""), "model: is empty; write a shape"),
    "an empty path": (("warmup", "--task", "set", "--output", ""), "output: is empty; give a path"),
    "a recipe as options": (("pretrain", "--config", "recipe.yaml"), "run it with `proctool run recipe.yaml`"),
    "unknown controls": (("run", "recipe.yaml"), 'controls: unknown control "standart" (did you mean "standard"?)'),
    "no tokenizer": (("eval", "perplexity", "warm.safetensors", "--corpus", "text"), "has no tokenizer"),
    "zero samples": (("generate", "set", "--samples", 0), "samples = 0"),
    "shard out of range": (("generate", "set", "--shard", "4/3"), "shard"),
    "a run instead of its model": (("inspect", "warm.run"), "warm.run: is the folder of a run, not a model; give the"),
    "a record instead of its folder": (("report", "recipe.yaml"), "recipe.yaml: is a file; give the experiment's fold"),
    "a run without a name": (("compare", "=warm.run"), "=warm.run: the name before = is empty"),
    "no experiment to report": (("report", "runs/dmo"), "runs/dmo: no such experiment folder"),
    "export into a full folder": (("export", "warm.safetensors", "text"), "not an empty folder"),
    "context shorter than the samples": (("warmup", "--task", "set", "--context", 8), "context = 8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(proctool: Callable[..., Said], text: Path, mistake: str) -> None:
    arguments, message = MISTAKES[mistake]
    if {"warm.safetensors", "warm.run"} & {*arguments}:
        warmed(proctool)
    proctool("generate", "set", "--samples", 5, "-o", "set.safetensors")
    Path("short.txt").write_text("hello")
    Path("bad.yaml").write_text("stepz: 3")
    Path("many.yaml").write_text("steps: many")
    Path("slash.yaml").write_text("output: x/")
    Path("fine.yaml").write_text("steps: 5")
    Path("range.yaml").write_text("{task: set, batch_size: -3}")
    Path("recipe.yaml").write_text("{name: x, model: 1x1x16, corpus: python, arms: {cold: {}}, controls: standart}")
    before = {path: path.read_bytes() for path in Path().glob("*.safetensors")}
    said = proctool(*arguments)
    assert said.code == 1
    assert message in said.line
    assert {path: path.read_bytes() for path in Path().glob("*.safetensors")} == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_damaged_artifacts_are_refused(proctool: Callable[..., Said], damage: str) -> None:
    raw = warmed(proctool).read_bytes()
    changed = bytearray(raw)
    changed[-20] ^= 4
    Path("bad.safetensors").write_bytes(
        {"truncated": raw[:-9], "flipped": bytes(changed), "foreign": b"PK\3\4" + raw, "empty": b""}[damage]
    )
    for arguments in (
        ("inspect", "bad.safetensors"),
        ("eval", "haystack", "--init", "bad.safetensors", "--model", "2x2x16"),
    ):
        said = proctool(*arguments)
        assert said.code == 1
        assert "bad.safetensors" in said.line


def test_a_folder_that_cannot_be_written_is_said(
    proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    said = proctool("generate", "set", "--samples", 5, "-o", "set.safetensors")
    assert said.code == 1
    assert "set.safetensors: no room left to write" in said.line
    assert not list(Path().glob("*set*"))


HELP_WITHOUT_TORCH = """
import sys
from proctool.cli.main import app
try:
    app(sys.argv[1:])
except SystemExit:
    pass
print(*{"torch", "transformers", "datasets", "accelerate"} & sys.modules.keys(), file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["", "warmup", "pretrain", "generate", "generate dyck", "eval haystack", "run"])
def test_help_imports_no_heavy_library(command: str) -> None:
    arguments = [sys.executable, "-c", HELP_WITHOUT_TORCH, *command.split(), "--help"]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "Usage" in ran.stdout
    assert ran.stderr.split() == []


def test_python_m_proctool_is_proctool() -> None:
    ran = subprocess.run([sys.executable, "-m", "proctool", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("proctool ")


@pytest.mark.parametrize(("flops", "said"), [(1e30, "at least 0 s on this machine\n"), (1.0, "`proctool plan`")])
def test_a_dry_run_says_how_long_it_takes_at_least(
    proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, flops: float, said: str
) -> None:
    monkeypatch.setattr("proctool.training.speed.layer_flops", lambda *_: flops)
    assert said in proctool("warmup", "--task", "set:inputs=5,symbols=9", *SMALL, "--dry-run").err
