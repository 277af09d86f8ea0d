"""Forms of arms: weight mixtures, treatments, amounts, budgets, standard controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import planned, values

from proctool.errors import OptionError
from proctool.experiment.graph import warmups_of
from proctool.experiment.record import record, write_record
from proctool.experiment.stage import Stage
from proctool.recipe import arms_of, build_recipe
from proctool.reporting.record import read_record

WARM = {"warmup": {"task": "set:inputs=8"}}
MIXED = {"donors": {"attention": {"task": "set:inputs=8"}, "mlp": {"task": "eca:width=8,steps=1", "steps": 30}}}
HAYSTACK = {"haystack": {"pairs": 4, "vocab": 32, "steps": 10, "batch_size": 4, "ramp_steps": 2}}


def arms(**changes: Any) -> dict[str, Any]:
    return arms_of(build_recipe(values(**changes)))


def pretrained(root: Path, arm: str, **changes: Any) -> Stage:
    stage = planned(root, **changes).arms[arm][0].pretrain
    assert stage is not None
    return stage


def test_a_weight_mixture_has_a_donor_for_each_component(root: Path) -> None:
    plan = planned(root, arms={"cold": {}, "set": WARM, "mixed": MIXED})
    stage = plan.arms["mixed"][0].pretrain
    assert stage is not None
    assert stage.donor is not None
    mixture = stage.donor
    assert mixture.command == ("transplant",)
    assert {name: each.name for name, each in mixture.inputs.items()} == {
        "attention": "warmup-set-s0", "mlp": "warmup-eca-s0", "embeddings_from": "warmup-set-s0",
    }  # fmt: skip
    # The donor that an arm of its own has too is one and the same.
    assert mixture.inputs["attention"] is plan.arms["set"][0].pretrain.donor  # type: ignore[union-attr]
    assert mixture.inputs["mlp"].steps == 30
    assert [each.name for each in warmups_of(stage)] == ["warmup-set-s0", "warmup-eca-s0"]
    argv = mixture.argv(root)
    assert argv[argv.index("--mlp") + 1] == str(mixture.inputs["mlp"].artifact(root))
    assert not {"--run-dir", "None"} & set(argv)
    told = record(plan, "", "")
    assert told.about["mixed"].procedural_tokens == sum(each.tokens for each in warmups_of(stage))
    assert len(told.stages[stage.key].donors) == 2
    assert told.stages[mixture.key].trains is False


def test_a_record_is_read_as_it_was_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proctool.experiment.record.environment", lambda: {"cores": 2, "started": "now"})
    quoted = {"what": "C4", "section": 5.1, "measure": "perplexity", "arms": {"cold": 62}}
    plan = planned(root, arms={"cold": {}, "set": WARM, "mixed": MIXED}, diagnostics=HAYSTACK, published=[quoted])
    write_record(plan, "source", "command")
    assert read_record(root) == record(plan, "source", "command")


def test_the_embeddings_donor_can_be_named(root: Path) -> None:
    donors = MIXED["donors"] | {"embeddings": {"task": "eca:width=8,steps=1", "steps": 30}}
    mixture = pretrained(root, "mixed", arms={"cold": {}, "mixed": {"donors": donors}}).donor
    assert mixture is not None
    assert mixture.inputs["embeddings_from"].name == "warmup-eca-s0"
    # The mixture has that one's vocabulary, so that its rows can be copied.
    assert mixture.options.vocab_size == 3  # type: ignore[union-attr]


def test_a_treatment_is_a_stage_between(root: Path) -> None:
    treated = WARM | {"treatment": {"shuffle": ["attention"], "noise": "mlp=0.1"}}
    stage = pretrained(root, "treated", arms={"cold": {}, "treated": treated})
    assert stage.donor is not None
    argv = stage.donor.argv(root)
    assert argv[0] == "transplant"
    assert argv[argv.index("--shuffle") + 1] == "attention"
    assert argv[argv.index("--noise") + 1] == "mlp=0.1"
    warm = str(stage.donor.parents[0].artifact(root))
    assert [argv[argv.index(flag) + 1] for flag in ("--base", "--attention", "--mlp", "--norms")] == [warm] * 4


def test_init_can_be_treated_too(root: Path) -> None:
    arm = {"init": "donor.safetensors", "treatment": {"noise": 0.5}}
    stage = pretrained(root, "a", arms={"cold": {}, "a": arm})
    assert stage.donor is not None
    assert stage.donor.parents == ()
    argv = stage.donor.argv(root)
    assert argv[argv.index("--base") + 1] == argv[argv.index("--mlp") + 1] == "donor.safetensors"


def test_amounts_make_forms_of_an_arm(root: Path) -> None:
    plan = planned(root, procedural=[340, "1k"], arms={"cold": {}, "set": WARM})
    assert list(plan.arms) == ["cold", "set-340", "set-1k"]
    # 4 samples of 17 tokens a step.
    assert [warmups_of(plan.arms[arm][0].pretrain)[0].steps for arm in ("set-340", "set-1k")] == [5, 15]  # type: ignore[arg-type]
    metadata = record(plan, "", "").about["set-1k"]
    assert (metadata.made_from, metadata.procedural_tokens) == ("set", 1020)


def test_budgets_are_whole_schedules(root: Path) -> None:
    plan = planned(root, setting="substitutive", budgets=[0.5, 1, 0.75])
    stages = plan.arms["set"][0]
    assert {share: stage.steps for share, stage in stages.budgets.items()} == {0.5: 20, 0.75: 30, 1: 40}
    assert stages.pretrain is stages.budgets[1]
    assert len({stage.donor for stage in stages.budgets.values()}) == 1
    assert list(plan.arms["cold"][0].budgets) == [1]
    measured = record(plan, "", "").arms["set"]["0"]
    assert list(measured.budgets) == ["0.5", "0.75", "1"]
    assert measured.pretrain == measured.budgets["1"]


@pytest.mark.parametrize("embeddings", ["scale", "mean", "sample"])
def test_standard_controls(root: Path, embeddings: str) -> None:
    arms = {"cold": {}, "set": WARM | {"embeddings": embeddings}}
    plan = planned(root, controls="standard", diagnostics=HAYSTACK, arms=arms)
    assert list(plan.arms) == [
        "cold", "set", "cold-ramp", "cold-longer", "set-text", "set-shuffled", "set-scale", "set-embeddings",
    ]  # fmt: skip
    trained = {arm: stages[0].pretrain for arm, stages in plan.arms.items()}
    # 20 steps of 4 x 17 tokens are 1360; a step of pretraining has 4 x 64.
    assert trained["cold-longer"].steps == 40 + 6  # type: ignore[union-attr]
    assert trained["cold-ramp"].options.ramp_steps == 4  # type: ignore[union-attr]
    assert warmups_of(trained["set-shuffled"])[0].options.task == ("shuffle(set:inputs=8,symbols=100)",)  # type: ignore
    assert trained["set-scale"].donor.options.match_scale == ("attention", "mlp", "norms")  # type: ignore[union-attr]
    bare = trained["set-embeddings"]
    assert (bare.options.components, bare.options.embeddings) == (("none",), embeddings)  # type: ignore[union-attr]
    assert bare.donor is trained["set"].donor  # type: ignore[union-attr]
    # The cold diagnostic serves the cold controls, whose difference is in pretraining.
    haystack = {arm: stages[0].diagnostics["haystack"] for arm, stages in plan.arms.items()}
    assert haystack["cold"] is haystack["cold-ramp"] is haystack["cold-longer"]
    assert len({stage.key for stage in haystack.values()}) == 6
    metadata = record(plan, "", "").about
    assert (metadata["set-scale"].control, metadata["set-scale"].of) == ("scale", ("set",))
    assert sum(stage.name.startswith("warmup-set-s0") for stage in plan.stages) == 1


def test_text_takes_the_warm_ups_tokens_and_the_arms_transplant(root: Path) -> None:
    arm = {
        "warmup": {"task": "set:inputs=8", "lr": 3e-3, "steps": 100, "batch_size": 16, "ramp_steps": 10},
        "components": ["attention", "norms"],
        "layers": ["0"],
        "embeddings": "mean",
        "treatment": {"noise": "0.1"},
    }
    corpus = {"corpus": "docs.txt", "budget": "1M"}
    which = ["text", "text-continued"]
    plan = planned(root, controls={"which": which, "text": corpus}, diagnostics=HAYSTACK, arms={"cold": {}, "x": arm})
    mine, text, continued = (plan.arms[name][0] for name in ("x", "x-text", "x-text-continued"))
    assert mine.pretrain is not None
    assert text.pretrain is not None
    assert continued.pretrain is not None
    for own, other in ((mine.pretrain, text.pretrain), (mine.diagnostics["haystack"], text.diagnostics["haystack"])):
        assert own.options == other.options  # the same components, embeddings, layers and training
        assert own.donor is not None
        assert other.donor is not None
        assert own.donor.options == other.donor.options  # the same treatment
    (donor,), (procedural,) = warmups_of(text.pretrain), warmups_of(mine.pretrain)
    options: Any = donor.options
    assert donor is continued.pretrain.donor
    assert (options.lr, options.schedule, options.ramp_steps, options.model) == (3e-3, "constant", 10, "2x2x16")
    assert (options.corpus, options.budget, options.context, options.tokenizer) == ("docs.txt", 10**6, 64, "bytes")
    assert options.seed != mine.pretrain.options.seed  # type: ignore[union-attr]
    assert 0 <= donor.tokens - procedural.tokens < options.batch_size * 64
    assert abs(donor.steps / procedural.steps - 1) < 0.15
    whole: Any = continued.pretrain.options
    assert (whole.components, whole.embeddings, whole.layers) == (
        ("attention", "mlp", "norms", "positions"), "copy", None,
    )  # fmt: skip
    assert not continued.diagnostics
    told = record(plan, "", "").about
    assert (told["x"].procedural_tokens, told["x"].text_tokens) == (procedural.tokens, 0)
    assert (told["x-text"].procedural_tokens, told["x-text"].text_tokens) == (0, donor.tokens)


def test_text_replaces_all_donors_of_a_mixture(root: Path) -> None:
    plan = planned(root, controls="text", arms={"cold": {}, "mixed": MIXED}, launch={"processes": 2})
    text, mixed = (plan.arms[name][0].pretrain for name in ("mixed-text", "mixed"))
    assert text is not None
    assert mixed is not None
    assert text.options.components == ("attention", "mlp")  # type: ignore[union-attr]
    (donor,) = warmups_of(text)
    assert donor.tokens >= sum(each.tokens for each in warmups_of(mixed))
    assert donor.options.batch_size % 2 == 0  # type: ignore[union-attr]
    # The number of processes changes the batch only where it does not divide it.
    even = {"steps": 40, "batch_size": 8}
    large = {"cold": {}, "x": {"warmup": {"task": "set:inputs=8", "batch_size": 160}}}
    keys = [
        {stage.key for stage in planned(root, controls="text", arms=large, pretrain=even, launch=launch).stages}
        for launch in ({"processes": 1}, {"processes": 2}, {"processes": 8})
    ]
    assert keys[0] == keys[1] == keys[2]


def test_the_controls_without_text(root: Path) -> None:
    plan = planned(root, controls=["random", "mimetic"], diagnostics=HAYSTACK, arms={"cold": {}, "a": WARM, "b": WARM})
    assert list(plan.arms) == ["cold", "a", "b", "a-random", "cold-mimetic", "b-random"]
    assert plan.planned["cold-mimetic"].of == ("a", "b")
    random = warmups_of(plan.arms["a-random"][0].pretrain)[0]  # type: ignore[arg-type]
    assert random.options.task == ("random(set:inputs=8,symbols=100)",)  # type: ignore[union-attr]
    structured = plan.arms["cold-mimetic"][0]
    for stage in (structured.pretrain, *structured.diagnostics.values()):
        assert stage is not None
        assert (stage.options.init_attention, stage.parents) == ("mimetic", ())  # type: ignore[union-attr]
        assert "--init-attention mimetic" in " ".join(stage.argv(root))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpus": None, "diagnostics": HAYSTACK, "controls": "text"}, "set has no control text: the recipe has no"),
        ({"corpus": None, "diagnostics": HAYSTACK, "controls": "text-continued"}, "it continues on the corpus"),
        (
            {"controls": "text", "arms": {"cold": {}, "x": WARM | {"warmup": WARM["warmup"] | {"patience": 3}}}},
            "x has no control text: `patience` makes",
        ),
        (
            {
                "controls": "text",
                "diagnostics": HAYSTACK,
                "arms": {"cold": {}, "x": WARM | {"diagnostics": {"haystack": {"embeddings": "copy"}}}},
            },
            "its embeddings are copied into haystack",
        ),
        ({"controls": "mimetic", "baseline": "set"}, "the baseline, set, does not start pretraining from fresh"),
        ({"controls": "mimetic", "pretrain": {"init_attention": "mimetic"}}, "identical to the baseline"),
        ({"controls": {"which": ["scale"], "text": {"corpus": "a"}}}, "controls.text: no control warms up on text"),
        ({"controls": {"text": {"budget": "1M"}}}, "controls.text: give its corpus"),
        ({"controls": {"text": {"corpus": "a", "lr": 1}}}, 'controls.text: "lr" is not an option'),
        ({"controls": {"text": {"corpus": "a", "budget": "x"}}}, "controls.text.budget: 'x' is not"),
    ],
)
def test_a_control_of_text_or_attention_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        build_recipe(values(**changes))
    assert said in str(caught.value)


def test_standard_leaves_text_out_without_a_corpus() -> None:
    assert "set-text" not in arms(corpus=None, diagnostics=HAYSTACK, controls="standard")
    asked = {"text": {"corpus": "a.txt"}}
    assert "set-text" in arms(corpus=None, diagnostics=HAYSTACK, controls=asked)


def test_the_embeddings_control_starts_them_as_the_arm_does_everywhere(root: Path) -> None:
    arm = WARM | {
        "embeddings": "scale",
        "layers": ["0"],
        "pretrain": {"components": ["mlp"]},
        "diagnostics": {"haystack": {"embeddings": "mean", "components": ["mlp"]}},
    }
    plan = planned(root, controls="embeddings", diagnostics=HAYSTACK, arms={"cold": {}, "set": arm})
    stages = plan.arms["set-embeddings"][0]
    assert stages.pretrain is not None
    for stage, start in ((stages.pretrain, "scale"), (stages.diagnostics["haystack"], "mean")):
        options: Any = stage.options
        assert (options.components, options.embeddings, options.layers) == (("none",), start, None)


@pytest.mark.parametrize(
    ("arm", "which", "said"),
    [
        (
            {"embeddings": "fresh"},
            "embeddings",
            "controls: x has no control embeddings: its embeddings start fresh in pretraining",
        ),
        (
            {"embeddings": "mean", "diagnostics": {"haystack": {"embeddings": "fresh"}}},
            "embeddings",
            "its embeddings start fresh in haystack",
        ),
        (
            {"components": ["none"], "embeddings": "scale"},
            "scale",
            "controls: x has no control scale: in pretraining it would be identical to the arm",
        ),
        (
            {"components": ["none"], "embeddings": "scale"},
            "embeddings",
            "in pretraining it would be identical to the arm",
        ),
        (
            {"embeddings": "scale", "diagnostics": {"haystack": {"components": ["none"]}}},
            "scale",
            "in haystack it would be identical to the arm",
        ),
        ({}, "random-heads", "controls: x has no control random-heads: it names no heads"),
        ({"heads": ["random:2"]}, "random-heads", "it names no heads"),
        ({"components": ["mlp"]}, "sharpened", "controls: x has no control sharpened: it carries no attention"),
        (
            {"warmup": WARM["warmup"] | {"until": "accuracy=.9"}},
            "longer",
            "`until` makes the number of warm-up tokens unknown",
        ),
        (
            {"warmup": WARM["warmup"] | {"patience": 3}},
            "longer",
            "`patience` makes the number of warm-up tokens unknown",
        ),
        ({"warmup": WARM["warmup"] | {"curriculum": "start=2,step=2,accuracy=.9"}}, "longer", "`curriculum` makes the"),
    ],
)
def test_a_control_that_would_be_none_is_left_out_or_refused(arm: dict[str, Any], which: str, said: str) -> None:
    """Left out of the standard ones, refused by name."""
    both = {"cold": {}, "x": WARM | arm}
    for standard in ("standard", {"of": ["x"]}, {"which": "standard", "of": ["x"]}):
        assert not any(
            each.control == which for each in arms(arms=both, controls=standard, diagnostics=HAYSTACK).values()
        )
    with pytest.raises(OptionError) as caught:
        arms(arms=both, controls=which, diagnostics=HAYSTACK)
    assert said in str(caught.value)


def test_heads_are_carried_and_controlled_by_as_many_others(root: Path) -> None:
    both = {"cold": {}, "two": WARM | {"components": ["attention"], "heads": ["1.1", "0.0"]}}
    plan = planned(root, controls=["random-heads", "sharpened"], diagnostics=HAYSTACK, arms=both)
    assert list(plan.arms) == ["cold", "two", "two-random-heads", "two-sharpened"]
    for measure in (lambda stages: stages.pretrain, lambda stages: stages.diagnostics["haystack"]):
        stages = {arm: measure(by_seed[0]) for arm, by_seed in plan.arms.items()}
        assert stages["two"].options.heads == ("1.1", "0.0")
        assert stages["two-random-heads"].options.heads == ("random:2", "-1.1", "-0.0")
        assert stages["two-random-heads"].donor is stages["two"].donor
        assert stages["two-sharpened"].options.heads == ("1.1", "0.0")
        treated = stages["two-sharpened"].donor.options
        assert (treated.match_scale, treated.sharpen) == (("attention",), "match")
        argv = stages["two"].argv(root)
        assert argv[argv.index("--heads") + 1] == "1.1,0.0"
    about = record(plan, "", "").about
    assert about["two-random-heads"].control == "random-heads"
    turned = {**both, "two": both["two"] | {"heads": ["0.0", "1.1"]}}
    assert planned(root, arms=turned).arms["two"][0].pretrain.key == plan.arms["two"][0].pretrain.key  # type: ignore


def test_controls_beyond_the_standard_ones_are_made_when_named() -> None:
    both = {"cold": {}, "x": WARM | {"heads": ["0.1"]}}
    assert not {"x-sharpened", "x-random-heads"} & arms(arms=both, controls="standard").keys()
    assert {"x-sharpened", "x-random-heads"} <= arms(arms=both, controls=["sharpened", "random-heads"]).keys()


def test_a_file_is_not_shuffled_in_silence(proctool: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "set.safetensors"
    assert proctool("generate", "set", "--inputs", "8", "--samples", "8", "-o", file).code == 0
    from_file = {"cold": {}, "x": {"warmup": {"data": str(file)}}}
    assert "cold-longer" in arms(arms=from_file, controls=["longer", "scale"])
    for controls in ("standard", "shuffled"):
        with pytest.raises(OptionError, match=r"arms\.x\.warmup\.data: .* give `task`"):
            arms(arms=from_file, controls=controls)


def test_a_control_that_serves_several_arms_is_one(root: Path) -> None:
    two = {"cold": {}, "set": WARM, "mlp": WARM | {"components": ["mlp"]}}
    forms = arms(controls=["longer", "shuffled"], arms=two)
    assert list(forms) == ["cold", "set", "mlp", "cold-longer", "set-shuffled", "mlp-shuffled"]
    assert forms["cold-longer"].of == ("set", "mlp")
    two["mlp"] = {"warmup": {"task": "set:inputs=8", "steps": 99}}
    assert "cold-longer-mlp" in arms(controls="longer", arms=two)


def test_a_baseline_with_a_ramp_needs_no_other() -> None:
    forms = arms(controls="standard", pretrain={"steps": 40, "batch_size": 4, "ramp_steps": 3})
    assert "cold-ramp" not in forms
    assert "cold-ramp" in arms(controls="standard")


def test_launch_sets_the_precision_of_every_stage(root: Path) -> None:
    plan = planned(root, launch={"processes": 4, "precision": "bf16"}, diagnostics=HAYSTACK)
    assert {stage.options.precision for stage in plan.stages} == {"bf16"}  # type: ignore[union-attr]
    # How many processes compute it does not change what is computed.
    assert {stage.key for stage in plan.stages} == {
        stage.key for stage in planned(root, launch={"precision": "bf16"}, diagnostics=HAYSTACK).stages
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": {"x": {"donors": {"heads": {"task": "set"}}}}}, 'arms.x.donors: "heads" is not a component'),
        ({"arms": {"x": {"donors": {"mlp": {"steps": 3}}}}}, "arms.x.donors.mlp: give its task"),
        ({"arms": {"x": {"donors": {"embeddings": {"task": "set:inputs=8"}}}}}, "arms.x.donors: give a donor for"),
        ({"arms": {"x": WARM | MIXED}}, "arms.x: warmup and donors exclude each other"),
        ({"arms": {"x": {"treatment": {"shuffle": "mlp"}}}}, "arms.x.treatment: there is no warm-up"),
        (
            {"arms": {"x": WARM | {"components": ["mlp"], "treatment": {"shuffle": "attention"}}}},
            "arms.x.treatment.shuffle: the arm does not carry attention",
        ),
        ({"arms": {"x": WARM | {"treatment": {"noise": "much"}}}}, "arms.x.treatment.noise: 'much' is not a number"),
        ({"arms": {"x": WARM | {"heads": ["1"]}}}, 'arms.x.heads: heads: "1" is not a head'),
        (
            {"arms": {"x": WARM | {"components": ["mlp"], "heads": ["1.1"]}}},
            "arms.x.heads: the arm does not carry attention",
        ),
        (
            {"arms": {"x": WARM | {"treatment": {"sharpen": "much"}}}},
            "arms.x.treatment.sharpen: 'much' is not a number",
        ),
        (
            {"arms": {"x": WARM | {"treatment": {"sharpen": -1}}}},
            "arms.x.treatment: sharpen = -1: must be a factor above 0",
        ),
        ({"budgets": [0.5]}, "budgets: needs `setting: substitutive`"),
        ({"setting": "substitutive"}, "budgets: missing"),
        ({"setting": "substitutive", "budgets": [0.5, 2]}, "budgets = [0.5, 2.0]: write distinct shares"),
        ({"setting": "substitutive", "budgets": [1], "corpus": None, "diagnostics": HAYSTACK}, "give a corpus"),
        (
            {"setting": "substitutive", "budgets": [1], "arms": {"cold": {"budgets": [0.5]}}},
            "arms.cold.budgets: the baseline needs its full budget too",
        ),
        ({"controls": "standart"}, 'unknown control "standart" (did you mean "standard"?)'),
        ({"controls": {"which": []}}, "controls.which: is empty"),
        ({"controls": "mean"}, 'controls: unknown control "mean" (known: embeddings, '),
        ({"controls": {"of": ["cold"]}}, "controls.of: cold has no warm-up"),
        (
            {"controls": ["standard", "random"]},
            "controls: standard cannot be in a list; write controls: standard, or name",
        ),
        ({"controls": "standard", "arms": {"cold": {}}}, "controls: no arm has a warm-up"),
        (
            {"controls": "scale", "arms": {"cold": {}, "x": WARM, "x-scale": WARM}},
            'two arms would have the name "x-scale"',
        ),
        ({"launch": {"processes": 0}}, "launch.processes = 0"),
        ({"launch": {"sbatch": {"time": "1\nrm"}}}, "launch.sbatch.time"),
        (
            {"published": [{"what": "p", "section": "5", "measure": "loss", "arms": {"sett": 1}}]},
            'published[0].arms: "sett" is not an arm (did you mean "set"?)',
        ),
    ],
)
def test_mistakes_are_named_with_their_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        build_recipe(values(**changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
