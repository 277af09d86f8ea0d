"""`stopped.json`: the seeds of arms that `stop_hopeless` left out, and why (experiment/hopeless.py decides)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proctool import artifact, config
from proctool.errors import RunError
from proctool.reporting.interval import Estimate
from proctool.reporting.verdict import joined, with_interval
from proctool.untrusted import parse_json, typed

STOPPED = "stopped.json"


@dataclass(frozen=True, kw_only=True)
class StoppedArm:
    """An arm whose later seeds were left out."""

    arm: str
    seeds: tuple[int, ...]
    """The seeds that were left out."""
    stages: tuple[str, ...]
    """The keys of their stages."""
    loser: str
    """The arm that lost: this one, or the one that it is a control of."""
    over: tuple[int, ...]
    """The seeds that decided."""
    gain: Estimate
    """The baseline's loss minus the loser's over these seeds, in nats per token."""


@dataclass(frozen=True, kw_only=True)
class _Document:
    format: int = 1
    arms: tuple[StoppedArm, ...]


def write_stopped(root: Path, arms: Sequence[StoppedArm]) -> None:
    """Write the file of an experiment; without stopped arms it is removed."""
    path = root / STOPPED
    if not arms:
        path.unlink(missing_ok=True)
        return
    with artifact.replacing(path) as file:
        file.write((json.dumps(config.plain(_Document(arms=tuple(arms))), indent=2) + "\n").encode())


def read_stopped(root: Path) -> tuple[StoppedArm, ...]:
    """The arms that were stopped in an experiment's folder. Raises RunError for a damaged file."""
    path = root / STOPPED
    try:
        found: _Document = typed(_Document, parse_json(path.read_bytes()))
        is_whole = all(each.seeds and each.over for each in found.arms)
    except FileNotFoundError:
        return ()
    except ValueError:
        is_whole = False
    if not is_whole:
        raise RunError(f"{path}: damaged; remove it and run the recipe again to rewrite it")
    return found.arms


def stopped_note(stopped: StoppedArm, baseline: str) -> str:
    """A sentence about a stopped arm."""
    said = f"{stopped.arm}: {_seeds(stopped.seeds)} not run (stop_hopeless)"
    if stopped.loser != stopped.arm:
        return f"{said}, because it is a control of {stopped.loser}, which loses."
    amount = with_interval(stopped.gain.negated, 1, 3, "")
    over = joined([str(seed) for seed in stopped.over], "and")
    return f"{said}: over seeds {over} it ends {amount} nats per token worse than {baseline}."


def _seeds(seeds: Sequence[int]) -> str:
    words = joined([str(seed) for seed in seeds], "and")
    return f"seeds {words} were" if len(seeds) > 1 else f"seed {words} was"
