"""Procedural rows among corpus rows, and noise in a corpus: which rows, what is in them, and what stays the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import proctool as api
from proctool import artifact
from proctool.errors import OptionError, RunError
from proctool.events import FILE, EndEvent, EvalEvent, StartEvent, write_event
from proctool.experiment.graph import plan
from proctool.experiment.plan_options import HardwareOptions
from proctool.experiment.planning import plan_stages
from proctool.experiment.record import write_record
from proctool.recipe import build_recipe
from proctool.recipe.smoke import smoke
from proctool.reporting.experiment import load_experiment
from proctool.reporting.report import build_report
from proctool.training.job import Job
from proctool.training.mix import Placement, parse_mix
from proctool.training.mixed import MixedSource
from proctool.training.options import PretrainOptions
from proctool.training.pretrain import pretrain_job
from tests.conftest import Said
from tests.event_lines import event_lines
from tests.training.runs import Killed, contents, killed_at, without_clock

TASK = "set:inputs=5,symbols=9"  # 11 tokens in a sample, 5 of them targets at most


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))


def job(text: Path, name: str = "run", **changes: Any) -> Job:
    folder = text.parent
    settings = {
        "corpus": str(text), "model": "2x2x16", "context": 40, "steps": 12, "batch_size": 8, "eval_every": 4,
        "eval_samples": 4, "log_every": 3, "checkpoint_every": 5, "dropout": 0.1, "init_std": 0.02,
        "mix": (f"{TASK}=0.2",), "run_dir": folder / name, "output": folder / f"{name}.safetensors",
    }  # fmt: skip
    return pretrain_job(PretrainOptions(**{**settings, **changes}))


def rows_of(made: Job, *cuts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, targets and marks of rows 0..cuts[-1] - 1, read in these pieces."""
    parts = [made.source.read(start, stop) for start, stop in zip((0, *cuts), cuts, strict=False)]
    marks = [np.zeros(len(part), bool) if part.procedural is None else part.procedural for part in parts]
    return tuple(map(np.concatenate, ([p.tokens for p in parts], [p.targets for p in parts], marks)))  # type: ignore[return-value]


# -- which rows --


