"""The distributed launch of this process: the number of processes, and the rank of this one."""

from __future__ import annotations

import os
from dataclasses import dataclass

from proctool.errors import RunError

_NEEDED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")
_START = "start with torchrun or accelerate launch"
# Variables that MPI sets and Accelerate reads: the number of processes, and the rank of this one.
_MPI = {
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
}


@dataclass(frozen=True)
class LaunchedProcess:
    """The number of processes of a launch, and the rank of this one."""

    processes: int = 1
    rank: int = 0

    @property
    def speaks(self) -> bool:
        """Whether this process prints messages and writes files."""
        return self.rank == 0


def launch() -> LaunchedProcess:
    """The launch set by torchrun, accelerate launch or the user. Raises RunError if the variables do not fit."""
    size, rank, local = _number("WORLD_SIZE", 1), _number("RANK"), _number("LOCAL_RANK")
    if (size or 1) == 1 and not rank and local is None:
        for name, of in _MPI.items():
            if (_number(name, 1) or 1) > 1 and of not in os.environ:
                raise RunError(f"{name}={os.environ[name]} without {of}; {_START}, or unset {name}")
        return LaunchedProcess()  # a single process needs no other variable, and clusters set these two
    given = [name for name in _NEEDED if name in os.environ]
    if missing := [name for name in _NEEDED if name not in os.environ]:
        said = ", ".join(f"{name}={os.environ[name]}" for name in given if name != "MASTER_ADDR")
        raise RunError(f"{said} without {', '.join(missing)}; {_START}, or unset {' '.join(given)}")
    _number("MASTER_PORT", 1, 65535)
    assert size is not None
    assert rank is not None
    if rank >= size:
        raise RunError(f"RANK={rank} with WORLD_SIZE={size}: ranks are 0 to {size - 1}; {_START}")
    return LaunchedProcess(size, rank)


def _number(name: str, least: int = 0, most: int = 1 << 20) -> int | None:
    written = os.environ.get(name)
    if written is None:
        return None
    if not written.isascii() or not written.isdecimal() or not least <= int(written[:9]) <= most:
        raise RunError(f"{name}={written}: not a number from {least} to {most}; {_START}, or unset {name}")
    return int(written)
