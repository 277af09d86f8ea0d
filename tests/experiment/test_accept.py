"""Donors that have to be accepted, in recipes: keys, command lines, costs, controls, smoke runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_experiment import planned, values

from proctool.errors import OptionError
from proctool.experiment.cost import flops
from proctool.experiment.graph import warmups_of
from proctool.experiment.stage import Stage
from proctool.recipe import arms_of, build_recipe
from proctool.recipe.smoke import smoke
from proctool.training.accept import Acceptance
from proctool.training.options import WarmupOptions

ACCEPT: dict[str, Any] = {"diagnostic": "haystack", "steps": 30, "batch-size": 8, "lr": "3e-3", "pairs": 4}


def donor(root: Path, accept: Any, *, shared: Any = None, **changes: Any) -> Stage:
    arm = {"warmup": {"task": "set:inputs=8"} | ({} if accept is None else {"accept": accept})}
    warmup = {"steps": 20, "batch_size": 4} | ({} if shared is None else {"accept": shared})
    stage = planned(root, warmup=warmup, arms={"cold": {}, "set": arm}, **changes).arms["set"][0].pretrain
    assert stage is not None
    return warmups_of(stage)[0]


def accepted(stage: Stage) -> Acceptance | None:
    assert isinstance(stage.options, WarmupOptions)
    return stage.options.accept


def test_keys_depend_on_the_probe_and_not_on_the_tries(root: Path) -> None:
    key = donor(root, ACCEPT).key
    assert donor(root, ACCEPT | {"tries": 3}).key == key
    assert donor(root, "haystack:steps=30,batch_size=8,lr=.003,pairs=4").key == key
    assert donor(root, None, shared=ACCEPT).key == key
    different = [donor(root, ACCEPT | more).key for more in ({"above": 0.2}, {"steps": 31}, {"components": ["mlp"]})]
    assert len({key, donor(root, None).key, *different}) == 5
    # A warm-up without it keeps the key that it had before there was such an option.
    assert donor(root, None).key == "98fd05e5fa0fe5fc6dd7b044d73af423122a58e6540fe713a5b23d2f7e63e5fa"


def test_the_command_line_gives_the_same_acceptance(root: Path) -> None:
    stage = donor(root, ACCEPT | {"components": ["attention", "mlp"], "tries": 4})
    argv = stage.argv(root)
    assert Acceptance.parse(argv[argv.index("--accept") + 1]) == accepted(stage)
    assert "--accept" not in donor(root, None).argv(root)


def test_costs_are_those_of_one_donor_and_its_probe(root: Path) -> None:
    stage, alone = donor(root, ACCEPT), donor(root, None)
    assert stage.tokens == alone.tokens + 30 * 8 * 10
    assert flops(stage) > flops(alone)
    assert (stage.tries, alone.tries) == (10, 1)


def test_dry_run_and_plan_say_that_tries_multiply_the_cost(root: Path, proctool: Callable[..., Any]) -> None:
    arms = {"cold": {}, "set": {"warmup": {"task": "set:inputs=8", "accept": ACCEPT}}}
    recipe = values(arms=arms, seeds=[0, 1])
    Path("r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for words in (("run", "r.yaml", "--dry-run"), ("plan", "r.yaml")):
        said = proctool(*words)
        assert "warmup-set: the cost of one donor and its probe; up to 10 donors are trained" in said.out, said.err


def test_controls_are_not_selected(root: Path) -> None:
    goals = {"until": "accuracy=.9", "patience": 3, "curriculum": "start=2,step=2,accuracy=.9"}
    warmup = {"task": "set:inputs=8", "accept": ACCEPT}
    arms = {"cold": {}, "set": {"warmup": {**warmup, **goals}, "embeddings": "scale"}}
    made = arms_of(build_recipe(values(arms=arms, controls="standard")))
    assert "cold-longer" not in made
    shuffled = made["set-shuffled"].warmups()[""]
    assert [getattr(shuffled, name) for name in ("accept", *goals)] == [None] * 4
    assert shuffled.steps == made["set"].warmups()[""].steps
    assert made["set-scale"].warmups() == made["set"].warmups()
    arms["set"]["warmup"] = warmup
    with pytest.raises(OptionError, match="`accept` makes the number of donors unknown"):
        build_recipe(values(arms=arms, controls=["longer"]))


@pytest.mark.parametrize(
    ("accept", "said"),
    [
        ({"steps": 3}, "arms.set.warmup.accept.*diagnostic"),
        ({"diagnostic": "haystak"}, "arms.set.warmup: accept: unknown diagnostic"),
        ({"diagnostic": "sorting", "pairs": 3}, "arms.set.warmup: accept: unknown option .pairs"),
        ({"diagnostic": "haystack", "model": "5x"}, "arms.set.warmup.accept.model: model .5x. is neither"),
        ({"diagnostic": "haystack", "step": 5}, "arms.set.warmup.accept: unknown option .step"),
    ],
)
def test_mistakes_are_named_with_their_place(root: Path, accept: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        donor(root, accept)


def test_a_smoke_run_has_a_short_probe_that_is_passed(root: Path) -> None:
    arms = {"cold": {}, "set": {"warmup": {"task": "set:inputs=8", "accept": ACCEPT | {"model": "2x4x64"}}}}
    tiny = smoke(build_recipe(values(arms=arms)))
    found = arms_of(tiny)["set"].warmups()[""].accept
    assert found is not None
    assert (found.above, found.tries, found.steps, found.batch_size, found.model, found.pairs) == (
        0.0, 1, 4, 2, "2x2x16", 4,
    )  # fmt: skip
