"""A warm-up whose donor has to pass a short diagnostic, the probe, before it is taken.

Some donors of one setting serve and others do not, and neither their loss nor their weights tell which. So each try
trains a donor with a seed of its own and a diagnostic from it for a few steps. The first donor that passes is the
result. Every try is counted in what the result cost.

    NAME.run/                  the run: its metrics are those of the accepted donor, and the tries
    NAME.run/try-0/            the run folder of the first donor, and its weights
    NAME.run/try-0/probe/      the run folder of its probe

A finished try is never repeated. `above` and `tries` only choose among tries, so a run can go on with others.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool import artifact, config
from proctool.artifact import TensorCopy
from proctool.errors import RunError
from proctool.evaluation.diagnostic import diagnostic_job
from proctool.evaluation.options import probe_options
from proctool.events import EndEvent, Event, NoteEvent, ResumeEvent, StartEvent, TryEvent, read_events
from proctool.models.saved import save_model
from proctool.outputs import Output, reads_of, require_safe
from proctool.training.accept import PROBE_SEED, Acceptance, seed_of_try
from proctool.training.claim import Outlook
from proctool.training.job import Job
from proctool.training.options import WarmupOptions
from proctool.training.run import RunFolder
from proctool.training.run_form import read_form
from proctool.training.run_place import outputs_of
from proctool.training.warmup import warmup_job

_DONOR = "warm.safetensors"


def donor_job(options: WarmupOptions) -> Job:
    """The job of `proctool warmup`, with or without `accept`. Raises OptionError, ArtifactError, ModelError."""
    if options.accept is None:
        return warmup_job(options)
    probe_options(options)
    job = warmup_job(options, AcceptedWarmup)
    require_safe([Output(rejected_of(options.output), "--output", "model")], reads_of(options))
    return job


def rejected_of(output: Path) -> Path:
    """Where the best donor is kept if none is accepted: `a/m-rejected.safetensors` for `a/m.safetensors`."""
    return output.with_stem(f"{output.stem}-rejected")


def _gate(options: WarmupOptions) -> Acceptance:
    assert options.accept is not None
    return options.accept


@dataclass(frozen=True)
class _Try:
    """A donor that has been trained and probed."""

    folder: Path
    event: TryEvent
    end: EndEvent
    """Of its warm-up."""
    seconds: float
    """Of warm-up and probe."""


class AcceptedWarmup(Job):
    """Trains donors until one is accepted, and writes that one."""

    options: WarmupOptions

    def plan(self) -> dict[str, Any]:
        """What a dry run prints: one try, its probe included."""
        planned, probe = super().plan(), self._planned_probe()
        gate = _gate(self.options)
        said = (
            f"counts one donor and its probe on {probe['task']}; up to {gate.tries} are trained until one is accepted"
        )
        planned |= {name: planned[name] + probe[name] for name in ("tokens", "flops")}
        planned["peak_bytes"] = max(planned["peak_bytes"], probe["peak_bytes"])
        planned["remark"] = "; ".join(filter(None, [planned.get("remark"), said]))
        return planned

    def _planned_probe(self) -> dict[str, Any]:
        """The plan of a probe from an untrained donor: what would not fit fails here, before a donor is trained."""
        with tempfile.TemporaryDirectory(prefix="proctool-") as folder:
            donor = Path(folder) / _DONOR
            save_model(donor, self.build(self.config, 0), {})
            probe = self._probe(donor, Path(folder) / "probe")
            for source in (probe.source, probe.held_out):
                source.read(0, 1)  # a task may be too small to keep its splits apart
            return probe.plan()

    def _settings(self) -> dict[str, Any]:
        settings = super()._settings()
        settings["accept"].pop("above")  # chooses among tries, and changes none
        return settings

    def _finished(self, run: RunFolder) -> EndEvent | None:
        return super()._finished(run) if self._is_accepted(run.events()) else None

    def _is_accepted(self, events: Sequence[Event]) -> bool:
        tries = [event for event in events if isinstance(event, TryEvent)]
        passed = [event for event in tries if self._passes(event.accuracy)]
        return bool(passed) and passed[0] == tries[-1]

    def outlook(self) -> Outlook:
        """As of any job; a run that has begun goes on with its next donor."""
        found = super().outlook()
        is_begun = found.action in ("resume", "restart", "complete")
        if not is_begun or (found.action == "complete" and self._is_accepted(read_events(self.run_path))):
            return found
        tried = sum(_read(folder) is not None for folder in self._folders(self.run_path))
        return Outlook("resume", tries=tried)

    def _folders(self, path: Path) -> list[Path]:
        return [path / f"try-{number}" for number in range(_gate(self.options).tries)]

    def _passes(self, accuracy: float | None) -> bool:
        return accuracy is not None and accuracy >= _gate(self.options).above

    def _train(self, run: RunFolder, settings: Mapping[str, Any]) -> EndEvent:
        folders = self._folders(run.path)
        if self.options.resume == "never" and run.is_writer:
            for folder in sorted(run.path.glob("try-*")):
                _discard(folder)
        if _read(folders[0]) is None:
            self._planned_probe()
        tries: list[_Try] = []
        with self._outputs_held(run.is_writer):
            run.begin(0)
            for number, folder in enumerate(folders):
                tries.append(self._tried(run, number, folder))
                if tries[-1].event.is_accepted:
                    break
        last = tries[-1]
        if not last.event.is_accepted:
            raise RunError(self._refusal(run, tries))
        written: dict[str, Any] = {}
        places = zip(outputs_of(self.options, self.output), outputs_of(self.options, last.folder / _DONOR), strict=True)
        for (_, path, prefix), (_, donor, _) in places if run.is_writer else ():
            content = self._write(path, donor, tries)
            written |= {f"{prefix}artifact": str(path), f"{prefix}content": content}
        seconds = round(sum(each.seconds for each in tries), 3)
        end = dataclasses.replace(last.end, seconds=seconds, run_dir=str(run.path), **written)
        self._record(run, tries, end)
        return end

    # -- one try --

    def _tried(self, run: RunFolder, number: int, folder: Path) -> _Try:
        """The try in `folder`, trained and probed as far as it is not."""
        from proctool.training.devices import start_process

        gate, seed = _gate(self.options), seed_of_try(self.options.seed, number)
        event = TryEvent(
            number=number, most=gate.tries, seed=seed, diagnostic=gate.diagnostic, above=gate.above
        )  # fmt: skip
        processes = start_process()
        if (found := _read(folder)) is None:
            run.record(event)
            folder.mkdir(parents=True, exist_ok=True)
            donor = folder / _DONOR
            warmup = warmup_job(dataclasses.replace(
                self.options, accept=None, seed=seed, run_dir=folder, output=donor, resume="auto"
            ))  # fmt: skip
            warmup.listeners = [_passed_on(run, folder)]
            warmup.run()
            processes.wait_for_everyone()  # the donor is written by one of them
            probe = self._probe(donor, folder / "probe")
            run.say(f"probing it on {gate.diagnostic}")
            probe.listeners = [_passed_on(run, folder / "probe", notes=False)]
            probe.run()
            processes.wait_for_everyone()
            found = _read(folder)
            assert found is not None, "both have ended"
        ends, starts = found
        event = dataclasses.replace(
            event,
            accuracy=ends[1].accuracy,
            tokens=sum(end.tokens for end in ends),
            flops=sum(start.flops for start in starts),
        )
        run.record(event)
        return _Try(folder, event, ends[0], sum(end.seconds or 0.0 for end in ends))

    def _probe(self, donor: Path, folder: Path) -> Job:
        """The probe of a donor. Its validation samples are not those that diagnostics are scored on."""
        options = dataclasses.replace(probe_options(self.options), init=str(donor), run_dir=folder)
        return diagnostic_job(_gate(self.options).diagnostic, options, held_out_seed=PROBE_SEED)

    # -- the end --

    def _write(self, path: Path, donor: Path, tries: Sequence[_Try]) -> str:
        """Write a try's donor to `path`, with what all tries were and cost. Returns the hash of its contents."""
        found = artifact.open_artifact(donor, "model")
        probe = probe_options(self.options)
        record = {
            "diagnostic": _gate(self.options).diagnostic,
            "above": _gate(self.options).above,
            "probe": {name: value for name, value in _gate(self.options).probe.items() if name != "model"},
            "probe_seed": probe.seed,
            "tries": [
                {name: getattr(each.event, name) for name in ("seed", "accuracy", "tokens", "flops")}
                | {"accepted": each.event.is_accepted}
                for each in tries
            ],
        }
        metadata = {**found.metadata, "acceptance": config.plain(record), "spent_tokens": _spent(tries)}
        tensors = {name: TensorCopy(found, name) for name in found.tensors}
        return artifact.write(path, tensors, kind="model", metadata=metadata, parents=found.parents).content

    def _record(self, run: RunFolder, tries: Sequence[_Try], end: EndEvent) -> None:
        """Write the metrics anew, from those of the tries: the same whether the run was interrupted or not."""
        if not run.is_writer:
            return
        start, *others = [each for each in read_events(tries[-1].folder) if not isinstance(each, EndEvent)]
        run.begin(0)
        told, run.listeners = run.listeners, []
        for event in (start, *(each.event for each in tries), *others):
            run.record(event)
        run.listeners = told
        run.record(end)

    def _refusal(self, run: RunFolder, tries: Sequence[_Try]) -> str:
        """Keep the best donor beside the output; what to say of all of them."""
        gate = _gate(self.options)
        best = max(tries, key=lambda each: -1.0 if math.isnan(_accuracy(each)) else _accuracy(each))
        path = rejected_of(self.options.output)
        if run.is_writer:
            self._write(path, outputs_of(self.options, best.folder / _DONOR)[0][1], tries)
        seen = ", ".join(f"{_accuracy(each):.1%}" for each in tries)
        return (
            f"accept: none of {len(tries)} donors reached {gate.diagnostic} accuracy {gate.above:.1%} after "
            f"{gate.steps} steps (reached: {seen}); the best one is {path}; give accept more tries, or a lower above"
        )


