from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import values

from proctool.errors import OptionError
from proctool.recipe import arms_of, build_recipe, load_recipe
from proctool.recipe.smoke import smoke

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_arms_inherit_and_override() -> None:
    recipe = build_recipe(
        values(
            pretrain={"steps": 40, "batch-size": 4, "lr": "1e-3"},
            arms={"cold": None, "hot": {"pretrain": {"lr": 2e-3}, "warmup": {"task": "set", "steps": 7}}},
            context=256,
        )
    )
    arms = arms_of(recipe)
    assert arms["cold"].pretrain().lr == 1e-3
    hot = arms["hot"].pretrain()
    assert (hot.lr, hot.batch_size, hot.context) == (2e-3, 4, 256)
    warm = arms["hot"].warmups()[""]
    assert (warm.steps, warm.batch_size, warm.task) == (7, 4, ("set:inputs=64,symbols=100",))
    assert arms["cold"].warmups() == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"armz": {}}, 'unknown option "armz" (did you mean "arms"?)'),
        ({"baseline": "could"}, 'baseline: no arm is named "could" (did you mean "cold"?)'),
        ({"arms": {}}, "arms: give at least one"),
        ({"arms": {"a b": {}}}, 'arms: "a b" may have only letters'),
        ({"name": "x" * 201}, 'name: "xxxxxxxxxxxxxxxxxxxx..." has 201 characters; use at most 200'),
        ({"seeds": [1, 1]}, "seeds = [1, 1]"),
        ({"seeds": [-1]}, "seeds = [-1]"),
        ({"model": "2x3x16"}, "model: model 2x3x16: width 16 is not a multiple"),
        ({"pretrain": {"stepz": 1}}, 'pretrain: unknown option "stepz" (did you mean "steps"?)'),
        ({"pretrain": {"steps": 0}}, "steps = 0: must be at least 1"),
        ({"pretrain": {"steps": "many"}}, "pretrain.steps: 'many' is not a number"),
        ({"pretrain": {"seed": 3}}, "pretrain.seed: remove it"),
        ({"warmup": {"task": "set"}}, "warmup.task: set it per arm"),
        ({"arms": {"x": {"warmup": {"task": "sett"}}}}, 'arms.x.warmup.task: unknown task "sett"'),
        ({"arms": {"x": {"warmup": {"task": "set:inputz=8"}}}}, 'arms.x.warmup.task: set: unknown option "inputz"'),
        ({"arms": {"x": {"warmup": {"task": "set:inputs=64"}}}}, "context = 64: samples have"),
        ({"arms": {"x": {"warmup": {"lr": 1e-3}}}}, "arms.x.warmup: give either"),
        ({"arms": {"x": {"components": ["mlp"]}}}, "arms.x.components: there is no warm-up"),
        (
            {"arms": {"x": {"warmup": {"task": "set:inputs=8"}, "components": ["atention"]}}},
            'arms.x.components: "atention" is not a component (did you mean "attention"?)',
        ),
        (
            {"arms": {"x": {"warmup": {"task": "set:inputs=8"}, "layers": "0-5"}}},
            "arms.x.layers: 0-5 exceeds the model, which has layers 0 to 1",
        ),
        (
            {"arms": {"x": {"warmup": {"task": "set:inputs=8"}, "heads": ["1.9"]}}},
            "arms.x.heads: the model has no head 1.9; it has heads 0 to",
        ),
        ({"asks": "haystack"}, 'asks: "haystack" is not a measure'),
        ({"diagnostics": {"haystac": {}}}, 'diagnostics: unknown diagnostic "haystac" (did you mean "haystack"?)'),
        (
            {"diagnostics": {"haystack": {"pair": 3}}},
            'diagnostics.haystack: unknown option "pair" (did you mean "pairs"?)',
        ),
        ({"diagnostics": {"haystack": {"pairs": 0}}}, "diagnostics.haystack: haystack: pairs = 0"),
        ({"corpus": None}, "measures nothing"),
        ({"repeats": 2}, "repeats: the recipe has no diagnostics to repeat"),
        ({"repeats": 0, "diagnostics": {"haystack": {}}}, "repeats = 0: must be from 1 to"),
        (
            {"diagnostics": {"haystack": {"repeats": 2}}},
            "diagnostics.haystack.repeats: belongs at the top of the recipe",
        ),
        ({"arms": {"x": {"seeds": [1]}}}, "arms.x.seeds: belongs at the top of the recipe"),
        (
            {"repeats": 2, "diagnostics": {"haystack": {}}, "arms": {"cold": {}, "cold-run2": {}}},
            "arms.cold-run2: with repeats this is the name of a run of cold",
        ),
        (
            {
                "repeats": 2,
                "diagnostics": {"haystack": {}},
                "controls": {"which": ["shuffled"], "of": ["set"]},
                "arms": {"cold": {}, "set": {"warmup": {"task": "set:inputs=8"}}, "set-shuffled-run2": {}},
            },
            "arms.set-shuffled-run2: with repeats this is the name of a run of set-shuffled",
        ),
        ({"repeats": 2, "seeds": [10**7], "diagnostics": {"haystack": {}}}, "seeds: with repeats they must be below"),
    ],
)
def test_mistakes_are_named_with_their_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        build_recipe(values(**changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nmodle: 2x2x16\narms: {cold: }\n")
    with pytest.raises(OptionError, match=r'r\.yaml: unknown option "modle" \(did you mean "model"\?\)'):
        load_recipe(path)


def test_a_smoke_run_carries_a_head_that_its_narrow_model_has() -> None:
    arms = {"cold": {}, "x": {"warmup": {"task": "set:inputs=8"}, "heads": ["1.3"]}}
    assert smoke(build_recipe(values(model="2x4x16", arms=arms))).arms["x"].heads == ("random:1",)
