"""A run's events as JSON objects, for tests that compare them by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proctool.events import read_events, to_json


def event_lines(folder: Path) -> list[dict[str, Any]]:
    """The events in a run folder's metrics.jsonl."""
    return [to_json(event) for event in read_events(folder)]
