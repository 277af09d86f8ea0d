"""The training loop. Warm-up, pretraining and diagnostics differ in source, initial weights and schedule only."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

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
from proctool.loss_parts import LossParts
from proctool.signals import command_again, stop_signals
from proctool.training.batch import Batch, StepBatches
from proctool.training.checkpoint import Checkpoints, HasState, Position
from proctool.training.clock import Clock
from proctool.training.compiling import compile_model
from proctool.training.curriculum import Curriculum, CurriculumStage
from proctool.training.devices import agreed_to_stop, device_peak, make_accelerator, make_engine, random_state
from proctool.training.early_stop import EarlyStop
from proctool.training.engine import Engine
from proctool.training.evaluate import Scores, evaluate, evaluate_parts
from proctool.training.extension import scheduled_steps
from proctool.training.graphs import GraphStep, capture_for
from proctool.training.guard import Guard, Judged, Objection
from proctool.training.late import LateSteps, StepTaken, lag_of
from proctool.training.loss import TargetLoss
from proctool.training.mixed import procedural_tokens
from proctool.training.optimiser import optimiser_of
from proctool.training.options import TrainingOptions
from proctool.training.producers import producers_for, read_from_producers, work_for
from proctool.training.run import RunFolder
from proctool.training.schedule import learning_rate
from proctool.training.sources import Source, held_out_samples, read_ahead
from proctool.training.step import BATCHES_AHEAD, Step, has_fixed_shapes, micro_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Result:
    """A completed run. `seconds` is the total time across resumes."""

    step: int
    tokens: int
    seconds: float
    scores: Scores
    weights: dict[str, torch.Tensor]
    """The weights after the last step, by parameter name. Empty on all processes but the first."""
    best: Evaluation | None
    """The evaluation with the lowest validation loss. Under a curriculum, only those at the full size count."""
    diverged: bool
    """Whether the run ended because it diverged. The losses in `scores` are then NaN."""
    size: int | None
    """The sample size that a curriculum had reached, None without one. `scores` are always for the full size."""
    loss_parts: LossParts | None = None
    """The loss in `scores`, split into parts. Only with `by_part`."""


def train(
    model: PreTrainedModel,
    curriculum: Curriculum,
    options: TrainingOptions,
    run: RunFolder,
    start: StartEvent,
    loss_of: Callable[[PreTrainedModel], TargetLoss] | None = None,
    others: Mapping[str, Source] | None = None,
    held: contextlib.ExitStack | None = None,
    by_part: bool = False,
    state: Mapping[str, torch.Tensor] | None = None,
) -> Result:
    """Train `model` in place for `options.steps` steps, recording events (`start` first) and checkpoints in `run`.

    Each evaluation also scores the sources in `others`, keyed by split. Their scores are recorded but decide nothing.
    `by_part` adds one more pass at the end, which splits the final loss into parts. `state` is the optimiser state to
    start with; its keys have the form PARAMETER/KEY.

    Resumes from the folder's latest checkpoint. With the same settings on the same hardware, the final weights have
    the same bits as those of an uninterrupted run. Signals are caught from the first step until the end, or until
    `held` is closed, because no checkpoint contains the final weights.

    Raises Interrupted after a signal and RunError for a gradient that is not finite or a spike, both after writing a
    checkpoint. Raises OSError if a checkpoint cannot be written; the previous one stays.
    """
    accelerator = make_accelerator(options)
    micro = options.samples_at_once(accelerator.num_processes)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    module = (loss_of or TargetLoss)(model)
    torch.manual_seed(options.seed * accelerator.num_processes + accelerator.process_index)  # dropout
    engine = make_engine(accelerator, module, optimiser_of(model, options), options)
    early, guard = EarlyStop(options.until, options.patience), Guard(options.spike, accelerator.device)
    parts: dict[str, HasState] = {"early": early, "course": curriculum, "guard": guard}
    checkpoints = Checkpoints(run, engine, parts, options.keep_checkpoints)
    resumed = checkpoints.restore(state)
    here = resumed or Position()
    run.begin(here.step)
    if checkpoints.extends and run.extensions_begun < len(run.extended_from):
        content = run.extended_from[-1]["content"]
        run.record(ExtendEvent(step=here.step, steps=options.steps, flops=start.flops, content=content))
    else:
        run.record(ResumeEvent(step=here.step) if resumed else start)
    if options.compile:
        trial = Batch.of(curriculum.stage.source.read(0, micro), accelerator.device)
        run.record(NoteEvent(note=compile_model(engine, trial)))

    fixed = has_fixed_shapes(
        accelerator.device.type,
        accelerator.num_processes,
        start.flops / start.steps,
        micro * curriculum.stages[-1].source.length * model.config.vocab_size,
    )
    share_out = functools.partial(micro_batches, micro=micro, accelerator=accelerator, fixed=fixed)
    peak = device_peak(accelerator.device, options.precision)
    flops_per_token = start.flops / (start.steps * start.tokens_per_step)
    scheduled = scheduled_steps(options.steps, run.extended_from)
    clock = Clock(here.seconds, here.tokens)
    scores: Scores | None = None

    def note_that(text: str) -> None:
        run.record(NoteEvent(step=here.step, note=text))

    def measured(source: Source) -> Scores:
        return evaluate(accelerator, module, source, held_out_samples(source, options.eval_samples), micro)

    def note_scores(stage: CurriculumStage) -> Scores:
        began = time.monotonic()
        for split, source in (others or {}).items():
            other = measured(source)
            run.record(
                EvalEvent(
                    step=here.step,
                    tokens=here.tokens,
                    split=split,
                    loss=other.loss,
                    accuracy=other.accuracy,
                    exact_match=other.exact_match,
                )
            )
        found = measured(stage.held_out)
        run.record(
            EvalEvent(
                step=here.step,
                tokens=here.tokens,
                loss=found.loss,
                accuracy=found.accuracy,
                exact_match=found.exact_match,
                procedural_tokens=procedural_tokens(stage.source, here.step * options.batch_size),
                **_size(stage),
                seconds=clock.seconds(),
            )
        )
        clock.leave_out(time.monotonic() - began)  # exclude evaluations from tokens per second
        return found

    def sees(found: Scores) -> None:
        if early.sees(found, here.step, here.tokens) and options.save in ("best", "both"):
            checkpoints.write_best(here.step)

    def settle(found: Scores) -> str | None:
        """Apply early stopping and the curriculum to an evaluation. Returns the reason to stop, if any."""
        sees(found)
        if curriculum.goes_on(found, early.waited):
            early.begin_again()
            run.record(CurriculumEvent(step=here.step, tokens=here.tokens, **_size(curriculum.stage)))
            return None
        return early.reason(found, in_full=curriculum.is_last)

    def note_stop(reason: str) -> None:
        note_that(f"stopping at step {here.step}: {reason}")

    def checkpoint(at: Position, random: Mapping[str, torch.Tensor] | None = None) -> None:
        began = time.monotonic()
        checkpoints.write(dataclasses.replace(at, seconds=clock.seconds()), random)
        clock.stand_still(time.monotonic() - began)

    def read_from(stage: CurriculumStage) -> Generator[StepBatches, None, None]:
        depth = BATCHES_AHEAD if fixed else 1
        by_thread = functools.partial(
            read_ahead, stage.source, here.step, options.steps, options.batch_size, share_out, depth
        )
        processes = producers_for(options.producers, accelerator.device.type) if fixed else 0
        work = work_for(
            stage.source, here.step, options.steps, size=options.batch_size, micro=micro, processes=processes
        )
        if work is None:
            return by_thread()
        return read_from_producers(work, pin=accelerator.device.type == "cuda", otherwise=by_thread, say=run.say)

    diverged: Objection | None = None

    def settle_step(taken: StepTaken, judged: Judged) -> None:
        nonlocal here, diverged
        if judged.is_bad and accelerator.scaler is None and not math.isfinite(judged.norm):
            whole = accelerator.reduce(torch.tensor(judged.loss, device=accelerator.device))
            judged = dataclasses.replace(judged, loss=float(whole))  # was only this process's share
        if objection := guard.objection(judged):
            if options.on_divergence == "end":
                here, diverged = taken.before, objection
                raise _DivergedError
            if taken.before.step and not engine.steps_early:
                checkpoint(taken.before, taken.random)  # the weights are still those from before this step
                checkpoints.wait()
            raise RunError(_stopped_by(objection, taken.before.step, run, engine))
        if taken.is_logged:
            speed = clock.speed(taken.after.tokens)
            run.record(
                TrainEvent(
                    step=taken.after.step,
                    tokens=taken.after.tokens,
                    loss=judged.loss,
                    **_by_kind(taken, judged),
                    procedural_tokens=procedural_tokens(curriculum.stage.source, taken.after.step * options.batch_size),
                    lr=taken.rate,
                    grad_norm=judged.norm,
                    tokens_per_second=round(speed),
                    mfu=speed * flops_per_token / peak / accelerator.num_processes if peak else None,
                    seconds=clock.seconds(),
                    checkpoint_seconds=clock.stood_still(),
                )
            )

    if here.step == 0:
        scores = note_scores(curriculum.stage)
    parts_before = checkpoints.part_states()
    last = options.steps
    if checkpoints.extends and here.step % options.eval_every == 0:  # the last evaluation of the run is applied now
        scores = measured(curriculum.stage.held_out)
        if reason := settle(scores):
            note_stop(reason)
            last = here.step
    lag = lag_of(engine)
    take_step, late = Step(engine, guard, options.clip, lag), LateSteps(lag, settle_step)
    plain = fixed and options.cuda_graph and not (options.compile or options.gradient_checkpointing)
    if capture := capture_for(engine, lag, plain=plain):
        take_step = GraphStep(engine, guard, options.clip, lag, capture, note=note_that)
    ahead = read_from(curriculum.stage)
    with contextlib.ExitStack() as own:
        stop = (held or own).enter_context(stop_signals())
        own.enter_context(checkpoints)
        own.callback(lambda: ahead.close())  # late binding: a curriculum replaces `ahead`
        own.enter_context(contextlib.suppress(_DivergedError))
        for step in range(here.step, last):
            rate = learning_rate(
                step, steps=scheduled, peak=options.lr, schedule=options.schedule,
                ramp_steps=options.ramp_steps, final=options.final_lr,
            )  # fmt: skip
            before, random = here, random_state(accelerator.device)
            here = Position(step + 1, here.tokens + options.batch_size * curriculum.stage.source.length)
            is_last = here.step == options.steps
            is_logged = here.step % options.log_every == 0 or is_last
            batches, targets, procedural = next(ahead)
            readout = take_step(batches, targets, rate, is_logged=is_logged)
            late.add(StepTaken(readout, before, random, here, rate, is_logged, targets, procedural))
            checkpoints.check()

            if here.step % options.eval_every == 0 or is_last:
                late.flush()
                parts_before, stage = checkpoints.part_states(), curriculum.stage
                scores = note_scores(stage)
                if is_last:
                    sees(scores)
                elif reason := settle(scores):
                    note_stop(reason)
                    break
                elif curriculum.stage is not stage:
                    ahead.close()
                    ahead = read_from(curriculum.stage)
            stopping = not is_last and agreed_to_stop(stop, accelerator, here.step % options.log_every == 0)
            if stopping or (not is_last and here.step % options.checkpoint_every == 0):
                late.flush()
                checkpoint(here)
            if stopping:
                checkpoints.wait()
                raise Interrupted(
                    f"stopped at step {here.step} of {options.steps} with a checkpoint in {run.path}; "
                    f"to resume, run: {command_again()}"
                )
        if not curriculum.is_last:
            ended, full = curriculum.stage.size, curriculum.stages[-1].size
            note_that(f"the curriculum ended at size {ended} of {full}; scoring the full size")
            early.begin_again()
            scores = note_scores(curriculum.stages[-1])
            sees(scores)
    if diverged is not None:
        note_that(f"ended at step {here.step}: {diverged.words()}")
        scores = Scores(math.nan, 0.0, 0.0, 0)
    assert scores is not None, "the last step is always evaluated"
    if options.keep_state:
        checkpoints.write_state(dataclasses.replace(here, seconds=clock.seconds()), parts_before)
    weights = engine.weights()
    size = curriculum.stage.size
    result = Result(here.step, here.tokens, clock.seconds(), scores, weights, early.best, diverged is not None, size)
    if not by_part or diverged is not None:
        return result
    held_out = curriculum.stages[-1].held_out
    found = evaluate_parts(accelerator, module, held_out, held_out_samples(held_out, options.eval_samples), micro)
    return dataclasses.replace(result, loss_parts=found)


class _DivergedError(Exception):
    """Ends the run before a bad step, with on_divergence = "end"."""


def _size(stage: CurriculumStage) -> dict[str, Any]:
    return {} if stage.size is None else {"size": stage.size, "length": stage.source.length}


def _by_kind(taken: StepTaken, judged: Judged) -> dict[str, Any]:
    """The losses of corpus rows and of procedural rows; empty if the step does not measure them separately."""
    if taken.procedural is None:
        return {}
    parts = {
        "corpus_loss": (judged.loss - judged.procedural, taken.targets - taken.procedural),
        "procedural_loss": (judged.procedural, taken.procedural),
    }
    return {name: share * taken.targets / targets for name, (share, targets) in parts.items() if targets}


def _stopped_by(objection: Objection, step: int, run: RunFolder, engine: Engine) -> str:
    kept = f"a checkpoint from before it, of step {step}, is in {run.path}" if step else "it was the first step"
    if engine.steps_early:
        kept = (
            f"{engine.layout} detected it only after the step; the last checkpoint in {run.path}, if any, is from "
            "before it"
        )
    return f"{objection.words()} at step {step + 1}; {kept}; {objection.advice()}"
