"""What a report says of donors that had to pass a probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proctool.events import TryEvent
from proctool.units import counted


def acceptance_notes(gates: Mapping[str, Mapping[str, Sequence[TryEvent]]]) -> list[str]:
    """A few sentences for each group of arms with the same warm-ups: how many donors were accepted, and the cost.

    `gates` has, by arm, the tries of each of its warm-ups (one for each seed) by the warm-up's key.
    """
    arms: dict[tuple[str, float, tuple[str, ...]], list[str]] = {}
    for arm, warmups in gates.items():
        probes: dict[tuple[str, float], list[str]] = {}
        for key, tries in warmups.items():
            probes.setdefault((tries[0].diagnostic, tries[0].above), []).append(key)
        for probe, keys in probes.items():
            arms.setdefault((*probe, tuple(keys)), []).append(arm)
    return [
        _note(names, [event for key in keys for event in gates[names[0]][key]]) for (*_, keys), names in arms.items()
    ]


def _note(names: Sequence[str], tries: Sequence[TryEvent]) -> str:
    accepted = [event for event in tries if event.is_accepted]
    rejected = [event for event in tries if not event.is_accepted]
    were = "was" if len(accepted) == 1 else "were"
    said = (
        f"{', '.join(names)}: {len(accepted)} of {counted(len(tries), 'donor')} {were} accepted "
        f"by a probe on {tries[0].diagnostic} (accuracy of at least {tries[0].above:.1%}; {_seen('accepted', accepted)}"
    )
    said += f"; {_seen('rejected', rejected)})." if rejected else ")."
    return (
        f"{said} The warm-up's tokens count every donor and every probe. Probes train and score on their own "
        "samples, not on those of the diagnostic."
    )


def _seen(what: str, tries: Sequence[TryEvent]) -> str:
    """`accepted: 31.0%, 54.2%`."""
    return f"{what}: {', '.join(f'{event.accuracy or 0.0:.1%}' for event in tries)}"
