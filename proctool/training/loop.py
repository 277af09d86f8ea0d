"""The training loop. Warm-up, pretraining and diagnostics differ in source, initial weights and schedule only."""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from proctool import artifact
from proctool.artifact import Artifact
from proctool.errors import Interrupted, RunError
from proctool.procedural.registry import Samples
from proctool.training.early_stop import EarlyStop
from proctool.training.evaluate import Scores, evaluate
from proctool.training.loss import Batch, TargetLoss
from proctool.training.optimiser import make_optimiser, optimiser_tensors, restore_optimiser
from proctool.training.options import TrainingOptions
from proctool.training.run import Event, RunFolder
from proctool.training.schedule import learning_rate
from proctool.training.sources import Source, read_ahead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SKIP_COMPILE_FAILURE = "torch.compile does not work here ({reason}); going on without it"


@dataclass(frozen=True)
class Result:
    """A completed run. `seconds` counts every sitting of a resumed one."""

    step: int
    tokens: int
    seconds: float
    scores: Scores


def train(
    model: PreTrainedModel, source: Source, held_out: Source, options: TrainingOptions, run: RunFolder, start: Event
) -> Result:
    """Train `model` in place for `options.steps` steps, recording events (`start` first) and checkpoints in `run`.

    Goes on from the folder's latest checkpoint: with the same settings on the same hardware, the weights end as
    those of a run that was never stopped, bit for bit. Raises Interrupted after a checkpoint when a SIGTERM or
    Ctrl-C comes, RunError when the loss is no longer finite.
    """
    accelerator = Accelerator(mixed_precision={"fp32": "no"}.get(options.precision, options.precision))
    if options.batch_size % (options.accumulate * accelerator.num_processes):
        raise RunError(
            f"batch_size = {options.batch_size}: not a multiple of {options.accumulate} micro-batches "
            f"on {accelerator.num_processes} processes"
        )
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    module = TargetLoss(model)
    optimiser = make_optimiser(module, lr=options.lr, weight_decay=options.weight_decay, beta2=options.beta2)
    torch.manual_seed(options.seed * accelerator.num_processes + accelerator.process_index)  # dropout
    saved = run.latest()
    first, seconds_before = _restore(saved, module, optimiser, accelerator) if saved else (0, 0.0)
    early = EarlyStop(options.until, options.patience)
    if saved:
        early.best, early.waited = saved.about["best"] or math.inf, saved.about["waited"]
    prepared, optimiser = accelerator.prepare(module, optimiser)
    run.begin(first)
    run.record({"event": "resume", "step": first} if saved else start)
    if options.compile:
        _compile(model, source, options, accelerator, run)

    started = time.monotonic() - seconds_before
    tokens_per_step = options.batch_size * source.length
    micro = options.batch_size // (options.accumulate * accelerator.num_processes)
    scores: Scores | None = None

    def note_scores(step: int) -> Scores:
        found = evaluate(accelerator, module, held_out, options.eval_samples, max(1, min(micro, options.eval_samples)))
        run.record(
            {
                "event": "eval",
                "step": step,
                "tokens": step * tokens_per_step,
                "split": "validation",
                "loss": found.loss,
                "accuracy": found.accuracy,
                "exact_match": found.exact_match,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
        return found

    def checkpoint(step: int) -> None:
        randoms = gather_object([torch.get_rng_state()])
        if accelerator.is_main_process:
            tensors = {f"model/{name}": parameter for name, parameter in module.model.named_parameters()}
            tensors |= {f"optimiser/{k}": v for k, v in optimiser_tensors(module, optimiser.optimizer).items()}
            tensors |= {f"random/{rank}": state for rank, state in enumerate(randoms)}
            if accelerator.scaler is not None:
                tensors["scaler"] = torch.tensor([accelerator.scaler.get_scale()])
            best = early.best if math.isfinite(early.best) else None  # JSON has no infinity
            state = {"seconds": round(time.monotonic() - started, 3), "best": best, "waited": early.waited}
            run.save(step, tensors, state, options.keep_checkpoints)

    done = first
    if first == 0:
        scores = note_scores(0)
    recent_time, recent_step = time.monotonic(), first
    with _stop_signals() as stop:
        for step, samples in enumerate(read_ahead(source, first, options.steps, options.batch_size), start=first):
            rate = learning_rate(
                step, steps=options.steps, peak=options.lr, schedule=options.schedule,
                ramp_steps=options.ramp_steps, final=options.final_lr,
            )  # fmt: skip
            for group in optimiser.param_groups:
                group["lr"] = rate
            total = int(samples.targets[:, 1:].sum())
            loss = torch.zeros((), device=accelerator.device)
            for part in _shares(samples, micro, accelerator):
                batch = Batch.of(part, accelerator.device)
                # DDP averages over processes; the loss is a mean over all targets of the step.
                summed = prepared(batch.tokens, batch.positions, batch.labels) / max(total, 1)
                accelerator.backward(summed * accelerator.num_processes)
                loss += summed.detach()
            norm = accelerator.clip_grad_norm_(module.parameters(), options.clip or math.inf)
            optimiser.step()
            optimiser.zero_grad()

            done = step + 1
            if done % options.log_every == 0 or done == options.steps:
                value = float(accelerator.reduce(loss))
                if not math.isfinite(value):
                    raise RunError(_not_finite(value, done, run))
                now = time.monotonic()
                run.record(
                    {
                        "event": "train",
                        "step": done,
                        "tokens": done * tokens_per_step,
                        "loss": value,
                        "lr": rate,
                        "grad_norm": float(norm),
                        "tokens_per_second": round((done - recent_step) * tokens_per_step / (now - recent_time)),
                        "seconds": round(now - started, 3),
                    }
                )
                recent_time, recent_step = now, done
            if done % options.eval_every == 0 or done == options.steps:
                before = time.monotonic()
                scores = note_scores(done)
                recent_time += time.monotonic() - before  # evaluations do not count against the speed
                if (reason := early.sees(scores)) and done < options.steps:
                    run.record({"event": "note", "step": done, "note": f"stopping at step {done}: {reason}"})
                    break
            stopping = done < options.steps and _agreed(stop, done, options, accelerator)
            if stopping or (done < options.steps and done % options.checkpoint_every == 0):
                checkpoint(done)
            if stopping:
                raise Interrupted(
                    f"stopped at step {done} of {options.steps} with a checkpoint in {run.path}; "
                    f"to go on, run again: {_command()}"
                )
    assert scores is not None, "the last step is always evaluated"
    return Result(done, done * tokens_per_step, time.monotonic() - started, scores)


def _restore(
    saved: Artifact, module: TargetLoss, optimiser: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[int, float]:
    tensors = artifact.read_torch(saved, check=False)  # `latest` has just checked every hash

    def under(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    with torch.no_grad():
        for name, tensor in under("model/").items():
            module.model.get_parameter(name).copy_(tensor)
    restore_optimiser(module, optimiser, under("optimiser/"))
    randoms = under("random/")
    if len(randoms) != accelerator.num_processes:
        raise RunError(
            f"{saved.path}: made by {len(randoms)} processes, resumed by {accelerator.num_processes}; "
            "use as many, or --resume never"
        )
    torch.set_rng_state(randoms[str(accelerator.process_index)].clone())
    if accelerator.scaler is not None and "scaler" in tensors:
        accelerator.scaler.update(float(tensors["scaler"]))
    return int(saved.about["step"]), float(saved.about["seconds"])


def _shares(samples: Samples, micro: int, accelerator: Accelerator) -> Iterator[Samples]:
    """This process's micro-batches of a step's samples."""
    for start in range(accelerator.process_index * micro, len(samples), accelerator.num_processes * micro):
        yield Samples(samples.tokens[start : start + micro], samples.targets[start : start + micro])


def _compile(
    model: PreTrainedModel, source: Source, options: TrainingOptions, accelerator: Accelerator, run: RunFolder
) -> None:
    """Compile the body in place (the head's input varies in size), after a trial step that leaves no trace."""
    body = model.base_model
    try:
        body.compile()
        trial = Batch.of(
            source.read(0, options.batch_size // (options.accumulate * accelerator.num_processes)), accelerator.device
        )
        with torch.random.fork_rng(), accelerator.autocast():
            TargetLoss(model)(trial.tokens, trial.positions, trial.labels).backward()
    except Exception as error:  # compilers fail in many ways
        body._compiled_call_impl = None
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        run.record({"event": "note", "note": _SKIP_COMPILE_FAILURE.format(reason=reason)})
    model.zero_grad()


def _not_finite(value: float, step: int, run: RunFolder) -> str:
    saved = run.latest()
    kept = f"the checkpoint of step {saved.about['step']} is kept" if saved else "there is no checkpoint yet"
    return (
        f"the loss is {value} at step {step}; {kept} in {run.path}; lower --lr, or raise --ramp-steps or lower --clip"
    )


def _agreed(stop: _Stop, done: int, options: TrainingOptions, accelerator: Accelerator) -> bool:
    """Whether to stop now. Signals reach processes at different steps, so several agree when they meet to log."""
    if accelerator.num_processes == 1:
        return bool(stop)
    if done % options.log_every:
        return False
    return bool(accelerator.reduce(torch.tensor(float(stop.came), device=accelerator.device)) > 0)


class _Stop:
    """True once a stop signal has come; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.came = False

    def __bool__(self) -> bool:
        return self.came

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = True


class _stop_signals:
    """SIGTERM and SIGINT set a flag instead of killing the process, while the block lasts."""

    def __enter__(self) -> _Stop:
        stop = _Stop()
        self._before: Mapping[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
            self._before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return stop

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _command() -> str:
    return "proctool " + shlex.join(sys.argv[1:])
