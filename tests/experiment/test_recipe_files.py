"""The recipes that ship: read, planned and shown by the real entry point, without network; some are tried."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proctool import config
from proctool.corpora.mathematics import open_mathematics
from proctool.errors import OptionError
from proctool.experiment.cost import flops
from proctool.experiment.graph import plan
from proctool.recipe import build_recipe, load_recipe
from proctool.recipe.schema import recipe_schema
from proctool.recipe.smoke import smoke

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
SCHEMA = FOLDER / "recipe.schema.json"

each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))


@each_recipe
def test_it_has_a_graph_and_a_smoke_form(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    whole = plan(recipe, tmp_path / recipe.name)
    assert len(whole.stages) > 2
    # One cold stage of each kind and seed serves every comparison.
    for kind in ("pretrain", *recipe.diagnostics):
        assert sum(stage.name.startswith(f"{kind}-cold-s") for stage in whole.stages) <= len(recipe.seeds)
    assert all(flops(stage) > 0 for stage in whole.stages if stage.trains)
    short = smoke(recipe)
    if short.corpus is not None and short.corpus.startswith("mathematics"):
        open_mathematics(*short.corpus.partition(":")[::2])  # refuses too few questions
    small = plan(short, tmp_path / "smoke")
    assert {stage.command for stage in small.stages} == {stage.command for stage in whole.stages}
    assert sum(stage.tokens for stage in small.stages) < 0.05 * sum(stage.tokens for stage in whole.stages)
    assert not any(getattr(stage.options, "dropout", 0) for stage in small.stages)  # on a CPU it makes long rows slow


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(recipe_schema())


@each_recipe
def test_it_fits_the_schema(path: Path) -> None:
    validator().validate(config.load_yaml(path))
    depth = len(path.relative_to(FOLDER).parts) - 1
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={'../' * depth}recipe.schema.json"


# Of all stage keys of a recipe. A change makes every finished stage of its users run again.
KEYS = {
    "demo": "9de387aed4c99202",
    "laptop/haystack": "3ddfb95ab5c7cff4",
    "laptop/haystack-set": "853f2e5a41c9491f",
    "laptop/mixture": "325202860194443a",
    "paper/c4-finetuned": "8fbd7e87dbbb8f73",
    "paper/mathematics-substitutive": "ed2c70e3edafb979",
    "paper/weights": "d5a0a0824b15b7da",
}


@pytest.mark.parametrize("name", KEYS)
def test_its_stages_keep_their_keys(name: str, tmp_path: Path) -> None:
    stages = plan(load_recipe(FOLDER / f"{name}.yaml"), tmp_path).stages
    assert hashlib.sha256("".join(stage.key for stage in stages).encode()).hexdigest()[:16] == KEYS[name]


def test_the_schema_file_is_the_one_that_is_printed(proctool: Callable[..., Any]) -> None:
    said = proctool("run", "--schema")
    assert said.code == 0
    assert said.out == SCHEMA.read_text(encoding="utf-8"), (
        "renew it: proctool run --schema > recipes/recipe.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(json.loads(said.out))


@pytest.mark.parametrize(
    "changes",
    [
        {"armz": {}},
        {"pretrain": {"stepz": 3}},
        {"pretrain": {"steps": "many"}},
        {"setting": "other"},
        {"arms": {"a": {"donors": {"heads": {"task": "set"}}}}},
        {"controls": "standart"},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(changes: dict[str, Any]) -> None:
    values = {"name": "a", "model": "2x2x16", "corpus": "python", "arms": {"a": {}}} | changes
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(values)
    with pytest.raises(OptionError):
        build_recipe(values)


def test_published_scale_needs_no_network_to_be_shown(proctool: Callable[..., Any]) -> None:
    for name in ("c4-substitutive", "codeparrot-1.3b"):
        said = proctool("run", FOLDER / "paper" / f"{name}.yaml", "--dry-run", "--json")
        assert said.code == 0, said.err
        stages = json.loads(said.out)["stages"]
        assert all(stage["state"] == "missing" for stage in stages)
    assert any(stage["command"][:2] == ["torchrun", "--standalone"] for stage in stages)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["laptop/python", "paper/weights", "paper/c4-finetuned"])
def test_its_smoke_form_runs(proctool: Callable[..., Any], name: str) -> None:
    values: Any = config.load_yaml(FOLDER / f"{name}.yaml")
    if name == "laptop/python":  # its other arms add no kind of stage
        values["arms"] = {arm: values["arms"][arm] for arm in ("cold", "set", "set-mlp")}
        values["controls"]["of"] = ["set"]
    if name == "paper/c4-finetuned":  # the same holds here
        del values["arms"]["union"]
        values["finetune"]["glue"]["tasks"] = ["mnli"]
    recipe = Path(f"{Path(name).name}.yaml")
    recipe.write_text(json.dumps(values))
    said = proctool("run", recipe, "--smoke")
    assert said.code == 0, said.err
    assert "already done" not in said.err
    assert Path(f"runs/{Path(name).name}-smoke/report.html").exists()