@pytest.mark.parametrize("schedule", ["constant", "first:0.25", "first:0.2", "decay", "periodic:3"])
@pytest.mark.parametrize("share", ["0.003", "0.2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_schedule_moves_procedural_rows_and_keeps_their_number(schedule: str, share: str, seed: int) -> None:
    mix = parse_mix((f"{TASK}={share}",), schedule)
    assert mix is not None
    rows = 1003
    placed = Placement(mix.share, mix.schedule, rows, seed)
    found = placed.within(0, rows)
    assert abs(len(found) - float(share) * rows) < 1
    assert placed.before(rows) == len(found) == len(set(found))
    assert [at for cut in range(0, rows, 17) for at in placed.within(cut, min(cut + 17, rows))] == found
    counts = np.array([placed.before(at) for at in range(rows + 1)])
    assert np.flatnonzero(np.diff(counts)).tolist() == found
    assert np.diff(counts).max() == 1
    if schedule.startswith("first"):
        assert max(found) < float(schedule[6:]) * rows
    if schedule == "decay" and len(found) > 100:
        quarters = np.histogram(found, 4, (0, rows))[0] / len(found)
        np.testing.assert_allclose(quarters, [7 / 16, 5 / 16, 3 / 16, 1 / 16], atol=0.02)
    if schedule == "periodic:3":
        assert all((at + 1) % (rows / 3) < rows / 6 + 1 for at in found), "up to a row at either edge"
    later = placed.within(rows, 3 * rows)
    assert bool(later) == (schedule in ("constant", "periodic:3"))


def test_rows_depend_on_their_position_alone(text: Path) -> None:
    made = job(text, mix=(f"{TASK}=0.15", "dyck:k=2,length=8=0.1"))
    tokens, targets, marks = rows_of(made, 96)
    for cuts in ((1, 2, 50, 96), (32, 64, 96)):
        for one, other in zip((tokens, targets, marks), rows_of(made, *cuts), strict=True):
            assert np.array_equal(one, other)
    plain, _, none = rows_of(job(text, mix=None), 96)
    assert not none.any()
    assert marks.sum() == 24
    assert np.array_equal(tokens[~marks], plain[: 96 - 24]), "corpus rows keep their order, and none is dropped"
    assert not np.array_equal(rows_of(job(text, seed=1), 96)[2], rows_of(job(text), 96)[2])
    assert (tokens[~marks] < 257).all()
    assert targets[~marks, 1:].all()


@pytest.mark.parametrize("symbols", ["reserved", "frequency"])
def test_a_procedural_row_holds_whole_samples_with_their_own_targets(symbols: str, text: Path) -> None:
    made = job(text, mix_symbols=symbols)
    assert isinstance(made.source, MixedSource)
    tokens, targets, marks = rows_of(made, 96)
    stream = made.source.procedural.stream
    samples = stream.read(0, 3 * int(marks.sum()))
    ids = np.arange(257, 257 + stream.task.vocab_size)
    if symbols == "frequency":
        corpus = rows_of(job(text, mix=None), made.source.main.size)[0]  # type: ignore[attr-defined]
        counts = np.bincount(corpus.ravel(), minlength=257)
        counts[256] = -1
        ids = np.argsort(-counts, kind="stable")[: stream.task.vocab_size]
    assert made.config.vocab_size == max(257, ids.max() + 1)
    assert np.array_equal(tokens[marks, :33], ids[samples.tokens].reshape(-1, 33))
    assert np.array_equal(targets[marks, :33], samples.targets.reshape(-1, 33))
    assert not targets[marks, 33:].any()


# -- training --


def test_a_killed_run_ends_as_an_uninterrupted_one(text: Path) -> None:
    more = {"mix_schedule": "first:0.5", "noise_tokens": 0.1}
    end = job(text, "whole", **more).run()
    killed = job(text, "killed", **more)
    killed.listeners = [killed_at("train", 3)]
    with pytest.raises(Killed):
        killed.run()
    job(text, "killed", **more).run()
    assert contents(text.parent / "killed.safetensors") == contents(text.parent / "whole.safetensors")
    whole = event_lines(text.parent / "whole")
    assert without_clock(event_lines(text.parent / "killed")) == without_clock(whole)
    assert end.procedural_tokens == 19 * 40
    assert end.tokens == 96 * 40
    assert [(each["split"], each["step"]) for each in whole if each["event"] == "eval"][:3] == [
        ("procedural", 0), ("validation", 0), ("procedural", 4),
    ]  # fmt: skip
    assert end.loss == [each["loss"] for each in whole if each.get("split") == "validation"][-1]


def test_losses_of_both_kinds_add_up_however_a_step_is_cut(text: Path) -> None:
    kept = {}
    for name, parts in (("one", 1), ("many", 4)):
        job(text, name, accumulate=parts, dropout=0.0, steps=4, log_every=1).run()
        kept[name] = [event for event in event_lines(text.parent / name) if event["event"] == "train"]
    for one, many in zip(*kept.values(), strict=True):
        for key in ("loss", "corpus_loss", "procedural_loss", "procedural_tokens"):
            assert one.get(key) == pytest.approx(many.get(key), rel=1e-5)
    _, targets, marks = rows_of(job(text, "other"), 32)
    counts = targets[:, 1:].sum(1)
    for step, event in enumerate(kept["one"]):
        rows = slice(8 * step, 8 * step + 8)
        theirs, all_of_them = counts[rows][marks[rows]].sum(), counts[rows].sum()
        parts = event["corpus_loss"] * (all_of_them - theirs) + event["procedural_loss"] * theirs
        assert parts / all_of_them == pytest.approx(event["loss"], rel=1e-6)


def test_arms_with_and_without_a_mix_start_from_the_same_weights(text: Path) -> None:
    mixed, plain = (dict(job(text, mix=mix)._initial()[0].named_parameters()) for mix in ((f"{TASK}=0.2",), None))
    for name, weights in plain.items():
        assert bool((mixed[name][: len(weights)] == weights).all())
    none, never = (job(text, mix=mix) for mix in ((f"{TASK}=0",), None))
    assert none._settings() == never._settings()


@pytest.mark.parametrize("schedule", ["constant", "first:0.5"])
def test_an_extended_run_keeps_its_schedule(schedule: str, text: Path) -> None:
    more: dict[str, Any] = {"mix_schedule": schedule, "schedule": "constant"}
    job(text, "long", **more).run()
    first = job(text, "long", steps=15, extend=True, **more).run()
    killed = job(text, "long", steps=18, extend=True, **more)
    killed.listeners = [killed_at("train", 1)]
    with pytest.raises(Killed):
        killed.run()
    second = job(text, "long", steps=18, extend=True, **more).run()
    if schedule == "constant":
        job(text, "whole", steps=18, **more).run()
        assert contents(text.parent / "long.safetensors") == contents(text.parent / "whole.safetensors")
    else:
        assert first.procedural_tokens == second.procedural_tokens == 19 * 40, "the schedule has ended"


# -- noise --


def test_noise_replaces_a_share_of_the_training_tokens_only(text: Path) -> None:
    clean, noisy = (job(text, mix=None, noise_tokens=share) for share in (None, 0.2))
    rows = clean.source.size  # type: ignore[attr-defined]
    one, other = (rows_of(each, 2 * rows)[0] for each in (clean, noisy))
    changed = one != other
    expected = 0.2 * 256 / 257  # a draw may be the same token
    assert abs(changed.mean() - expected) < 5 * math.sqrt(expected / changed.size)
    drawn = np.bincount(other[:rows][changed[:rows]], minlength=257)
    assert ((drawn - drawn.mean()) ** 2 / drawn.mean()).sum() < 257 + 6 * math.sqrt(2 * 257)
    order = clean.source.order.indices(0, 2 * rows)  # type: ignore[attr-defined]
    first, again = (np.argsort(part) for part in (order[:rows], order[rows:]))
    assert np.array_equal(other[first], other[rows:][again]), "a row has the same noise in every epoch"
    assert np.array_equal(rows_of(noisy, 7, 9, 2 * rows)[0], other)
    for each in (clean, noisy):
        assert np.array_equal(each.held_out.read(0, 4).tokens, clean.held_out.read(0, 4).tokens)
    assert clean._settings() != noisy._settings()


def test_rows_of_random_tokens_come_between_the_others(text: Path) -> None:
    plain, noisy, both = (
        job(text, mix=mix, noise_rows=share) for mix, share in ((None, None), (None, 0.25), ((f"{TASK}=0.2",), 0.25))
    )
    clean, mixed = rows_of(plain, 96)[0], rows_of(both, 96)
    tokens, targets, _ = rows_of(noisy, 96)
    assert np.array_equal(rows_of(noisy, 5, 96)[0], tokens)
    known = {row.tobytes() for row in clean.astype(np.uint32)}
    is_noise = np.array([row.tobytes() not in known for row in tokens])
    assert is_noise.sum() == 24
    assert np.array_equal(tokens[~is_noise], clean[:72])
    assert targets[:, 1:].all()
    drawn = np.bincount(tokens[is_noise].ravel(), minlength=257)
    assert ((drawn - drawn.mean()) ** 2 / drawn.mean()).sum() < 257 + 6 * math.sqrt(2 * 257)
    assert np.array_equal(mixed[0][~mixed[2]], tokens[: 96 - mixed[2].sum()]), "a mix goes between both"
    assert np.array_equal(noisy.held_out.read(0, 4).tokens, plain.held_out.read(0, 4).tokens)
    assert both.plan()["epochs"] < noisy.plan()["epochs"] < plain.plan()["epochs"]


# -- recipes, plans and Python --


def recipe(**pretrain: Any) -> Any:
    return build_recipe(
        {
            "name": "tiny", "model": "2x2x16", "corpus": "python", "context": 64,
            "pretrain": {"steps": 40, "batch_size": 4, "mix_schedule": "decay"},
            "finetune": {"text": {"corpus": "docstrings"}},
            "arms": {"cold": {}, "mixed": {"pretrain": {"mix": f"{TASK}=0.1", **pretrain}}},
        }
    )  # fmt: skip


def test_a_recipe_plans_its_mix(tmp_path: Path) -> None:
    made = recipe()
    cold, mixed = (plan(made, tmp_path).arms[name][0].pretrain for name in ("cold", "mixed"))
    assert cold is not None
    assert mixed is not None
    assert cold.procedural_tokens == 0
    assert mixed.procedural_tokens == 16 * 64
    assert mixed.argv(tmp_path)[mixed.argv(tmp_path).index("--mix") :][:4] == [
        "--mix", f"{TASK}=0.1", "--mix-schedule", "decay",
    ]  # fmt: skip
    assert "--mix-schedule" not in cold.argv(tmp_path)
    assert mixed.key == plan(recipe(mix=f"{TASK}*.1"), tmp_path).arms["mixed"][0].pretrain.key  # type: ignore[union-attr]
    assert plan(recipe(mix=f"{TASK}=0"), tmp_path).arms["mixed"][0].pretrain.key == cold.key  # type: ignore[union-attr]
    assert not any(
        "--mix" in each.argv(tmp_path) for each in plan(made, tmp_path).stages if each.label.kind != "pretrain"
    )
    sizes = {each.name: each for each in plan_stages([cold, mixed], HardwareOptions()).stages}
    added = sizes["pretrain-mixed"].parameters - sizes["pretrain-cold"].parameters
    assert added == 16 * 11
    assert sizes["pretrain-mixed"].procedural_tokens == 16 * 64
    assert plan(smoke(made), tmp_path).arms["mixed"][0].pretrain.procedural_tokens > 0  # type: ignore[union-attr]
    with pytest.raises(OptionError, match=r"^arms.mixed.pretrain: mix: unknown task"):
        recipe(mix="seet=0.1")


def test_a_report_says_what_a_mix_adds(tmp_path: Path) -> None:
    made = plan(recipe(), tmp_path)
    write_record(made, "", "")
    for arm, procedural in (("cold", None), ("mixed", 1024)):
        stage = made.arms[arm][0].pretrain
        assert stage is not None
        stage.folder(tmp_path).mkdir()
        with (stage.folder(tmp_path) / FILE).open("wb") as file:
            write_event(file, StartEvent(steps=40))
            for split, loss in (("procedural", 1.0), ("validation", 2.0)):
                write_event(file, EvalEvent(step=40, tokens=10240, split=split, loss=loss, accuracy=0.5))
            write_event(file, EndEvent(step=40, tokens=10240, procedural_tokens=procedural, loss=2.0))
    found = build_report(load_experiment(tmp_path))
    assert [note for note in found.notes if "10.00% of its pretraining tokens are procedural" in note]
    assert [each.final_loss.value for each in found.results] == [2.0, 2.0]
    spent = {each.arm: (each.procedural_tokens, each.corpus_tokens) for each in found.costs}
    assert spent == {"cold": (0, 10240), "mixed": (1024, 9216)}


def test_python_pretrains_on_a_mix(text: Path) -> None:
    found: list[Any] = []
    made = api.pretrain(
        text, "2x2x16", mix=f"{TASK}=0.25", steps=4, batch_size=8, context=40, eval_samples=4, listen=found.append
    )
    assert made.tokens == 4 * 8 * 40
    assert made.procedural_tokens == 8 * 40
    assert isinstance(found[-1], EndEvent)
    assert made.model.config.vocab_size == 257 + 11  # type: ignore[union-attr]
    with pytest.raises(OptionError, match="unknown option"):
        api.pretrain(text, "2x2x16", mixed="set=0.1")


# -- bad input --


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--mix", "set=1"), "mix: share of set = 1: must be from 0 to below 1"),
        (("--mix", "set=-0.1"), "mix: share of set = -0.1: must be from 0 to below 1"),
        (("--mix", "set=0.6", "--mix", "union=0.6"), "mix: the shares sum to 1.2"),
        (("--mix", "set"), 'mix: "set": give its share of the rows'),
        (("--mix", "seet=0.1"), 'mix: unknown task "seet"'),
        (("--mix", "set:inputs=64=0.1"), "mix: a sample of set:inputs=64,symbols=100 has 129 tokens and a row only 40"),
        (("--mix", "identity:inputs=1,symbols=2=0.1"), "mix: identity:inputs=1,symbols=2: has too few different"),
        (("--mix", f"{TASK}=0.1", "--mix-schedule", "sometimes"), 'mix_schedule = "sometimes": write constant'),
        (("--mix", f"{TASK}=0.1", "--mix-schedule", "first:0.05"), 'mix_schedule = "first:0.05": a share of 0.1'),
        (("--mix-schedule", "decay"), "mix_schedule: needs --mix"),
        (
            ("--mix", "identity:inputs=5,symbols=400=0.1", "--mix-symbols", "frequency"),
            "mix_symbols = frequency: identity:inputs=5,symbols=400 has 402 symbols, but the tokenizer has only 256",
        ),
        (("--noise-tokens", "1"), "noise_tokens = 1: must be from 0 to below 1"),
        (("--noise-rows", "-0.5"), "noise_rows = -0.5: must be from 0 to below 1"),
    ],
)
def test_bad_options_are_one_line(given: tuple[str, ...], said: str, proctool: Callable[..., Said], text: Path) -> None:
    told = proctool("pretrain", "--corpus", text, "--model", "2x2x16", "--context", 40, "--steps", 8, *given)
    assert told.code == 1
    assert said in told.line
    assert not (text.parent / "model.run").exists()


def test_another_mix_is_another_run(text: Path) -> None:
    job(text).run()
    with pytest.raises(RunError, match="belongs to a run with mix = "):
        job(text, mix=(f"{TASK}=0.3",)).run()
    header = artifact.read_header(text.parent / "run.safetensors")
    assert header.metadata["procedural_tokens"] == 19 * 40
    assert header.metadata["mix"] == [f"{TASK}=0.2"]
