"""How long a stage takes on planned devices: by its FLOPs, or by the kernels of its steps if those are tiny."""

from __future__ import annotations

from dataclasses import dataclass

from proctool.errors import OptionError
from proctool.experiment.cost import flops, outlined
from proctool.experiment.planned_device import Cpu, Device, peak
from proctool.experiment.stage import Stage
from proctool.training.options import TrainingOptions


@dataclass(frozen=True)
class StageTime:
    """What the time of a stage depends on, except for the number of devices and micro-batches."""

    flops: int
    """Of its own training."""
    rate: float
    """FLOP/s of one device in training."""
    steps: int
    layers: int
    precision: str
    kernel: float
    """Seconds of a kernel that computes nothing."""
    probe: StageTime | None = None
    """The probe of its donor, one micro-batch per step."""

    def floor(self, parts: int) -> float:
        """Seconds that a step of `parts` micro-batches takes at least."""
        from proctool.training.speed import step_kernels

        return step_kernels(self.layers, self.precision, parts) * self.kernel

    def is_at_floor(self, devices: int, parts: int) -> bool:
        """Whether starting the kernels takes longer than the FLOPs."""
        return self.steps * self.floor(parts) > self._computing(devices)

    def seconds(self, devices: int, parts: int) -> float:
        """With the same number of devices for its probe."""
        own = max(self.steps * self.floor(parts), self._computing(devices))
        return own + (0.0 if self.probe is None else self.probe.seconds(devices, 1))

    def _computing(self, devices: int) -> float:
        return self.flops / (self.rate * devices)


def stage_time(stage: Stage, device: Device, mfu: float) -> StageTime:
    """The time of a stage that trains. Raises OptionError if the device lacks its precision."""
    from proctool.training.speed import kernel_seconds

    options, config = stage.options, outlined(stage).config.get_text_config()
    assert isinstance(options, TrainingOptions)
    speed = peak(device, options.precision, config.hidden_size)
    if speed is None:
        raise OptionError(
            f"gpu: {device.name} does not support {options.precision}; plan with fp16 (in a recipe: launch.precision)"
        )
    probe = stage.probe
    return StageTime(
        flops(stage) - (0 if probe is None else flops(probe)), mfu * speed, stage.steps, config.num_hidden_layers,
        options.precision, kernel_seconds("cpu" if isinstance(device, Cpu) else "cuda"),
        None if probe is None else stage_time(probe, device, mfu),
    )  # fmt: skip
