"""The gallery is what the registry says."""

from __future__ import annotations

from pathlib import Path

from proctool.procedural.gallery import markdown, page
from proctool.procedural.registry import build_task, tasks

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def without_speeds(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith(("Speed:", "Statistics:"))]


def test_docs_are_up_to_date() -> None:
    assert without_speeds(PAGE.read_text(encoding="utf-8")) == without_speeds(markdown()), (
        "make it again: python -m benchmarks.tasks --json > bench.json; "
        "python -m proctool.procedural.gallery --speeds bench.json > docs/tasks.md"
    )


def test_every_task_has_its_place() -> None:
    text = markdown({"set": 5e7})
    for name in tasks():
        assert f"\n### {name}\n" in text
        assert all(f"| `{option}` |" in text for option in build_task(name).options)
    assert text.count("Speed: 50 M tokens/s") == 1
    shown = page()
    assert all(name in shown for name in tasks())
