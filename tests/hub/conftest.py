from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.stub import Stub, point_at, serving


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """An empty hub on this machine, with a token that may write."""
    with serving() as stub:
        point_at(monkeypatch, stub.url, tmp_path / "hub-cache")
        yield stub
