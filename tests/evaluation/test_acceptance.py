"""Donors that have to pass a probe: which is taken, what it costs, and that kills change nothing."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import proctool
from proctool import artifact, config
from proctool.errors import ModelError, OptionError, RunError
from proctool.evaluation.acceptance import AcceptedWarmup, donor_job, rejected_of
from proctool.evaluation.diagnostic import diagnostic_job
from proctool.evaluation.options import DIAGNOSTICS, probe_options
from proctool.events import Event, TryEvent
from proctool.reporting.measured import warmup_from_lineage, warmup_of
from proctool.reporting.metrics import read_metrics
from proctool.training.accept import MOST_TRIES, PROBE_SEED, Acceptance, seed_of_try
from proctool.training.claim import Outlook
from proctool.training.options import WarmupOptions
from tests.event_lines import event_lines
from tests.reporting.made import training, write_events
from tests.training.runs import Killed, killed_at, without_clock

PROBE = Acceptance(
    diagnostic="haystack", above=1.0, tries=3, steps=8, batch_size=16, lr=3e-2, pairs=2, vocab=16, eval_samples=100,
    components=("attention", "mlp", "norms"), embeddings="sample",
)  # fmt: skip


def options(folder: Path, name: str = "a", accept: Acceptance | None = PROBE, **changes: Any) -> WarmupOptions:
    settings: dict[str, Any] = {
        "task": ("set:inputs=3,symbols=5",), "model": "1x1x8", "steps": 8, "batch_size": 4, "eval_every": 3,
        "eval_samples": 8, "log_every": 2, "checkpoint_every": 2, "output": folder / f"{name}.safetensors",
    }  # fmt: skip
    return WarmupOptions(accept=accept, **settings | changes)


def with_above(above: float, **changes: Any) -> Acceptance:
    return dataclasses.replace(PROBE, above=above, **changes)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TryEvent], str]:
    """A folder in which none of three donors was accepted, the tries, and what was said."""
    folder = tmp_path_factory.mktemp("refused")
    job = donor_job(options(folder))
    told: list[Event] = []
    job.listeners = [told.append]
    with pytest.raises(RunError) as error:
        job.run()
    tries = [event for event in told if isinstance(event, TryEvent) and event.accuracy is not None]
    return folder, tries, str(error.value)


@pytest.fixture
def again(refused: tuple[Path, list[TryEvent], str], tmp_path: Path) -> Path:
    """A copy of that folder, to go on in."""
    shutil.copytree(refused[0], tmp_path / "again")
    return tmp_path / "again"


def chosen(tries: list[TryEvent]) -> tuple[int, float]:
    """A try that is better than all before it, and a bound between them."""
    found = [each.accuracy or 0.0 for each in tries]
    number = next(number for number in (1, 2) if found[number] > max(found[:number]))
    return number, (found[number] + max(found[:number])) / 2


def test_no_donor_is_accepted(refused: tuple[Path, list[TryEvent], str]) -> None:
    folder, tries, said = refused
    assert [each.seed for each in tries] == [0, 10**9, 2 * 10**9]
    assert "none of 3 donors" in said
    assert all(f"{each.accuracy:.1%}" in said for each in tries)
    assert not (folder / "a.safetensors").exists()
    best = max(tries, key=lambda each: each.accuracy or 0.0)
    kept = artifact.read_header(rejected_of(folder / "a.safetensors"))
    assert kept.content == artifact.read_header(folder / "a.run" / f"try-{best.number}" / "warm.safetensors").content
    assert [each["accepted"] for each in kept.metadata["acceptance"]["tries"]] == [False] * 3
    assert read_metrics(folder / "a.run").end is None


def test_the_first_donor_that_passes_is_taken_and_all_are_paid_for(
    again: Path, refused: tuple[Path, list[TryEvent], str]
) -> None:
    number, above = chosen(refused[1])
    before = trained(again / "a.run")
    end = donor_job(options(again, accept=with_above(above))).run()
    assert trained(again / "a.run") == before, "a finished try is not repeated"
    donor = artifact.read_header(again / "a.run" / f"try-{number}" / "warm.safetensors")
    made = artifact.read_header(again / "a.safetensors")
    assert made.content == donor.content == end.content
    assert made.metadata["seed"] == seed_of_try(0, number)
    assert [each["accepted"] for each in made.metadata["acceptance"]["tries"]] == [False] * number + [True]
    spent, tokens = (number + 1) * (8 * 4 * 7 + 8 * 16 * 6), 8 * 4 * 7
    assert (made.metadata["tokens"], made.metadata["spent_tokens"]) == (tokens, spent)
    log = read_metrics(again / "a.run")
    assert (log.tokens, log.spent_tokens, len(log.tries)) == (tokens, spent, number + 1)
    cost = warmup_of([log])
    assert (cost.tokens, cost.flops) == (spent, sum(each.flops for each in refused[1][: number + 1]))
    assert [event["step"] for event in event_lines(again / "a.run") if event["event"] == "eval"] == [0, 3, 6, 8]

    # The same command finds it done; a bound that another try passes chooses that one.
    assert donor_job(options(again, accept=with_above(above))).outlook() == Outlook("complete", 8)
    assert donor_job(options(again, accept=with_above(1.0, tries=4))).outlook() == Outlook("resume", tries=3)
    assert donor_job(options(again, accept=with_above(above))).run().content == donor.content
    first = donor_job(options(again, accept=with_above(0.0))).run()
    assert first.content == artifact.read_header(again / "a.run" / "try-0" / "warm.safetensors").content
    assert trained(again / "a.run") == before


def test_more_tries_go_on_from_those_there_are(again: Path, refused: tuple[Path, list[TryEvent], str]) -> None:
    before = trained(again / "a.run")
    with pytest.raises(RunError, match="none of 4 donors"):
        donor_job(options(again, accept=with_above(1.0, tries=4))).run()
    after = trained(again / "a.run")
    assert {path: after[path] for path in before} == before
    assert "try-3" in {path.parts[0] for path in after}


def test_starting_afresh_discards_every_try(again: Path) -> None:
    changed = options(again, accept=with_above(0.0, lr=1e-3))
    with pytest.raises(RunError, match="belongs to a run with accept"):
        donor_job(changed).run()
    donor_job(dataclasses.replace(changed, resume="never")).run()
    assert not (again / "a.run" / "try-2" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "kills", [[("train", 2), ("resume", 1)], [("try", 2), ("eval", 5)]], ids=["in a donor", "between, and in a probe"]
)
def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
    refused: tuple[Path, list[TryEvent], str], kills: list[tuple[str, int]], tmp_path: Path
) -> None:
    _, above = chosen(refused[1])
    shutil.copytree(refused[0], tmp_path / "whole")
    accept = with_above(above)
    donor_job(options(tmp_path / "whole", accept=accept)).run()
    (tmp_path / "killed").mkdir()
    for event, occurrence in kills:
        job = donor_job(options(tmp_path / "killed", accept=accept))
        job.listeners = [killed_at(event, occurrence)]
        with pytest.raises(Killed):
            job.run()
    donor_job(options(tmp_path / "killed", accept=accept)).run()
    made, whole = ((tmp_path / name / "a.safetensors").read_bytes() for name in ("killed", "whole"))
    assert made == whole
    lines = [without_clock(event_lines(tmp_path / name / "a.run")) for name in ("killed", "whole")]
    assert lines[0] == lines[1]


def test_a_probe_sees_no_sample_of_a_diagnostic(refused: tuple[Path, list[TryEvent], str], tmp_path: Path) -> None:
    asked = options(refused[0])
    job = donor_job(asked)
    assert isinstance(job, AcceptedWarmup)
    probe = job._probe(refused[0] / "a.run" / "try-0" / "warm.safetensors", tmp_path / "probe")
    for seed in (0, 1, 10**9):
        given = dataclasses.replace(probe_options(asked), run_dir=tmp_path / "eval", seed=seed)
        diagnostic = diagnostic_job("haystack", given)
        for name in ("source", "held_out"):
            seen, theirs = (getattr(each, name).read(0, 64).tokens for each in (probe, diagnostic))
            assert (seen != theirs).any(), name


def test_what_would_not_fit_fails_before_a_donor_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="layer"):
        donor_job(options(tmp_path, accept=dataclasses.replace(PROBE, model="2x1x8"))).run()
    with pytest.raises(OptionError, match="too few different sequences"):
        donor_job(options(tmp_path, accept=dataclasses.replace(PROBE, pairs=1, vocab=8))).plan()
    assert not list((tmp_path / "a.run").glob("try-*"))
    planned = donor_job(options(tmp_path)).plan()
    assert planned["tokens"] == 8 * 4 * 7 + 8 * 16 * 6
    assert "up to 3" in planned["remark"]


@pytest.mark.parametrize(
    "accept",
    [
        PROBE,
        Acceptance(diagnostic="sorting"),
        Acceptance(diagnostic="addition", tie=True, digits=2, tries=3),
        Acceptance(
            diagnostic="haystack", optimizer="muon", lr_of=("embeddings=1e+1", "positions=0.3"), beta2=0.9, final_lr=0
        ),
    ],
)
def test_its_written_form_means_the_same(accept: Acceptance) -> None:
    assert Acceptance.parse(str(accept)) == accept
    assert config.convert(str(accept), Acceptance | None, "accept") == accept
    assert config.convert(config.plain(accept), Acceptance | None, "accept") == accept


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("haystak", 'unknown diagnostic "haystak" .did you mean "haystack"'),
        ("haystack:step=3", 'unknown option "step".*did you mean "steps"'),
        ("haystack:above=2", "above = 2: a share"),
        ("haystack:tries=0", "tries = 0: must be from 1"),
        ("haystack:digits=3", 'unknown option "digits"'),
        ("haystack:steps", "write DIAGNOSTIC:option=value"),
        ("haystack:steps=5,steps=6", 'option "steps" is given twice'),
        ("haystack:steps=5,ramp_steps=9", "ramp_steps = 9: more than the 5 steps"),
    ],
)
def test_mistakes_are_named(written: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"^accept.*{said}"):
        probe_options(options(tmp_path, accept=Acceptance.parse(written)))


def test_it_does_not_go_with_extend_or_with_seeds_of_redrawn_donors(tmp_path: Path) -> None:
    for changes, said in (({"extend": True}, "extend: not with accept"), ({"seed": 10**9}, "must be below 1000000000")):
        with pytest.raises(OptionError, match=said):
            options(tmp_path, **changes)
    assert len({seed_of_try(seed, number) for seed in range(50) for number in range(20)}) == 1000
    assert seed_of_try(10**9 - 1, MOST_TRIES - 1) < PROBE_SEED
    assert {each.name for each in dataclasses.fields(Acceptance)} - {"diagnostic", "above", "tries"} <= {
        each.name for cls in DIAGNOSTICS.values() for each in dataclasses.fields(cls)
    }


def test_on_the_command_line(again: Path, proctool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(again)
    words = [
        "warmup", "--task", "set:inputs=3,symbols=5", "--model", "1x1x8", "--steps", 8, "--batch-size", 4,
        "--eval-every", 3, "--eval-samples", 8, "-o", "a.safetensors", "--accept",
    ]  # fmt: skip
    said = proctool(*words, PROBE)
    assert said.code == 1
    assert "donor 1 of at most 3 (seed 0) rejected" in said.err
    assert said.err.strip().splitlines()[-1].startswith("proctool: accept: none of 3 donors")
    said = proctool(*words, with_above(0.0))
    assert said.code == 0, said.err
    assert "accepted" in said.err
    # What a run that starts from it cost, as its lineage tells.
    write_events(Path("pretrained"), *training(end=False))
    Path("pretrained/config.json").write_text('{"init": "a.safetensors"}')
    cost = warmup_from_lineage(Path("pretrained"), read_metrics(Path("pretrained")))
    assert cost.tokens == 8 * 4 * 7 + 8 * 16 * 6
    assert cost.flops == read_metrics(Path("a.run")).tries[0].flops


def test_from_python(again: Path) -> None:
    warmed = proctool.warm_up(
        "set:inputs=3,symbols=5", "1x1x8", steps=8, batch_size=4, eval_every=3, eval_samples=8,
        output=again / "a.safetensors", accept=str(with_above(0.0)),
    )  # fmt: skip
    assert warmed.artifact is not None
    assert warmed.artifact.metadata["acceptance"]["tries"][0]["accepted"]


def trained(folder: Path) -> dict[Path, tuple[int, int]]:
    """The metrics of every try, by inode and time."""
    found = {path: path.stat() for path in folder.glob("try-*/**/metrics.jsonl")}
    return {path.relative_to(folder): (each.st_ino, each.st_mtime_ns) for path, each in found.items()}


def test_a_probe_has_the_optimiser_and_the_rates_that_are_asked(tmp_path: Path) -> None:
    accept = Acceptance(diagnostic="haystack", optimizer="muon", lr_of=("embeddings=2",), beta2=0.9, final_lr=0)
    probe = probe_options(options(tmp_path, accept=accept))
    assert (probe.optimizer, probe.lr_of, probe.beta2, probe.final_lr) == ("muon", ("embeddings=2.0",), 0.9, 0)
    usual = probe_options(options(tmp_path, accept=Acceptance(diagnostic="haystack")))
    assert (usual.optimizer, usual.lr_of, usual.beta2) == ("adamw", None, type(usual)(steps=1).beta2)
