"""The keys of a recipe: each field of these classes is one key. check.py checks the values."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import Any, Literal

Values = dict[str, Any]
"""Options by name, not yet checked by their class."""

Control = Literal[
    "ramp", "longer", "text", "shuffled", "scale", "embeddings", "sharpened", "random-heads", "text-continued",
    "random", "mimetic",
]  # fmt: skip
STANDARD: tuple[Control, ...] = ("ramp", "longer", "text", "shuffled", "scale", "embeddings")
"""The standard controls, explained at `Controls.which`."""
CONTROLS: tuple[Control, ...] = typing.get_args(Control)
"""The standard controls, and those that a recipe must name."""

OF_BASELINE = ("ramp", "longer", "mimetic")
"""Controls that change the baseline; the others change the arm."""
UNTRIED = ("ramp", "longer")
"""Controls of the baseline that depend on the arm's warm-up: a sweep tries nothing for them."""


@dataclass(frozen=True)
class TreatmentOptions:
    """Changes to carried weights that test whether their structure matters; flags of `proctool transplant`."""

    shuffle: tuple[str, ...] = ()
    """Permute the values of these components' tensors."""
    match_scale: tuple[str, ...] = ()
    """Use fresh weights with the donor's standard deviation, tensor by tensor, for these components."""
    noise: tuple[str, ...] = ()
    """Add Gaussian noise, as a fraction of the weights' size: 0.1, or mlp=0.1 for one component."""
    sharpen: str | None = None
    """Multiply attention's queries by this factor; match: the factor that gives each head its donor's entropy."""


@dataclass(frozen=True)
class Sweep:
    """Values to try; every combination is a cell, and the best cell of an arm is what the report compares."""

    lr: tuple[float, ...] | None = None
    """Peak learning rates of pretraining."""
    init_std: tuple[float, ...] | None = None
    """Standard deviations of fresh weights, for arms whose weights are drawn fresh."""
    dose: tuple[int, ...] | None = None
    """Procedural tokens of the warm-up, for arms with a warm-up."""


