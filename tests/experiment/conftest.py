from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proctool import artifact


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny"


@pytest.fixture(scope="session", autouse=True)
def fake_artifact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The file that stages of `fake_proctool.py` write: a whole artifact, made here because imports take time."""
    path = tmp_path_factory.mktemp("fake") / "model.safetensors"
    made = artifact.write(path, {}, kind="model", metadata={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_ARTIFACT", str(path))
        patch.setenv("FAKE_CONTENT", made.content)
        yield
