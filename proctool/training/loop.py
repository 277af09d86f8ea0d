"""The training loop. Warm-up, pretraining and diagnostics differ in source, initial weights and schedule only."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from proctool.errors import Interrupted, RunError
from proctool.events import (
    CurriculumEvent,
    EvalEvent,
    Evaluation,
    ExtendEvent,
    NoteEvent,
    ResumeEvent,
    StartEvent,
    TrainEvent,
)
from proctool.procedural.samples import Samples
from proctool.signals import command_again, stop_signals
from proctool.training.batch import Batch, by_length
from proctool.training.checkpoint import Checkpoints, HasState, Position
from proctool.training.compiling import compile_model
from proctool.training.curriculum import Curriculum, CurriculumStage
from proctool.training.devices import agreed_to_stop, device_peak, make_accelerator, make_engine
from proctool.training.early_stop import EarlyStop
from proctool.training.engine import Engine
from proctool.training.evaluate import Scores, evaluate
from proctool.training.extension import keeps_state, scheduled_steps
from proctool.training.guard import Guard, Objection
from proctool.training.loss import TargetLoss
from proctool.training.optimiser import make_optimiser
from proctool.training.options import TrainingOptions
from proctool.training.run import RunFolder
from proctool.training.schedule import learning_rate
from proctool.training.sources import held_out_samples, read_ahead

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Result:
    """A completed run. `seconds` counts every sitting of a resumed one."""

    step: int
    tokens: int
    seconds: float
    scores: Scores
    weights: dict[str, torch.Tensor]
    """The last ones; on the first process alone."""
    best: Evaluation | None
    """The evaluation with the lowest held-out loss (of the full size, under a curriculum)."""
    size: int | None
    """The size of the last samples trained on, under a curriculum; `scores` are of the full size all the same."""


def train(
    model: PreTrainedModel,
    course: Curriculum,
    options: TrainingOptions,
    run: RunFolder,
    start: StartEvent,
    loss_of: Callable[[PreTrainedModel], TargetLoss] | None = None,
    held: contextlib.ExitStack | None = None,
) -> Result:
    """Train `model` in place for `options.steps` steps, recording events (`start` first) and checkpoints in `run`.

    Goes on from the folder's latest checkpoint: with the same settings on the same hardware, the weights end as
    those of a run that was never stopped, bit for bit. From the first step on, signals are held until the end, or
    until `held` is closed: the last weights are not in a checkpoint. Raises Interrupted after a checkpoint when one
    comes; RunError, after a checkpoint too, when a gradient is not finite or a spike; OSError when a checkpoint cannot
    be written (the one before it stays).
    """
    accelerator = make_accelerator(options)
    micro = options.samples_at_once(accelerator.num_processes)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    module = (loss_of or TargetLoss)(model)
    optimiser = make_optimiser(module, lr=options.lr, weight_decay=options.weight_decay, beta2=options.beta2)
    torch.manual_seed(options.seed * accelerator.num_processes + accelerator.process_index)  # dropout
    engine = make_engine(accelerator, module, optimiser, options)
    early, guard = EarlyStop(options.until, options.patience), Guard(options.spike)
    parts: dict[str, HasState] = {"early": early, "course": course, "guard": guard}
    checkpoints = Checkpoints(run, engine, parts, options.keep_checkpoints)
    resumed = checkpoints.restore()
    here = resumed or Position()
    run.begin(here.step)
    if checkpoints.extends and run.extensions_begun < len(run.extended_from):
        content = run.extended_from[-1]["content"]
        run.record(ExtendEvent(step=here.step, steps=options.steps, flops=start.flops, content=content))
    else:
        run.record(ResumeEvent(step=here.step) if resumed else start)
    if options.compile:
        trial = Batch.of(course.lesson.source.read(0, micro), accelerator.device)
        run.record(NoteEvent(note=compile_model(engine, trial)))

    share_out = functools.partial(_micro_batches, micro=micro, accelerator=accelerator)
    peak = device_peak(accelerator.device, options.precision)
    flops_per_token = start.flops / (start.steps * start.tokens_per_step)
    scheduled = scheduled_steps(options.steps, run.extended_from)
    clock = _Clock(here)
    scores: Scores | None = None

    def measured(lesson: CurriculumStage) -> Scores:
        samples = held_out_samples(lesson.held_out, options.eval_samples)
        return evaluate(accelerator, module, lesson.held_out, samples, min(micro, samples))

    def note_scores(lesson: CurriculumStage) -> Scores:
        began = time.monotonic()
        found = measured(lesson)
        run.record(
            EvalEvent(
                step=here.step,
                tokens=here.tokens,
                loss=found.loss,
                accuracy=found.accuracy,
                exact_match=found.exact_match,
                **_size(lesson),
                seconds=clock.seconds(),
            )
        )
        clock.leave_out(time.monotonic() - began)  # evaluations do not count against the speed
        return found

    def sees(found: Scores) -> None:
        if early.sees(found, here.step, here.tokens) and options.save in ("best", "both"):
            checkpoints.write_best(here.step)

    def settle(found: Scores) -> str | None:
        """Take in an evaluation before the last step; the reason to stop, if there is one."""
        sees(found)
        if course.goes_on(found, early.waited):
            early.begin_again()
            run.record(CurriculumEvent(step=here.step, tokens=here.tokens, **_size(course.lesson)))
            return None
        return early.reason(found, in_full=course.is_last)

    def note_stop(reason: str) -> None:
        run.record(NoteEvent(step=here.step, note=f"stopping at step {here.step}: {reason}"))

    def checkpoint() -> None:
        checkpoints.write(dataclasses.replace(here, seconds=clock.seconds()))

    if here.step == 0:
        scores = note_scores(course.lesson)
    parts_before = checkpoints.part_states()
    last = options.steps
    if checkpoints.extends and here.step % options.eval_every == 0:  # the run ended here, before it took this in
        scores = measured(course.lesson)
        if reason := settle(scores):
            note_stop(reason)
            last = here.step
    ahead = read_ahead(course.lesson.source, here.step, options.steps, options.batch_size, share_out)
    with contextlib.ExitStack() as own:
        stop = (held or own).enter_context(stop_signals())
        for step in range(here.step, last):
            rate = learning_rate(
                step, steps=scheduled, peak=options.lr, schedule=options.schedule,
                ramp_steps=options.ramp_steps, final=options.final_lr,
            )  # fmt: skip
            engine.set_learning_rate(rate)
            batches, total = next(ahead)
            loss = torch.zeros((), device=accelerator.device)
            for number, batch in enumerate(batches, start=1):
                loss += engine.add_gradients(_on_device(batch, accelerator.device), total, number == len(batches))
            norm = engine.clip_or_step(options.clip)
            if objection := guard.objection(*_agreed_loss(loss, norm, accelerator)):
                if step and not engine.steps_early:
                    checkpoint()  # the weights are still those from before this step
                raise RunError(_stopped_by(objection, step, run, engine))
            engine.step()
            here.step, here.tokens = step + 1, here.tokens + options.batch_size * course.lesson.source.length

            is_last = here.step == options.steps
            if here.step % options.log_every == 0 or is_last:
                speed = clock.speed(here)
                run.record(
                    TrainEvent(
                        step=here.step,
                        tokens=here.tokens,
                        loss=float(accelerator.reduce(loss)),
                        lr=rate,
                        grad_norm=norm,
                        tokens_per_second=round(speed),
                        mfu=speed * flops_per_token / peak / accelerator.num_processes if peak else None,
                        seconds=clock.seconds(),
                    )
                )
            if here.step % options.eval_every == 0 or is_last:
                parts_before, lesson = checkpoints.part_states(), course.lesson
                scores = note_scores(lesson)
                if is_last:
                    sees(scores)
                elif reason := settle(scores):
                    note_stop(reason)
                    break
                elif course.lesson is not lesson:
                    ahead.close()
                    ahead = read_ahead(course.lesson.source, here.step, options.steps, options.batch_size, share_out)
            stopping = not is_last and agreed_to_stop(stop, accelerator, here.step % options.log_every == 0)
            if stopping or (not is_last and here.step % options.checkpoint_every == 0):
                checkpoint()
            if stopping:
                raise Interrupted(
                    f"stopped at step {here.step} of {options.steps} with a checkpoint in {run.path}; "
                    f"to go on, run again: {command_again()}"
                )
        if not course.is_last:
            note = (
                f"the curriculum ended at size {course.lesson.size} of {course.lessons[-1].size}; scoring the full size"
            )
            run.record(NoteEvent(step=here.step, note=note))
            early.begin_again()
            scores = note_scores(course.lessons[-1])
            sees(scores)
    assert scores is not None, "the last step is always evaluated"
    if keeps_state(options.keep_state, start.parameters, start.trained):
        checkpoints.write_state(dataclasses.replace(here, seconds=clock.seconds()), parts_before)
    weights = engine.weights()
    return Result(here.step, here.tokens, clock.seconds(), scores, weights, early.best, course.lesson.size)


class _Clock:
    """Seconds of all sittings, and tokens a second since the last time of asking."""

    def __init__(self, here: Position) -> None:
        self._began = time.monotonic() - here.seconds
        self._asked, self._tokens = time.monotonic(), here.tokens

    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def leave_out(self, seconds: float) -> None:
        self._asked += seconds

    def speed(self, here: Position) -> float:
        now = time.monotonic()
        speed = (here.tokens - self._tokens) / max(now - self._asked, 1e-9)
        self._asked, self._tokens = now, here.tokens
        return speed


def _micro_batches(samples: Samples, micro: int, accelerator: Accelerator) -> tuple[list[Batch], int]:
    """A step's micro-batches for this process, and how many targets the step has in all its processes."""
    batches = [Batch.of(part) for part in _shares(samples, micro, accelerator)]
    if accelerator.device.type == "cuda":  # from pinned memory, copies run beside the computation
        batches = [Batch(*(tensor.pin_memory() for tensor in batch)) for batch in batches]
    return batches, int(samples.targets[:, 1:].sum())