@dataclass(frozen=True)
class Arm:
    """One arm, written as its differences from the recipe. An empty arm is a cold start."""

    warmup: Values = field(default_factory=dict)
    """Options of its warm-up, which override the recipe's; `task` (or `data`) is required."""
    donors: dict[str, Values] = field(default_factory=dict)
    """A weight mixture: the warm-up of each component (attention, mlp, norms, positions), which overrides the
    recipe's. `embeddings` is the warm-up that the embeddings start from (default: the first)."""
    init: str | None = None
    """Start from this artifact or Hugging Face folder instead of a warm-up."""
    components: tuple[str, ...] | None = None
    """Components to carry into pretraining and into diagnostics."""
    layers: tuple[str, ...] | None = None
    """Carry only these layers: 0-5,8 for every component, mlp=0-5 for one."""
    heads: tuple[str, ...] | None = None
    """Carry only these heads of attention: [1.2, 0.3] (layer.head from 0), or random:2."""
    embeddings: Literal["fresh", "scale", "mean", "sample", "copy"] | None = None
    """How the token embeddings start in pretraining and in diagnostics."""
    treatment: TreatmentOptions | None = None
    """A control on the carried weights: shuffle, match_scale, sharpen, noise."""
    pretrain: Values = field(default_factory=dict)
    """Options of its pretraining, which override the recipe's."""
    diagnostics: dict[str, Values] = field(default_factory=dict)
    """Options of its diagnostics by name, which override the recipe's."""
    budgets: tuple[float, ...] | None = None
    """Its budgets instead of the recipe's."""
    procedural: tuple[int, ...] | None = None
    """Its amounts of procedural tokens instead of the recipe's."""
    sweep: Sweep | None = None
    """Its values to try, list by list, instead of the recipe's; an empty list: none."""

    @property
    def is_warmed(self) -> bool:
        """Whether it has one or more warm-ups."""
        return bool(self.warmup or self.donors)

    @property
    def carried(self) -> Values:
        """The arm's options that pretraining and diagnostics share."""
        given = {name: getattr(self, name) for name in ("init", "components", "layers", "heads", "embeddings")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Controls:
    """Arms made from others, to separate what a warm-up teaches from its side effects. `standard` is all of them."""

    which: tuple[Control, ...] | None = None
    """ramp: the baseline with a learning-rate ramp, if it has none. longer: the baseline with as many more corpus
    tokens as the warm-up takes. text: a warm-up on as many tokens of natural text. shuffled: the same warm-up on the
    task's tokens in random order. scale: fresh weights with the standard deviations of the warmed ones. embeddings:
    fresh weights, with embeddings that start as the arm's. By name only: sharpened: scale, with attention as sharp as
    the warmed model's. random-heads: as many other heads. text-continued: text, with all weights kept. random: the same
    warm-up on random tokens. mimetic: the baseline with structured fresh attention. Default: the standard controls;
    controls identical to their arm are skipped, and are an error if you name them."""
    of: tuple[str, ...] = ()
    """The arms to control (default: every arm with a warm-up of its own)."""
    text: Values = field(default_factory=dict)
    """The text of text and text-continued: {corpus: wikitext, text_field: text} (default: the recipe's corpus)."""


@dataclass(frozen=True)
class Launch:
    """How stages are started. `processes` and `sbatch` change the speed only; `precision` also changes results."""

    processes: int = 1
    """Processes that train one stage together with torchrun: one per GPU."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = None
    """Autocast precision of every stage that does not set its own."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """Options of sbatch for `--emit slurm`: {partition: gpu, time: 24:00:00, exclusive: true}."""


@dataclass(frozen=True)
class Published:
    """Numbers from the literature that a report shows beside the measured ones."""

    what: str
    """What was measured, in words."""
    section: str
    """Where it is published: the paper, or the section if that has been checked."""
    measure: Literal["loss", "perplexity", "accuracy", "exact_match", "tokens"]
    """accuracy and exact_match are shares from 0 to 1; tokens are corpus tokens to the baseline's final loss."""
    arms: dict[str, float]
    """The numbers, by arm."""
    diagnostic: str | None = None
    """The diagnostic that was measured (default: pretraining)."""
    step: int | None = None
    """The training step (default: the last)."""


@dataclass(frozen=True)
class Recipe:
    """An experiment: arms that differ in one thing, seeds, and what is measured."""

    name: str
    """Name of the experiment and of its folder."""
    model: str
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    arms: dict[str, Arm]
    """The arms to compare, by name."""
    title: str = ""
    """The question that the experiment answers, in one line."""
    asks: str | None = None
    """What the title asks about: pretraining or a diagnostic (default: pretraining, or the first diagnostic)."""
    family: str | None = None
    """Architecture family for shapes and presets (default: gpt2)."""
    corpus: str | None = None
    """The corpus for pretraining (default: none, diagnostics only)."""
    tokenizer: str | None = None
    """bytes, or a tokenizer by path or name."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    context: int = 128
    """Context of the model in tokens: the length of a pretraining row, and the limit for warm-up samples."""
    seeds: tuple[int, ...] = (0,)
    """Every arm runs once with each seed: [0, 1, 2], or 0-2."""
    warmup: Values = field(default_factory=dict)
    """Options of every arm's warm-up."""
    pretrain: Values = field(default_factory=dict)
    """Options of every arm's pretraining."""
    diagnostics: dict[str, Values] = field(default_factory=dict)
    """By task: options of the task and of the training; `warmup` overrides options of the warm-ups before it."""
    repeats: int = 1
    """Runs of every diagnostic from each seed's start. Accuracies are averaged by seed, so intervals count donors."""
    finetune: dict[str, Values] = field(default_factory=dict)
    """By name: fine-tuning of every arm's pretrained model. On a `corpus`, with options of pretraining that override
    the recipe's; or on GLUE's `tasks`, with options of `proctool eval finetune`: {tasks: [cola, sst2], steps: 800}."""
    evaluate: dict[str, Values] = field(default_factory=dict)
    """By name: benchmarks of every arm's pretrained model; options of `proctool eval harness`, such as
    {tasks: [piqa, hellaswag]}."""
    baseline: str = ""
    """The arm that the others are compared with (default: the first)."""
    setting: Literal["additive", "substitutive"] = "additive"
    """additive: every arm has the same corpus budget. substitutive: the budget that reaches the baseline's loss."""
    budgets: tuple[float, ...] = ()
    """Substitutive: shares of the pretraining steps, each with a full schedule, for every arm but the baseline."""
    procedural: tuple[int, ...] = ()
    """Amounts of procedural tokens; every warmed arm runs with each (default: the amount that `warmup` gives)."""
    sweep: Sweep | None = None
    """Values that every arm tries: {lr: [...], init_std: [...], dose: [...]}; it is compared with its best ones."""
    selection_seeds: tuple[int, ...] = ()
    """The seeds of a sweep's trials, apart from `seeds` (default: the first of `seeds` plus 1000)."""
    ladder: tuple[int, ...] = ()
    """Widths at which every arm is run, with the same number of corpus tokens per parameter: [64, 128, 256]."""
    extrapolate: str | None = None
    """With a ladder: the shape or preset whose gain the report predicts, such as gpt2."""
    controls: Controls | None = None
    """Control arms to add: `standard`, a list, or {which: [...], of: [...]}."""
    stop_hopeless: bool = False
    """Leave out the later seeds of an arm that is clearly worse than the baseline over at least two seeds."""
    launch: Launch = field(default_factory=Launch)
    """How stages are started: {processes: 8, precision: bf16}."""
    published: tuple[Published, ...] = ()
    """Numbers from the literature, for the report."""

    @property
    def on_tasks(self) -> dict[str, Values]:
        """The fine-tunings on GLUE tasks, which are reported as benchmarks; the others are on a corpus."""
        return {name: values for name, values in self.finetune.items() if "tasks" in values}

    @property
    def is_swept(self) -> bool:
        """Whether any arm is swept."""
        return self.sweep is not None or any(arm.sweep is not None for arm in self.arms.values())
