"""Runs under DeepSpeed ZeRO, which shards the optimiser, gradients (stage 2) and weights (stage 3) over processes.

The launch's DeepSpeed configuration is passed through, but proctool's options set batch size, accumulation, clipping,
optimiser and schedule. DeepSpeed's own checkpoints are pickles. proctool therefore gathers what DeepSpeed's optimiser
holds (each process's shard of the fp32 weights and of their moments) into one artifact.
Source: Rajbhandari et al. 2020, "ZeRO: memory optimizations toward training trillion parameter models", section 5.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from proctool.errors import RunError
from proctool.training.background import HostCopies
from proctool.training.batch import AnyBatch
from proctool.training.engine import Engine, shares_of
from proctool.training.environment import flag
from proctool.training.loss import TargetLoss
from proctool.training.options import TrainingOptions

if TYPE_CHECKING:
    from accelerate import Accelerator

_AT_ONCE = 1 << 26
"""Numbers to gather from each process at once."""
_NO_SECTIONS = "zero_optimization, offload_..., bf16 and fp16 are sections with names and values"


def is_asked() -> bool:
    """Whether the launch asks for DeepSpeed. proctool does not pass this on: Accelerate joins processes as for DDP."""
    return flag("ACCELERATE_USE_DEEPSPEED")


class ZeroEngine(Engine):
    """A run whose state DeepSpeed shards. Raises RunError for an unsupported configuration."""

    steps_early = True  # DeepSpeed reports the norm only after its step

    def __init__(
        self, accelerator: Accelerator, module: TargetLoss, optimiser: torch.optim.Optimizer, options: TrainingOptions
    ) -> None:
        self.accelerator, self.module = accelerator, module
        config = _configuration(options, accelerator)
        self.layout = f"ZeRO {config['zero_optimization']['stage']}"
        # Stage 3 gathers the head's weights for each call, so all processes must call the head equally often.
        module.in_chunks = self.layout != "ZeRO 3"
        with _quietly():
            import deepspeed

            try:
                self._deepspeed, self._stepper, *_ = deepspeed.initialize(
                    model=module, optimizer=optimiser, config=config, dist_init_required=False
                )
            except (ValueError, AssertionError) as error:  # from checks of the configuration
                said = " ".join(str(error).split())
                raise RunError(f"DeepSpeed rejects its configuration: {said[:300]}") from None
        self.optimiser = self._deepspeed.basic_optimizer

    def add_gradients(self, batch: AnyBatch, targets: int | Tensor, is_last: bool) -> Tensor:
        """As in Engine. Stages 2 and 3 reduce gradients after each micro-batch."""
        self._deepspeed.set_gradient_accumulation_boundary(is_last)
        with self.accelerator.autocast():
            share, told = shares_of(self._deepspeed(*batch), targets)
        self._deepspeed.backward(share * self.accelerator.num_processes)
        return told

    def clip_or_step(self, limit: float | None) -> Tensor:
        """Take the step, clipping to the limit in DeepSpeed's configuration. Returns the norm before clipping."""
        self._deepspeed.step()
        return torch.as_tensor(self._deepspeed.get_global_grad_norm(), device=self.accelerator.device)

    def step(self, hold: Tensor | None = None) -> None:
        """Do nothing: `clip_or_step` has taken the step."""

    # -- state --

    def weights(self, copies: HostCopies | None = None) -> dict[str, Tensor]:
        """The model's full parameters in fp32, on the CPU. Empty on all processes but the first."""
        tensors = ((name, self._full(parameter)) for name, parameter in self._parameters())
        return self._on_first("model/", tensors, copies)

    def _full(self, parameter: torch.nn.Parameter) -> Tensor:
        import deepspeed

        if parameter.requires_grad:
            return deepspeed.utils.safe_get_full_fp32_param(parameter)  # type: ignore[no-any-return]
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            return parameter.detach().clone()

    def optimiser_state(self, copies: HostCopies | None = None) -> dict[str, Tensor]:
        """Shards of the fp32 weights and of their moments by NUMBER/KEY, a row per process: (processes, N)."""
        found = {}
        for number, part in enumerate(self._parts()):
            for key, value in {"weights": part.detach(), **self.optimiser.state.get(part, {})}.items():
                value = torch.as_tensor(value)
                rows = self._rows(value) if value.dim() else value.cpu()
                if self.accelerator.is_main_process:
                    found[f"{number}/{key}"] = copies.take(f"optimiser/{number}/{key}", rows) if copies else rows
        return found

    def _rows(self, mine: Tensor) -> Tensor:
        """Gather each process's tensor (N,) as rows (processes, N), on the CPU of the first process."""
        rows = []
        for piece in torch.split(mine, _AT_ONCE):
            gathered = self.accelerator.gather(piece.to(self.accelerator.device)[None])
            if self.accelerator.is_main_process:
                rows.append(gathered.cpu())
        return torch.cat(rows, dim=1) if rows else mine

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor], optimiser_state: Mapping[str, Tensor]) -> None:
        """Restore what `weights` and `optimiser_state` returned. Every process passes all tensors. Raises RunError."""
        import deepspeed

        for name, parameter in self._parameters():
            # In stage 3, the first process's change is sent to all.
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=hasattr(parameter, "ds_id")):
                if parameter.numel():
                    parameter.copy_(weights[name])
        parts = self._parts()
        for name, value in optimiser_state.items():
            number, _, key = name.partition("/")
            part = parts[int(number)] if int(number) < len(parts) else None
            row = value[self.accelerator.process_index] if value.dim() else value
            if part is None or (row.dim() and row.shape != part.shape):
                raise RunError(
                    "the checkpoint was made with another DeepSpeed configuration and another sharding layout; "
                    "launch as before, or use --resume never"
                )
            row = row.to(part.device)
            if key == "weights":
                part.copy_(row)
            else:
                self.optimiser.state[part][key] = row.clone()

    def _parts(self) -> list[Tensor]:
        """This process's shards of the fp32 weights, as the optimiser holds them."""
        parts = getattr(self._deepspeed.optimizer, "fp32_partitioned_groups_flat", None)  # stage 3
        if parts is not None:
            return list(parts)
        return [part for group in self.optimiser.param_groups for part in group["params"]]