def _on_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))


def _shares(samples: Samples, micro: int, accelerator: Accelerator) -> Iterator[Samples]:
    """This process's micro-batches of a step's samples."""
    for start in range(accelerator.process_index * micro, len(samples), accelerator.num_processes * micro):
        part = Samples(samples.tokens[start : start + micro], samples.targets[start : start + micro])
        # Processes must make as many backward passes as each other, so only one alone may cut further.
        yield from by_length(part) if accelerator.num_processes == 1 else [part]


def _size(lesson: CurriculumStage) -> dict[str, Any]:
    return {} if lesson.size is None else {"size": lesson.size, "length": lesson.source.length}


def _agreed_loss(loss: torch.Tensor, norm: float, accelerator: Accelerator) -> tuple[float, float]:
    """The loss and gradient norm to judge a step by; all processes have the same.

    Without a gradient scaler the norm alone tells, and is common already: a loss that is not finite has no finite
    gradient. With one, infinite gradients are its daily business, and only the loss tells.
    """
    if accelerator.scaler is None:
        return (0.0, norm) if math.isfinite(norm) else (float(accelerator.reduce(loss)), norm)
    return float(accelerator.reduce(loss)), norm if math.isfinite(norm) else 0.0


def _stopped_by(objection: Objection, step: int, run: RunFolder, engine: Engine) -> str:
    kept = f"a checkpoint from before it, of step {step}, is in {run.path}" if step else "nothing was done before it"
    if engine.steps_early:
        kept = (
            f"{engine.layout} knew after the step alone; the last checkpoint in {run.path}, if any, is from before it"
        )
    return f"{objection.words()} at step {step + 1}; {kept}; {objection.advice()}"
