"""What is searched: small models that stand for the target, cold starts, and candidates.

Rates are written for a model of width 64 and divided by the width from there, and standard deviations are factors of
the rule for the width (`Shape.init_std`), so that a choice means the same at every width. For AdamW on hidden matrices
this is the rule of Yang et al., "Tensor Programs V", 2022, arXiv:2203.03466, table 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proctool.errors import ModelError, OptionError
from proctool.models.shapes import Shape, parse_model
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.registry import WARMUPS, parse_spec
from proctool.search.options import SearchOptions

FAMILIES = ("gpt2", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Families with a width rule: a shape describes all that matters of a layer, and all layers are alike."""
WIDTHS, MOST_LAYERS, MOST_HEADS = (32, 64, 128), 4, 4
"""The default widths of the small models, and their limits."""

RATE_WIDTH = 64
RATES = (1.5e-3, 3e-3, 6e-3, 1.2e-2)
STDS = (0.5, 1.0, 2.0)
"""The grid of cold starts. It grows as long as the best one is on its edge."""
DOSES = (0.125, 0.25, 0.5, 1.0)
"""Procedural tokens as a share of the corpus tokens."""
COMPONENTS = ("attention,mlp,norms", "attention", "mlp")
EMBEDDINGS = ("scale", "fresh")
SAMPLE_LENGTH = 64
"""Most tokens of a default task's sample: longer ones take a small model too long to learn."""

Params = Mapping[str, Any]
"""A point of the search as Optuna holds it."""


@dataclass(frozen=True)
class Cold:
    """A cold start: its rate at width 64, and its standard deviation as a factor of the rule for the width."""

    rate: float
    std: float


@dataclass(frozen=True)
class Candidate:
    """A warm-up and how its weights are used."""

    task: str
    dose: float
    """Procedural tokens as a share of the corpus tokens."""
    components: str
    """What is carried over, separated by commas."""
    embeddings: str
    rate: float
    """Peak learning rate of the pretraining at width 64."""

    @property
    def warmup(self) -> tuple[str, float, str, str]:
        """Everything but the rate."""
        return self.task, self.dose, self.components, self.embeddings


def rate_at(rate: float, width: int) -> float:
    """A rate of width 64 at another width, to four digits."""
    return float(f"{rate * RATE_WIDTH / width:.4g}")


def std_at(std: float, width: int) -> float:
    """A factor of the standard deviation at a width, to four digits."""
    return float(f"{std * Shape(1, 1, width).init_std:.4g}")


def target_of(options: SearchOptions) -> tuple[Shape, str]:
    """The target's shape and family. Raises ModelError for a family without a width rule."""
    found = parse_model(options.model)
    if isinstance(found, Shape):
        shape, family = found, options.family
    else:
        from proctool.models.build import read_config

        values = read_config(found)
        family = values["model_type"]
        sizes = [
            next((values[key] for key in keys if type(values.get(key)) is int), None)
            for keys in (("num_hidden_layers", "n_layer"), ("num_attention_heads", "n_head"), ("hidden_size", "n_embd"))
        ]
        if None in sizes and family in FAMILIES:
            raise ModelError(f"{found}: does not give its layers, heads and width; add them")
        shape = Shape(*(each or 1 for each in sizes))
    if family not in FAMILIES:
        raise ModelError(
            f"model {options.model}: no small model stands for the family {family}, because it has no width rule; "
            f"search with a target of {', '.join(FAMILIES)}"
        )
    return shape, family


def proxies(options: SearchOptions) -> tuple[Shape, ...]:
    """The small models of the target's family, the narrowest first. Raises ModelError, OptionError."""
    target, _ = target_of(options)
    widths = options.widths or tuple(width for width in WIDTHS if width <= target.width)
    if not options.widths and len(widths) < 2:
        widths = (max(2, target.width // 2), target.width)
    if wide := [width for width in widths if width > target.width]:
        raise OptionError(f"widths: {wide[0]} is wider than the target's {target.width}; use at most that")
    return tuple(_proxy(target, width) for width in widths)


def _proxy(target: Shape, width: int) -> Shape:
    heads = range(min(target.heads, MOST_HEADS), 0, -1)
    # Rotary positions need an even head size.
    fitting = next((each for each in heads if width % each == 0 and width // each % 2 == 0), None)
    if fitting is None:
        raise OptionError(f"widths: {width} is odd; write an even width")
    return Shape(min(target.layers, MOST_LAYERS), fitting, width)


def tasks_of(options: SearchOptions) -> tuple[str, ...]:
    """The full specifications of the tasks to try. Raises OptionError for one that does not fit the context."""
    if not options.task:
        length = min(options.context, SAMPLE_LENGTH)
        fitting = []
        for spec in WARMUPS:
            try:
                fitting.append(parse_spec(spec).with_length(length).spec)
            except OptionError:
                continue  # too short a context for it
        if not fitting:
            raise OptionError(f"context = {options.context}: too short for every task; use a longer context")
        return tuple(fitting)
    found = []
    for spec in options.task:
        task = parse_tasks([spec])
        if task.length > options.context:
            raise OptionError(
                f"task {spec}: its samples have {task.length} tokens, more than the context of {options.context}; "
                "use shorter samples, or a longer context"
            )
        found.append(task.spec)
    return tuple(dict.fromkeys(found))


def cold_cells() -> list[Cold]:
    """The cold starts to try at the smallest width: the default first."""
    return sorted(
        (Cold(rate, std) for rate in RATES for std in STDS), key=lambda each: (each != Cold(6e-3, 1.0), each.rate)
    )


def beyond(best: Cold, tried: Sequence[Cold]) -> list[Cold]:
    """Cold starts next to the best one, if it is on the edge of those that were tried."""
    found = []
    for end, factor in ((max, 2.0), (min, 0.5)):
        rates, stds = ({getattr(each, name) for each in tried} for name in ("rate", "std"))
        if best.rate == end(rates):
            found.append(Cold(best.rate * factor, best.std))
        if len(stds) > 1 and best.std == end(stds):
            found.append(Cold(best.rate, best.std * factor))
    return found


def candidate_rates(cold: float) -> tuple[float, float]:
    """The range of candidates' rates around the best one of cold starts: wider below, as carried weights may need."""
    return cold / 4, cold * 2


def around(rate: float) -> list[float]:
    """The rates to try at a wider model: the best of the narrower one first."""
    return [rate, rate / 2, rate * 2]


def first_candidates(tasks: tuple[str, ...], rate: float) -> list[Candidate]:
    """One candidate per task, at the cold start's best rate: every task is tried before Optuna chooses."""
    return [Candidate(task, 0.5, COMPONENTS[0], "scale", rate) for task in tasks]


def short_task(spec: str) -> str:
    """The registered name of a task: `set` for `set:inputs=24`."""
    return spec.partition(":")[0]