def _configuration(options: TrainingOptions, accelerator: Accelerator) -> dict[str, Any]:
    """The launch's DeepSpeed configuration, completed by the run's options. Raises RunError if they contradict it."""
    if not torch.distributed.is_initialized():
        raise RunError("DeepSpeed needs a launcher; start with accelerate launch or torchrun")
    try:
        with _quietly():
            import deepspeed  # noqa: F401
            from accelerate.utils import DeepSpeedPlugin

            config: dict[str, Any] = DeepSpeedPlugin().deepspeed_config
    except ImportError:
        raise RunError("DeepSpeed is not installed; run pip install deepspeed") from None
    except (ValueError, OSError) as error:
        raise RunError(f"the DeepSpeed configuration: {error}") from None
    except (AttributeError, TypeError):
        raise RunError(f"the DeepSpeed configuration: {_NO_SECTIONS}") from None
    if not all(isinstance(config.get(name, {}), dict) for name in ("zero_optimization", "bf16", "fp16")):
        raise RunError(f"the DeepSpeed configuration: {_NO_SECTIONS}")
    for section, instead in (("optimizer", "--lr, --beta2, --weight-decay"), ("scheduler", "--schedule")):
        if section in config:
            raise RunError(f"the DeepSpeed configuration has {section}, which options set ({instead}); remove it")
    zero = config["zero_optimization"] = {k: v for k, v in config["zero_optimization"].items() if v != "auto"}
    if zero.get("stage") not in (1, 2, 3):
        raise RunError(
            f"zero_optimization.stage = {zero.get('stage')} in the DeepSpeed configuration: must be 1, 2 or 3; without "
            "sharding, launch for DDP"
        )
    if any(zero.get(f"offload_{what}", {}).get("device") == "nvme" for what in ("optimizer", "param")):
        raise RunError("the DeepSpeed configuration offloads to nvme, which cannot be checkpointed; use cpu")
    share = options.samples_at_once(accelerator.num_processes)
    own = {
        "train_batch_size": (options.batch_size, "--batch-size"),
        "train_micro_batch_size_per_gpu": (share, "--batch-size and --accumulate"),
        "gradient_accumulation_steps": (options.accumulate, "--accumulate"),
        "gradient_clipping": (options.clip or 0.0, "--clip"),
    }
    for key, (value, option) in own.items():
        given = config.pop(key, "auto")
        if given not in ("auto", value) and (key, given) != ("gradient_accumulation_steps", 1):
            raise RunError(
                f'{key} = {given} in the DeepSpeed configuration, but {value} by {option}; write "auto" there'
            )
    # The loop accumulates; it tells DeepSpeed which micro-batch is the last of a step.
    config |= {"train_micro_batch_size_per_gpu": share, "gradient_clipping": options.clip or 0.0}
    # DeepSpeed's CPU Adam accumulates powers of beta step by step, so a resumed run would get different bits.
    config |= {"gradient_accumulation_steps": 1, "zero_force_ds_cpu_optimizer": False}
    for half in ("bf16", "fp16"):
        section = config.get(half, {})
        if section.get("enabled") == "auto":
            section["enabled"] = options.precision == half
        if section.get("enabled") and options.precision != half:
            raise RunError(f"{half} is enabled in the DeepSpeed configuration; give --precision {half} too")
    if options.precision == "fp16":
        raise RunError("precision = fp16: not supported with DeepSpeed; use bf16")
    if options.compile:
        raise RunError("compile: not supported with DeepSpeed; leave it out")
    if options.train is not None and config.get("bf16", {}).get("enabled"):
        raise RunError("train: bf16 in the DeepSpeed configuration would round the frozen weights; remove it there")
    return config


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep DeepSpeed's prints and logs out of the standard output, which is for the command's results."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        yield
        logger = logging.getLogger("DeepSpeed")  # the import resets its level
        logger.setLevel(logging.ERROR)
