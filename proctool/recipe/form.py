"""What may stand in a recipe: one field, one key. Nothing here is checked beyond its kind; see check.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Values = dict[str, Any]
"""Options by name, not yet checked against the class they are for."""

Control = Literal["ramp", "longer", "shuffled", "scale", "embeddings", "sharpened", "random-heads"]
STANDARD: tuple[Control, ...] = ("ramp", "longer", "shuffled", "scale", "embeddings")
"""The standard controls; `Controls.which` explains them."""
CONTROLS: tuple[Control, ...] = (*STANDARD, "sharpened", "random-heads")
"""Those, and controls that are made when they are named."""


@dataclass(frozen=True)
class TreatmentOptions:
    """What is done to carried weights to see whether their structure matters; as the flags of `proctool transplant`."""

    shuffle: tuple[str, ...] = ()
    """Permute the values of these components' tensors."""
    match_scale: tuple[str, ...] = ()
    """For these components take fresh weights with the donor's standard deviation, tensor by tensor."""
    noise: tuple[str, ...] = ()
    """Add Gaussian noise of this fraction of the weights' size: 0.1, or mlp=0.1 for one component."""
    sharpen: str | None = None
    """Multiply attention's queries by this factor; match: by each head's own, to have the donor's entropy."""


@dataclass(frozen=True)
class Arm:
    """One treatment, as its differences from the recipe. Nothing at all is a cold start."""

    warmup: Values = field(default_factory=dict)
    """Its warm-up, over the recipe's, with the `task` (or `data`)."""
    donors: dict[str, Values] = field(default_factory=dict)
    """A weight mixture: by component (attention, mlp, norms, positions) the warm-up that it comes from, over the
    recipe's. `embeddings` names the one that gives the embeddings their start; otherwise it is the first."""
    init: str | None = None
    """Start from this artifact or Hugging Face folder instead of a warm-up."""
    components: tuple[str, ...] | None = None
    """What is carried over, into pretraining and diagnostics alike."""
    layers: tuple[str, ...] | None = None
    """Carry only these layers: 0-5,8 for every component, mlp=0-5 for one."""
    heads: tuple[str, ...] | None = None
    """Carry only these heads of attention: [1.2, 0.3] (layer.head from 0), or random:2."""
    embeddings: Literal["fresh", "scale", "mean", "sample", "copy"] | None = None
    """Start of the token embeddings, in pretraining and diagnostics alike."""
    treatment: TreatmentOptions | None = None
    """A control on the carried weights: shuffle, match_scale, sharpen, noise."""
    pretrain: Values = field(default_factory=dict)
    """Its pretraining, over the recipe's."""
    diagnostics: dict[str, Values] = field(default_factory=dict)
    """Its diagnostics, over the recipe's, by name."""
    budgets: tuple[float, ...] | None = None
    """Its budgets instead of the recipe's."""
    procedural: tuple[int, ...] | None = None
    """Its amounts of procedural tokens instead of the recipe's."""

    @property
    def is_warmed(self) -> bool:
        """Whether it has a warm-up, or several."""
        return bool(self.warmup or self.donors)

    @property
    def carried(self) -> Values:
        """The options at the arm's own level that pretraining and diagnostics share."""
        given = {name: getattr(self, name) for name in ("init", "components", "layers", "heads", "embeddings")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Controls:
    """Arms made from others, to tell what a warm-up teaches from its side effects. `controls: standard` is all."""

    which: tuple[Control, ...] | None = None
    """ramp: the baseline with a learning-rate ramp, where it has none. longer: the baseline with the warm-up's tokens
    as further corpus steps. shuffled: the same warm-up on the task's tokens in random order. scale: fresh weights with
    the warmed ones' standard deviations. embeddings: fresh weights, but for embeddings that start as the arm's do.
    By name only: sharpened: scale, with attention as sharp as the warmed one's. random-heads: as many other heads.
    Default: all that differ from their arm; one that is named and does not is an error."""
    of: tuple[str, ...] = ()
    """The arms that are controlled (default: every arm with a warm-up of its own)."""


@dataclass(frozen=True)
class Launch:
    """How stages are started. It changes how fast results come, and `precision` also what they are."""

    processes: int = 1
    """Processes that train one stage together, by torchrun: one for each GPU."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = None
    """Autocast precision of every stage that does not say its own."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """Options of sbatch for `--emit slurm`: {partition: gpu, time: 24:00:00, exclusive: true}."""


@dataclass(frozen=True)
class Published:
    """Numbers from the literature that a report shows beside those measured."""

    what: str
    """What was measured, in words."""
    section: str
    """Where it is published, as far as that has been checked: the paper, or the place in it."""
    measure: Literal["loss", "perplexity", "accuracy", "exact_match", "tokens"]
    """accuracy and exact_match are shares from 0 to 1; tokens are corpus tokens to the baseline's final loss."""
    arms: dict[str, float]
    """The numbers, by arm."""
    diagnostic: str | None = None
    """The diagnostic, where it is one's; otherwise it is pretraining's."""
    step: int | None = None
    """The training step, where it is not the last."""


@dataclass(frozen=True)
class Recipe:
    """An experiment: arms that differ in one thing, seeds, and what is measured."""

    name: str
    """Names the experiment's folder."""
    model: str
    """A preset, layers x heads x width (4x4x64), config.json or OWNER/NAME."""
    arms: dict[str, Arm]
    """What is compared, by name."""
    title: str = ""
    """The question it answers, in one line."""
    family: str | None = None
    """Architecture family for shapes and presets (default: gpt2)."""
    corpus: str | None = None
    """What arms are pretrained on. None: diagnostics only."""
    tokenizer: str | None = None
    """bytes, or any tokenizer by path or name."""
    end_of_text: str | None = None
    """The token that ends a text (default: the one the tokenizer names)."""
    context: int = 128
    """Tokens the model can attend to: pretraining's row, and room for every warm-up sequence."""
    seeds: tuple[int, ...] = (0,)
    """Every arm is run once with each."""
    warmup: Values = field(default_factory=dict)
    """Options of every arm's warm-up."""
    pretrain: Values = field(default_factory=dict)
    """Options of every arm's pretraining."""
    diagnostics: dict[str, Values] = field(default_factory=dict)
    """By name of the task: its options, the training's, and `warmup` for differences of the warm-ups before it."""
    finetune: dict[str, Values] = field(default_factory=dict)
    """By name: training that goes on from every arm's pretrained model; its `corpus` and other options of pretraining,
    over the recipe's."""
    baseline: str = ""
    """The arm others are compared with. Default: the first."""
    setting: Literal["additive", "substitutive"] = "additive"
    """additive: every arm has the same corpus budget. substitutive: how few corpus tokens reach the baseline's loss?"""
    budgets: tuple[float, ...] = ()
    """Substitutive: shares of pretraining's steps, each with a whole schedule, for every arm but the baseline."""
    procedural: tuple[int, ...] = ()
    """Amounts of procedural tokens: every warmed arm is run with each (default: as many as `warmup` says)."""
    controls: Controls | None = None
    """Arms that are made from the others as controls: `standard`, a list, or {which: [...], of: [...]}."""
    launch: Launch = field(default_factory=Launch)
    """How stages are started: {processes: 8, precision: bf16}."""
    published: tuple[Published, ...] = ()
    """Numbers from the literature, for the report."""
