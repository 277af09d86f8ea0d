"""How a stage's command line is started: directly, or by torchrun with several processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from proctool.experiment.stage import Stage
from proctool.recipe import Launch

PROCTOOL = (sys.executable, "-m", "proctool")


def accelerated() -> bool:
    """Whether this machine has an accelerator; checked without torch."""
    return sys.platform == "darwin" or Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


def started(stage: Stage, launch: Launch, command: Sequence[str] = PROCTOOL) -> tuple[str, ...]:
    """The words before the stage's arguments; `command` starts proctool in one process."""
    if launch.processes == 1 or not stage.trains:
        return tuple(command)
    # Not accelerate: it starts a single process on a machine without GPU.
    return (command[0], "-m", "torch.distributed.run", *_processes(launch))


def written(stage: Stage, root: Path, launch: Launch) -> list[str]:
    """The same for a script that has a machine and its accelerators for itself."""
    if launch.processes == 1 or not stage.trains:
        return ["proctool", *stage.argv(root)]
    return ["torchrun", *_processes(launch), *stage.argv(root)]


def _processes(launch: Launch) -> tuple[str, ...]:
    # `standalone` takes a free port, so that stages on one machine do not collide.
    return "--standalone", "--nproc_per_node", str(launch.processes), "-m", "proctool"