def _accuracy(tried: _Try) -> float:
    accuracy = tried.event.accuracy
    return math.nan if accuracy is None else accuracy


def _spent(tries: Sequence[_Try]) -> int:
    """Tokens of all donors and probes."""
    return sum(each.event.tokens for each in tries)


def _read(folder: Path) -> tuple[tuple[EndEvent, EndEvent], tuple[StartEvent, StartEvent]] | None:
    """How a try's donor and its probe ended and began; None while it is not finished."""
    ends, starts = [], []
    for part in (folder, folder / "probe"):
        events = read_events(part)
        ended = [event for event in events if isinstance(event, EndEvent)]
        if not ended:
            return None
        ends.append(ended[-1])
        starts.append(next(event for event in events if isinstance(event, StartEvent)))
    return (ends[0], ends[1]), (starts[0], starts[1])


def _passed_on(run: RunFolder, folder: Path, *, notes: bool = True) -> Callable[[Event], None]:
    """A listener that shows what a try's run in `folder` does as the progress of the whole run."""

    def listen(event: Event) -> None:
        if isinstance(event, NoteEvent) and event.step is None:
            if notes:
                run.say(event.note)
            return
        if isinstance(event, ResumeEvent):  # the run's own metrics begin anew
            for begun in read_events(folder)[:1]:
                run.record(begun)
        if not isinstance(event, EndEvent):
            run.record(event)

    return listen


def _discard(folder: Path) -> None:
    """Remove what proctool wrote of a try's runs, and nothing else."""
    for part in (folder / "probe", folder):
        if (settings := read_form(part)) is not None:
            RunFolder(part, settings, fresh=True).close()
