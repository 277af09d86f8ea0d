"""Recipes by name, and the first recipe that `proctool init` writes."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from proctool.recipe import build_recipe, load_recipe
from proctool.recipe.library import library, recipe_path
from proctool.recipe.starter import Starter
from proctool.untrusted import parse_yaml
from tests.conftest import Said

Run = Callable[..., Said]


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("demo", "laptop/python") else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(library())
    ],
)
def test_a_recipe_is_found_by_its_name_and_a_copy_means_the_same(name: str, proctool: Run) -> None:
    assert recipe_path(Path(name)) == library()[name]
    assert proctool("recipes", "copy", name, "-o", "mine.yaml").code == 0
    assert load_recipe(Path("mine.yaml")) == load_recipe(library()[name])
    assert "yaml-language-server" not in Path("mine.yaml").read_text()


def test_a_file_goes_before_a_name(proctool: Run) -> None:
    Path("demo").write_text("name: other\n")
    assert recipe_path(Path("demo")) == Path("demo")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("haystack", "laptop/haystack, paper/haystack"),
        ("nothing", "proctool recipes list"),
        ("mien.yaml", "mien.yaml: no such file, and no recipe of that name"),
    ],
)
def test_a_name_that_is_not_one_recipe_is_one_line(name: str, words: str, proctool: Run) -> None:
    said = proctool("run", name, "--dry-run")
    assert (said.code, len(said.err.splitlines())) == (1, 1)
    assert words in said.err


@pytest.mark.parametrize("corpus", ["python", "my texts/a: #b.jsonl"])
@pytest.mark.parametrize("tasks", [("set:inputs=24",), ("set", "set:inputs=9", "dyck:k=4,length=32", "cold")])
def test_a_starter_is_a_recipe_of_what_was_asked(corpus: str, tasks: tuple[str, ...]) -> None:
    if "cold" in tasks:
        tasks = tasks[:-1]
    starter = Starter("mine", corpus, tasks=tasks, context=200, text_field="body: #1", seeds=2)
    recipe = build_recipe(parse_yaml(starter.text(), "mine.yaml"))
    assert (recipe.corpus, recipe.seeds, recipe.pretrain["text_field"]) == (corpus, (0, 1), "body: #1")
    warmed = [arm.warmup["task"] for arm in recipe.arms.values() if arm.warmup]
    assert (warmed, recipe.baseline) == (list(tasks), "cold")


def test_init_writes_a_recipe_and_never_over_a_file(proctool: Run) -> None:
    assert proctool("init", "--task", "set", "--steps", "50", "-o", "mine.yaml").code == 0
    recipe = load_recipe(Path("mine.yaml"))
    assert (recipe.name, recipe.context, recipe.pretrain["steps"]) == ("mine", 129, 50)
    before = Path("mine.yaml").read_text()
    said = proctool("init", "-o", "mine.yaml")
    assert said.code == 1
    assert "mine.yaml: exists already" in said.err
    assert Path("mine.yaml").read_text() == before


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ("missing.txt", "missing.txt: no such file or folder"),
        ("c4:missing", "missing: no such file or folder"),
        ("pyhton", 'did you mean "python"?'),
        ("c4", None),
        ("someone/texts", None),
        ("hub:someone/texts", None),
    ],
)
def test_init_refuses_a_missing_corpus_and_takes_names(corpus: str, said: str | None, proctool: Run) -> None:
    ended = proctool("init", "--corpus", corpus, "-o", "mine.yaml")
    assert Path("mine.yaml").exists() == (said is None)
    if said is None:
        assert ended.code == 0, ended.err
    else:
        assert (ended.code, len(ended.err.splitlines())) == (1, 1)
        assert said in ended.err


def test_the_wheel_holds_every_recipe(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parents[2]
    [wheel] = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"proctool/_recipes/{name}.yaml" for name in library()} <= set(names)
