"""Files for contributors name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import proctool

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md")
FOLDERS = {"proctool", "tests", "docs", "recipes", "examples", "benchmarks"}
YAML_FILES = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])


@pytest.mark.parametrize("page", [*PAGES, *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))])
def test_links_and_paths_lead_to_files(page: str) -> None:
    text = re.sub(r"(?ms)^```.*?^```|^    [^\n]*", "", (ROOT / page).read_text(encoding="utf-8"))  # without code blocks
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", text)
    assert [link for link in linked if not ((ROOT / page).parent / link).exists()] == []
    named = [name for name in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if name.split("/")[0] in FOLDERS]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_files_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_citation_names_this_version() -> None:
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == proctool.__version__
