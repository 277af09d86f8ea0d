"""How a stage's command line is started: plainly, or by torchrun over several processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from proctool.experiment.stage import Stage
from proctool.recipe import Launch

PROCTOOL = (sys.executable, "-m", "proctool")


def accelerated() -> bool:
    """Whether this machine has a GPU or the like; asked without torch."""
    return sys.platform == "darwin" or Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


def started(stage: Stage, launch: Launch, command: Sequence[str] = PROCTOOL) -> tuple[str, ...]:
    """What stands before the stage's own words, where `command` starts proctool in one process."""
    if launch.processes == 1 or not stage.trains:
        return tuple(command)
    # Not by accelerate, which starts a single process where there is no GPU.
    return (command[0], "-m", "torch.distributed.run", *_processes(launch))


def written(stage: Stage, root: Path, launch: Launch) -> list[str]:
    """The same for a script on a machine of its own, with its accelerators."""
    if launch.processes == 1 or not stage.trains:
        return ["proctool", *stage.argv(root)]
    return ["torchrun", *_processes(launch), *stage.argv(root)]


def _processes(launch: Launch) -> tuple[str, ...]:
    # `standalone` takes a free port, so that several stages of one machine do not meet.
    return "--standalone", "--nproc_per_node", str(launch.processes), "-m", "proctool"
