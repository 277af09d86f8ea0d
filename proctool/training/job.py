"""A training command from options to artifact. Warm-up, pretraining and diagnostics share this."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import artifact
from proctool.artifact import Artifact
from proctool.errors import ArtifactError, ModelError
from proctool.events import EndEvent, Evaluation, Event, StartEvent
from proctool.models.build import build_model, outline, parameter_count, require_context
from proctool.models.components import train_only
from proctool.models.flops import training_flops
from proctool.models.heads import head_map
from proctool.models.memory import single_moments
from proctool.models.mimetic import make_mimetic
from proctool.models.saved import save_model, tensors_of, without_folders
from proctool.training import environment
from proctool.training.carried_state import carried_state, parameters_of
from proctool.training.claim import Outlook, outlook
from proctool.training.curriculum import Curriculum
from proctool.training.extension import EXTENDED_FROM, keeps_state, note
from proctool.training.head_tracker import HeadTracker, induction_heads
from proctool.training.identity import Identity
from proctool.training.mixed import procedural_tokens
from proctool.training.optimiser import require_optimiser
from proctool.training.options import TrainingOptions
from proctool.training.run import RunFolder
from proctool.training.run_place import earlier_run_path, outputs_of, run_path
from proctool.training.runlog import run_log
from proctool.training.sources import Source, held_out_samples
from proctool.training.step_cut import cut_for, is_chosen, planned_memory, require_possible
from proctool.training.trackers import check_trackers, tracked
from proctool.transplantation import Origin, records, summary
from proctool.units import counted, format_bytes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from proctool.training.loop import Result
    from proctool.training.loss import TargetLoss


@dataclass
class Job:
    """Everything that a training run needs. The options are checked; nothing is written yet."""

    command: str
    options: TrainingOptions
    config: PretrainedConfig
    source: Source
    held_out: Source
    output: Path | None
    metadata: Mapping[str, Any]
    parents: Sequence[Artifact | Mapping[str, Any]] = ()
    prepare: Callable[[PreTrainedModel], list[Origin]] | None = None
    """Changes the fresh model before training, by a transplant."""
    state: Artifact | None = None
    """The donor's training state, whose optimiser state is carried over (default: start fresh)."""
    build: Callable[[PretrainedConfig, int], PreTrainedModel] = build_model
    """Makes a fresh model from a configuration and a seed."""
    loss: Callable[[PreTrainedModel], TargetLoss] | None = None
    """The loss (default: on target tokens, through the model's head)."""
    score: Callable[[Mapping[str, Tensor]], Mapping[str, float | None]] | None = None
    """Scores of the final weights, for the end event."""
    curriculum: Curriculum | None = None
    """A length curriculum that ends with `source` (default: only `source`)."""
    others: Mapping[str, Source] = field(default_factory=dict)
    """Additional validation samples, keyed by the split under which their evaluations are recorded."""
    epochs: float | None = None
    """The number of times that the run sees its corpus."""
    remark: str = ""
    """A note to print before the run, for example that the budget repeats the corpus."""
    by_part: bool = False
    """Whether the end event contains the parts of the loss (for text)."""
    listeners: Sequence[Callable[[Event], None]] = field(default=())

    def __post_init__(self) -> None:
        check_trackers(self.options.track or ())
        require_context(self.config, self.source.length, "a sample")
        if self.source.vocab_size > self.config.vocab_size:
            raise ModelError(
                f"the data's vocabulary of {self.source.vocab_size} does not fit the model's {self.config.vocab_size}"
            )
        outlined = functools.partial(outline, self.config, self.build)
        # Check these before a run folder is made.
        if self.options.train is not None:
            train_only(outlined(), self.options.train)
        require_optimiser(self.options, outlined)
        if self.options.init_attention is not None:
            head_map(outline(self.config))

    @property
    def run_path(self) -> Path:
        """The run's folder: next to the output, or where an earlier version of proctool began the run."""
        earlier = earlier_run_path(self.options, self.output, self._settings())
        return earlier or run_path(self.command, self.options, self.output)

    @property
    def _tokens(self) -> int:
        return self.options.steps * self.options.batch_size * self.source.length

    def plan(self) -> dict[str, Any]:
        """The content of a dry run: sizes, costs, and what would be carried over."""
        model, origins, trained = self._initial()
        planned: dict[str, Any] = {
            "command": self.command,
            "parameters": parameter_count(model),
            "steps": self.options.steps,
            "tokens": self._tokens,
            **self._procedural(self.options.steps),
            "flops": training_flops(model, self._tokens, self.source.length),
            "trained": trained,
            "state_bytes": self._state_bytes(model, trained) + 4 * trained,  # with gradients
            **planned_memory(self.options, model, self.source.length),
            "run_dir": str(self.run_path),
            "output": str(self.output) if self.output else None,
            **self.source.metadata(),
        }
        if remarks := self._remarks():
            planned["remark"] = "; ".join(remarks)
        if self.epochs:
            planned["epochs"] = round(self.epochs, 2)
        if origins:
            planned["carried"] = records(summary(origins))
        return planned

    def _state_bytes(self, model: PreTrainedModel, trained: int) -> int:
        """Bytes of a training state: fp32 weights, and the moments of trained weights."""
        single = single_moments(model, self.options.optimizer)
        return 4 * parameter_count(model) + 8 * trained - 4 * single

    def _procedural(self, steps: int) -> dict[str, Any]:
        """Procedural tokens in the first `steps` steps; None without a mix."""
        found = procedural_tokens(self.source, steps * self.options.batch_size)
        return {} if found is None else {"procedural_tokens": found}

    @property
    def _eval_samples(self) -> int:
        return held_out_samples(self.held_out, self.options.eval_samples)

    def _remarks(self) -> list[str]:
        """Notes to print before the run."""
        remarks = [self.remark] if self.remark else []
        if self._eval_samples < self.options.eval_samples:
            remarks.append(
                f"the validation split has {counted(self._eval_samples, 'sample', exact=True)}, "
                f"fewer than --eval-samples {self.options.eval_samples}; all of them are scored"
            )
        return remarks

    def _initial(self) -> tuple[PreTrainedModel, list[Origin], int]:
        """The model before its first step, the origins of its weights, and the number of trained weights."""
        model = self.build(self.config, self.options.seed)
        if self.options.init_attention == "mimetic":
            make_mimetic(model, self.options.seed)
        origins = self.prepare(model) if self.prepare else []
        trained = parameter_count(model) if self.options.train is None else train_only(model, self.options.train)
        return model, origins, trained

    def _identity(self, options: TrainingOptions) -> Identity:
        return Identity(self.command, options, self.source.metadata(), self.parents)

    def _settings(self) -> dict[str, Any]:
        return self._identity(self.options).settings()

    def _require_own_outputs(self) -> None:
        self._identity(self.options).require_own_outputs(self.output, self.run_path)

    def outlook(self) -> Outlook:
        """What `run` would do with the run that is in its folder. Raises OSError."""
        try:
            self._require_own_outputs()
        except ArtifactError as error:
            return Outlook("refuse", reason=str(error))
        return outlook(self.run_path, self._settings(), self.options, self.output)

    def run(self) -> EndEvent:
        """Train and write the artifact, or resume, or do nothing if the run is done. Returns the end event."""
        from proctool.training.determinism import deterministic

        with deterministic(self.options.deterministic):
            return self._run()

    def _run(self) -> EndEvent:
        from proctool.training.devices import end_process, start_process

        self._require_own_outputs()
        settings, fresh = self._settings(), self.options.resume == "never"
        process = start_process()
        with process.main_process_first():  # it creates or checks the folder; the others only read it
            run = RunFolder(
                self.run_path, settings, fresh=fresh, extend=self.options.extend, writer=process.is_main_process
            )
        try:
            run.listeners.extend(self.listeners if process.is_main_process else ())
            with run_log(run, settings):
                if run.path != run_path(self.command, self.options, self.output):
                    run.say(f"using {run.path}, where an earlier version of proctool began this run")
                end = self._finished(run) or self._train(run, settings)
            end_process()
            return end
        finally:
            run.close()

    def _finished(self, run: RunFolder) -> EndEvent | None:
        if (last := run.last_end(self.output)) is None:
            return None
        run.say(f"already complete in {run.path}")
        # The folder and the files may have been moved since.
        files: dict[str, Any] = {
            f"{prefix}artifact": str(path) for _, path, prefix in outputs_of(self.options, self.output)
        }
        return dataclasses.replace(last, run_dir=str(run.path), **files)

    @contextlib.contextmanager
    def _outputs_held(self, writer: bool) -> Iterator[None]:
        """Lock the names of the files that this run will write at its end. Raises ArtifactError."""
        with contextlib.ExitStack() as held:
            for _, path, _ in outputs_of(self.options, self.output) if writer else []:
                held.enter_context(artifact.output(path))
            yield

    def _train(self, run: RunFolder, settings: Mapping[str, Any]) -> EndEvent:
        import torch
        from accelerate import PartialState

        from proctool.models.faster import faster
        from proctool.training.compiling import compile_chosen
        from proctool.training.devices import losing_peers_is_one_line
        from proctool.training.heap import freed_memory_kept
        from proctool.training.loop import train

        model, origins, trained = self._initial()
        flops, device = training_flops(model, self._tokens, self.source.length), PartialState().device
        size = self._state_bytes(model, trained)
        keeps = keeps_state(self.options.keep_state, size)
        options = dataclasses.replace(compile_chosen(self.options, flops), keep_state=keeps)
        cut = cut_for(options, model, self.source.length, device, run.events())
        require_possible(cut, model, self.source.length, device)
        if is_chosen(options) and not cut.fits:
            run.say("the run may run out of memory: its estimate is more than the memory that is free now")
        compiles = bool(options.compile) or torch.cuda.is_available()  # the loss is compiled there
        surroundings = environment.found(options.precision, compiles, options.deterministic)
        for line in [*surroundings.lines, *self._remarks()]:
            run.say(line)
        if run.extended_from and (said := note(settings, run.extended_from)):
            run.say(said)
        elif not keeps:
            run.say(f"the final training state ({format_bytes(size)}) is not kept; --keep-state keeps it for --extend")
        if self.options.track_heads and run.is_writer:
            run.listeners.append(HeadTracker(model, self.held_out, run))
        state: dict[str, torch.Tensor] = {}
        if self.state is not None:
            state = carried_state(self.state, model, origins, self.options.optimizer)
            run.say(f"{parameters_of(state, model)} of {trained} parameters start with the donor's optimiser state")
        metadata = self.source.metadata()
        start = StartEvent(
            command=self.command,
            steps=self.options.steps,
            tokens_per_step=self.options.batch_size * self.source.length,
            parameters=parameter_count(model),
            trained=trained,
            flops=flops,
            carried=records(summary(origins)),
            state_carried=None if self.state is None else parameters_of(state, model),
            seed=metadata.get("seed", self.options.seed),
            eval_samples=self._eval_samples,
            environment=dict(surroundings.recorded) if surroundings.recorded else None,
            micro_batch=cut.micro_batch if is_chosen(self.options) else None,
            gradient_checkpointing=cut.gradient_checkpointing if is_chosen(self.options) else None,
            metadata={key: value for key, value in metadata.items() if key != "seed"},
        )
        curriculum = self.curriculum or Curriculum.fixed(self.source, self.held_out)
        with contextlib.ExitStack() as signals_held:
            with (
                self._outputs_held(run.is_writer),
                faster(model, lean=cut.lean_mlp),
                freed_memory_kept() if device.type == "cpu" else contextlib.nullcontext(),
                tracked(run, self.options.track or (), settings),
                losing_peers_is_one_line(),
            ):
                settled, others = cut.applied(options), self.others
                result = train(
                    model, curriculum, settled, run, start, self.loss, others, signals_held, self.by_part, state
                )
            return self._completed(run, model, origins, result, options)

    def _completed(
        self, run: RunFolder, model: PreTrainedModel, origins: list[Origin], result: Result, options: TrainingOptions
    ) -> EndEvent:
        """Write the artifacts of a run that has ended, and record the end event. Returns it."""
        last = result.scores.at(result.step, result.tokens)
        best = result.best or last
        # If the curriculum did not finish, the model has never seen samples of the full size.
        trained_size = {} if result.size is None else {"trained_size": result.size}

        def weights_at(found: Evaluation) -> Mapping[str, Tensor]:
            return result.weights if found is last else artifact.read_torch(run.best(found.step))

        written: dict[str, Any] = {}
        for which, path, prefix in outputs_of(self.options, self.output) if run.is_writer else []:
            found = best if which == "best" else last
            metadata = {
                "steps": found.step,
                "tokens": found.tokens,
                **self._procedural(found.step),
                "metrics": {"loss": found.loss if math.isfinite(found.loss) else None, "accuracy": found.accuracy},
                "carried": records(summary(origins)),
                **trained_size,
                **({EXTENDED_FROM: [each["step"] for each in run.extended_from]} if run.extended_from else {}),
                **self._identity(options).described(),
                **self.metadata,
            }
            made = save_model(path, model, without_folders(metadata), self.parents, weights=weights_at(found))
            written |= {f"{prefix}artifact": str(path), f"{prefix}content": made.content}
        saved = best if self.options.save == "best" else last
        is_scored = run.is_writer and not result.diverged
        end = EndEvent(
            command=self.command,
            step=result.step,
            tokens=result.tokens,
            **self._procedural(result.step),
            loss=saved.loss,
            accuracy=saved.accuracy,
            exact_match=saved.exact_match,
            trained_size=result.size,
            best=best if self.options.save in ("best", "both") else None,
            diverged=True if result.diverged else None,
            extensions=len(run.extended_from),
            loss_parts=result.loss_parts,
            induction=induction_heads(run.events()) if self.options.track_heads else None,
            scores=self.score(tensors_of(model, weights_at(saved))) if is_scored and self.score else None,
            seconds=round(result.seconds, 3),
            run_dir=str(run.path),
            **written,
        )
        run.record(end)
        run.complete(result.step)
        return end
