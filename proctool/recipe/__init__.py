"""A recipe: one strict YAML file that describes an experiment. docs/recipes.md explains every key.

    name: demo
    model: 4x4x64
    corpus: python
    context: 128
    seeds: [0, 1]
    warmup: {steps: 600, batch_size: 64}                    # for the warm-up of every arm
    pretrain: {steps: 1000, batch_size: 32, schedule: cosine}
    diagnostics:
      haystack: {pairs: 8, steps: 400, batch_size: 64}      # options of the task and of the training
    arms:                                                   # each arm: only what differs
      cold: {}
      set: {warmup: {task: "set:inputs=24"}}
      attention: {warmup: {task: "set:inputs=24"}, components: [attention]}
      both: {donors: {attention: {task: "set:inputs=24"}, mlp: {task: "eca:small"}}}
    baseline: cold
    controls: standard

Options have the names of the flags of `proctool warmup`, `pretrain` and `eval` (dashes and underscores are the same),
and the same classes check them. An omitted option has the command's default.
"""

from proctool.recipe.arms import PlannedArm
from proctool.recipe.check import build_recipe, load_recipe
from proctool.recipe.form import Arm, Controls, Launch, Published, Recipe, TreatmentOptions
from proctool.recipe.forms import arms_of

__all__ = [
    "Arm",
    "Controls",
    "Launch",
    "PlannedArm",
    "Published",
    "Recipe",
    "TreatmentOptions",
    "arms_of",
    "build_recipe",
    "load_recipe",
]
