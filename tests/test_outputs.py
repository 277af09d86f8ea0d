"""Nothing that proctool did not write, and nothing that a command reads, is overwritten by any command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from proctool.errors import RunError
from proctool.events import StartEvent
from proctool.training.run import RunFolder
from tests.conftest import Said

Run = Callable[..., Said]
TINY = ("--model", "2x2x16", "--steps", 2, "--batch-size", 4, "--eval-samples", 4)
WARMUP = ("warmup", "--task", "set:inputs=4,symbols=9", *TINY)
PRETRAIN = ("pretrain", "--corpus", "text", "--context", 16, *TINY)
HAYSTACK = ("eval", "haystack", "--pairs", 4, "--vocab", 16, "--ramp-steps", 0, *TINY)
FINETUNE = ("eval", "finetune", "wikitext", "--data", "text", "--tokenizer", "bytes", "--context", 16, *TINY)
RECIPE = "name: mine\nmodel: 2x2x16\ncorpus: text\ncontext: 16\npretrain: {steps: 2, batch_size: 4}\narms: {cold: {}}\n"


def everything(folder: Path = Path()) -> dict[str, bytes]:
    """All files but token stores."""
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parts[0] != "cache"
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared") / "files"


@pytest.fixture
def place(proctool: Run, text: Path, prepared: Path) -> Run:
    """A warmed model, a model folder, samples; and a note and checkpoints that proctool did not write."""
    if not prepared.exists():
        assert proctool(*WARMUP, "-o", "warm.safetensors").code == 0
        assert proctool("export", "warm.safetensors", "hf").code == 0
        assert proctool("generate", "set", "--samples", 5, "-o", "set.safetensors").code == 0
        shutil.copytree(".", prepared, ignore=shutil.ignore_patterns("cache"))  # it holds code that is loaded
    shutil.copytree(prepared, ".", dirs_exist_ok=True)
    Path("note.txt").write_text("a note")
    Path("mine/checkpoints").mkdir(parents=True)
    Path("mine/checkpoints/step-00000001.safetensors").write_bytes(b"another tool's")
    Path("mine/metrics.jsonl").write_text('{"step": 1}\n')
    Path("recipe.yaml").write_text(RECIPE)
    Path("hard.safetensors").hardlink_to("warm.safetensors")
    Path("soft.safetensors").symlink_to("warm.safetensors")
    Path("link").symlink_to("hf")
    return proctool


FOREIGN = {"model folder": "hf", "another tool's": "mine", "link to a folder": "link", "a file": "note.txt"}


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("folder", FOREIGN.values(), ids=FOREIGN)
def test_a_run_folder_that_is_not_ours_is_refused(place: Run, folder: str, resume: str) -> None:
    before = everything()
    for command in (WARMUP, PRETRAIN, HAYSTACK, (*HAYSTACK, "--seeds", "0,1"), FINETUNE):
        output = () if "--seeds" in command else ("-o", "new.safetensors")
        said = place(*command, *output, "--run-dir", folder, "--resume", resume)
        assert (said.code, everything()) == (1, before), said
        assert said.line.startswith(f"proctool: {folder}: ")
        assert "--run-dir" in said.line


def test_an_experiment_leaves_folders_of_others_alone(place: Run) -> None:
    before = everything()
    for more in ((), ("--dry-run",), ("--emit", "make"), ("--emit", "slurm")):
        said = place("run", "recipe.yaml", "--runs", ".", *more)  # mine/ is another tool's
        assert (said.code, everything()) == (1, before)
        assert "mine: is not empty and is not the folder of this experiment" in said.line


REFUSED = {
    "a donor": (("transplant", "--mlp", "warm.safetensors", "-o", "warm.safetensors"), "--mlp reads"),
    "one of several donors": (
        ("transplant", "--mlp", "set.safetensors,warm.safetensors", "-o", "./warm.safetensors"), "--mlp reads",
    ),
    "a hard link": (("transplant", "--mlp", "warm.safetensors", "-o", "hard.safetensors"), "--mlp reads"),
    "a link": (("transplant", "--mlp", "warm.safetensors", "-o", "soft.safetensors"), "--mlp reads"),
    "a base": (
        ("transplant", "--mlp", "hf", "--base", "warm.safetensors", "-o", "text/../warm.safetensors"), "--base reads",
    ),
    "a donor's folder": (("transplant", "--mlp", "hf", "-o", "link/new.safetensors"), "lies in the folder that --mlp"),
    "a note": (("transplant", "--mlp", "warm.safetensors", "-o", "note.txt"), "proctool did not write it"),
    "a folder": (("transplant", "--mlp", "warm.safetensors", "-o", ".."), "is a folder"),
    "the init": ((*PRETRAIN, "--init", "warm.safetensors", "-o", "warm.safetensors"), "--init reads"),
    "the best of both": (
        (*PRETRAIN, "--init", "hf", "--save", "both", "-o", "note.txt"), "proctool did not write it",
    ),
    "a second file": ((*PRETRAIN, "--save", "both", "-o", "second.safetensors"), "second-best.safetensors"),
    "a folder, pretrained": ((*PRETRAIN, "-o", ".."), "is a folder"),
    "a text of the corpus": ((*PRETRAIN, "-o", "text/0.txt"), "--corpus reads"),
    "the corpus": (("pretrain", "--corpus", "note.txt", *TINY, "-o", "note.txt"), "--corpus reads"),
    "a run below the corpus": ((*PRETRAIN, "--run-dir", "text/run"), "lies in the folder text, which --corpus reads"),
    "a run that a pattern matches": (
        ("pretrain", "--corpus", "**/*.jsonl", *TINY, "--run-dir", "runs/x"), "matches **/*.jsonl",
    ),
    "settings of a run that a pattern matches": (
        ("pretrain", "--corpus", "**/*.json", *TINY, "--run-dir", "runs/x"), "its config.json matches **/*.json",
    ),
    "an experiment below its corpus": (
        ("run", "recipe.yaml", "--runs", "text", "--dry-run"), "choose another --runs",
    ),
    "a corpus without a name": (("pretrain", "--corpus", "", *TINY), "the corpus is empty"),
    "a cache below the corpus": ((*PRETRAIN, "--cache-dir", "text/cache"), "choose another --cache-dir"),
    "the run folder": ((*WARMUP, "--run-dir", "x", "-o", "x"), "is also the run folder"),
    "a file of the run": ((*WARMUP, "--run-dir", "hf2", "-o", "hf2/config.json"), "does not exist"),
    "samples over a model": (("generate", "set", "-o", "warm.safetensors"), "holds model, but --output writes"),
    "a model over samples": ((*WARMUP, "-o", "set.safetensors"), "holds data, but --output writes"),
    "a model folder's weights": ((*WARMUP, "-o", "hf/model.safetensors"), "proctool did not write it"),
    "a file as a folder": (("generate", "set", "-o", "note.txt/x.safetensors"), "note.txt is not a folder"),
    "a device": (("generate", "set", "-o", "/dev/null"), "a pipe or a device"),
    "a model's data": (
        ("warmup", "--data", "set.safetensors", *TINY, "-o", "set.safetensors"), "--data reads",
    ),
    "losses by position": (
        ("eval", "perplexity", "warm.safetensors", "--corpus", "text", "--tokenizer", "bytes", "--per-position",
         "note.txt"), "proctool did not write it as table",
    ),
    "pictures": (("eval", "interpret", "hf", "--figures", "hf"), "lies in the folder that MODEL reads"),
    "pictures over others": (("eval", "interpret", "warm.safetensors", "--figures", "mine"), "heads.png: exists"),
    "a tokenizer in a model": (("tokenizer", "train", "--corpus", "text", "-o", "hf"), "not an empty folder"),
    "a tokenizer in its corpus": (("tokenizer", "train", "--corpus", "text", "-o", "text/t"), "--corpus reads"),
    "a token store in its corpus": (("corpus", "build", "--corpus", "text", "--cache-dir", "text/c"), "--corpus reads"),
    "an export": (("export", "warm.safetensors", "hf"), "not an empty folder"),
    "a page": (("compare", "warm.run", "--html", "note.txt"), "proctool did not write it as page"),
    "a run's settings": (("compare", "warm.run", "--html", "warm.run/config.json"), "proctool did not write it"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_output_that_would_overwrite_is_refused_before_any_work(place: Run, case: str) -> None:
    arguments, message = REFUSED[case]
    Path("second-best.safetensors").write_text("mine")
    Path("mine/heads.png").write_bytes(b"\x89PNG mine")
    before = everything()
    said = place(*arguments)
    assert (said.code, everything()) == (1, before), said
    assert message in said.line


def test_the_default_output_does_not_replace_the_donor(place: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything()
    monkeypatch.chdir("hf")
    said = place("pretrain", "--corpus", "../text", "--context", 16, "--model", ".", "--init", ".", *TINY[2:])
    assert said.code == 1
    assert "model.safetensors: lies in the folder that --init reads" in said.line
    monkeypatch.chdir("..")
    assert everything() == before


def test_what_proctool_wrote_is_written_again(place: Run) -> None:
    for arguments in (
        ("generate", "set", "--samples", 6, "-o", "set.safetensors"),
        ("transplant", "--mlp", "hf", "-o", "mixed.safetensors"),
        (*WARMUP, "--lr", 0.1, "--run-dir", "runs/other", "-o", "mixed.safetensors", "--force"),
        (*PRETRAIN, "--init", "warm.safetensors", "-o", "mixed.safetensors", "--force"),
        (*PRETRAIN, "--init", "warm.safetensors", "-o", "mixed.safetensors", "--resume", "never"),
        ("compare", "mixed.run", "--html", "page.html"),
        ("compare", "mixed.run", "--html", "page.html"),
    ):
        assert place(*arguments).code == 0, arguments
    damaged = bytearray(Path("mixed.safetensors").read_bytes())
    damaged[-1] ^= 1
    Path("mixed.safetensors").unlink()  # it may be mapped still
    Path("mixed.safetensors").write_bytes(damaged[:-3])
    assert place("transplant", "--mlp", "hf", "-o", "mixed.safetensors").code == 0
    Path("empty").touch()
    assert place("transplant", "--mlp", "hf", "-o", "empty").code == 0


# -- run folders --

OLDER = {
    "command": "warmup", "model": "2x2x16", "steps": 12, "batch_size": 8, "schedule": "constant", "seed": 0,
    "source.task": "set:inputs=5", "parents": [],
}  # fmt: skip


def test_a_run_folder_is_known_by_what_its_settings_hold(tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    (older / "config.json").write_text(json.dumps(OLDER))
    (older / "extra.txt").write_text("a note of the user's")
    RunFolder(older, OLDER).close()
    for number, settings in enumerate([{"command": "warmup"}, {"model_type": "gpt2"}, [], {**OLDER, "parents": "x"}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(settings))
        with pytest.raises(RunError, match="not a run folder"):
            RunFolder(folder, OLDER)
        assert json.loads((folder / "config.json").read_text()) == settings


@pytest.mark.parametrize("left", [".lock", "log.txt", ".config.json.abcd_123.partial"])
def test_a_run_that_was_stopped_before_it_began_leaves_its_folder_free(tmp_path: Path, left: str) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / left).write_text("process 1 on here")
    RunFolder(tmp_path / "run", {}).close()
    assert (tmp_path / "run" / "config.json").exists()


def test_discarding_a_run_leaves_the_files_of_others(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {"lr": 1})
    run.begin(0)
    run.save(1, {}, {}, keep=2)
    run.close()
    theirs = {tmp_path / name: name for name in ("note.txt", "checkpoints/epoch1.pt", "checkpoints/step-2.safetensors")}
    theirs |= {tmp_path / "checkpoints" / name: "theirs" for name in ("step-00000009.safetensors", ".x.partial")}
    for path, content in theirs.items():
        path.write_text(content)
    RunFolder(tmp_path, {"lr": 2}, fresh=True).close()
    assert not (tmp_path / "checkpoints" / "step-00000001.safetensors").exists()
    assert {path: path.read_text() for path in theirs} == theirs


def test_checkpoints_of_others_take_no_place_and_are_never_removed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {})
    run.begin(0)
    (tmp_path / "checkpoints").mkdir()
    theirs = [tmp_path / "checkpoints" / f"step-0000000{number}.safetensors" for number in (7, 8)]
    for path in theirs:
        path.write_text("theirs")
    for step in (1, 2, 3):
        run.save(step, {}, {}, keep=2)
    latest = run.latest()
    assert latest is not None
    assert latest.metadata["step"] == 3
    run.complete(3)
    run.close()
    assert sorted((tmp_path / "checkpoints").iterdir()) == theirs


@pytest.mark.parametrize("settings", [None, "{", "[1"])
def test_lost_settings_are_told_and_can_be_discarded(tmp_path: Path, settings: str | None) -> None:
    run = RunFolder(tmp_path, {})
    run.begin(0)
    run.record(StartEvent(steps=4, command="warmup", tokens_per_step=8))
    run.close()
    (tmp_path / "config.json").unlink()
    if settings is not None:
        (tmp_path / "config.json").write_text(settings)
    with pytest.raises(RunError, match=r"damaged or missing.*--resume never"):
        RunFolder(tmp_path, {})
    RunFolder(tmp_path, {}, fresh=True).close()


def test_a_read_only_folder_of_another_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").touch()
    os.chmod(tmp_path / "theirs", 0o500)
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder(tmp_path / "theirs", {})
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["a"]
