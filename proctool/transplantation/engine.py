"""Executing a plan: into a model in memory, or into a file, tensor by tensor."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import artifact, config
from proctool.artifact import Artifact, TensorCopy
from proctool.errors import ArtifactError, ModelError, OptionError, notice
from proctool.hub import model_id
from proctool.models.build import context_of, model_config, outline
from proctool.models.components import parse_components
from proctool.models.saved import SavedModel, config_values, open_model
from proctool.models.shapes import Written, written_sizes
from proctool.outputs import Output, reads_of, require_own_model, require_safe
from proctool.paths import user_path
from proctool.transplantation.asked import chosen_heads, layer_sets, treatments_of
from proctool.transplantation.donors import Donor
from proctool.transplantation.fresh import draw
from proctool.transplantation.leftovers import Leftover, leftovers
from proctool.transplantation.options import CARRIED, TransplantOptions
from proctool.transplantation.origin import Origin, records, summary
from proctool.transplantation.plan import Graft, Step, Target, differences, plan, target_of
from proctool.transplantation.sharpen import Sharpening
from proctool.transplantation.writable import require_writable

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

BODY = ("attention", "mlp", "norms")
"""The components that the paper carries into language pretraining (section 3)."""

OPTIONAL = ("norms", "positions")
"""Components without weights in some families: rotary positions, norms without weights."""


def transplant_into(
    model: PreTrainedModel,
    donor: SavedModel,
    carried: Sequence[str] = BODY,
    *,
    embeddings: str = "fresh",
    layers: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Origin]:
    """Copy the components `carried` of `donor` into `model`, in place, and start its embeddings by `embeddings`.

    `layers` are ranges such as "0-5" or "mlp=0-5"; `heads`, such as "1.2" or "random:2", limits attention to those
    heads. `positions` and `norms` are skipped if the family has none with weights, unless nothing else is carried.
    Returns the origin of every tensor, in the model's order. Raises ModelError if families or shapes differ or if the
    donor has values that are not finite, and OptionError if nothing would be carried. The model changes only after all
    checks.
    """
    import torch

    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    target = target_of(model, lambda name: tensors[name].detach(), seed)
    names = parse_components(carried)
    there = {place.component for place in target.places.values()}
    if rest := tuple(name for name in names if name in there or name not in OPTIONAL):
        names = rest
    source = Donor(donor)
    ranges = layer_sets(layers or (), names, target)
    chosen = chosen_heads(heads, names, ranges, target)
    grafts = [Graft(name, (source,), ranges.get(name), heads=chosen if name == "attention" else None) for name in names]
    steps = plan(target, grafts, embeddings, source)
    for left in leftovers(target, grafts, source if embeddings == "copy" else None):
        notice(left.words())
    made = {step.origin.tensor: step.make() for step in steps if step.make}
    if embeddings == "mean" and "head" not in there:
        notice(
            "embeddings mean: all rows start equal, and in a tied model the rows of tokens that are never predicted "
            "stay equal; use --no-tie or --embeddings scale"
        )
    require_writable(type(model).__name__, tensors, made)
    with torch.no_grad():
        for name, value in made.items():
            tensors[name].copy_(value)
    return [step.origin for step in steps]


@dataclass(frozen=True)
class Transplant:
    """A planned transplant: the origin of every tensor of the new model. Reads and writes nothing by itself."""

    options: TransplantOptions
    target: Target
    steps: tuple[Step, ...]
    donors: tuple[Donor, ...]
    notes: tuple[str, ...]
    """Notes for users: settings in which donors differ from the target."""
    left: tuple[Leftover, ...] = ()
    """Tensors of carried components that do not exist in the target."""

    @property
    def origins(self) -> list[Origin]:
        """Where each tensor comes from, in the model's order."""
        return [step.origin for step in self.steps]

    def values(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor by name, computed when it is reached. Raises ArtifactError, ModelError."""
        for step in self.steps:
            yield step.origin.tensor, self._value(step)

    def write(self, output: Path) -> Artifact:
        """Write the model artifact atomically, with only a few tensors in memory at a time."""
        same: dict[str, TensorCopy] = {}
        makers: dict[str, Callable[[], torch.Tensor]] = {}
        for step in self.steps:
            name = step.origin.tensor
            if step.same is not None and (found := step.same[0].verbatim(step.same[1])):
                same[name] = found
            else:
                makers[name] = functools.partial(self._value, step)
        shapes = {step.origin.tensor: ("F32", step.origin.shape) for step in self.steps}
        with _ahead(makers) as made:
            return artifact.write(
                output,
                {**same, **made},
                kind="model",
                metadata=self._metadata(),
                parents=self._parents(),
                shapes=shapes,
            )

    def has_written(self, found: Artifact) -> bool:
        """Whether this transplant wrote the artifact: its metadata and parents are the same."""
        parents = [each.as_parent if isinstance(each, Artifact) else dict(each) for each in self._parents()]
        mine: dict[str, Any] = json.loads(json.dumps({"about": self._metadata(), "parents": parents}))
        return mine == {"about": found.metadata, "parents": list(found.parents)}

    def _value(self, step: Step) -> torch.Tensor:
        value = step.make() if step.make else self.target.start(step.origin.tensor)
        if tuple(value.shape) != step.origin.shape:
            raise ModelError(f"{step.origin.tensor}: has shape {tuple(value.shape)}, not {step.origin.shape}")
        return value

    def _metadata(self) -> dict[str, Any]:
        components: dict[str, list[dict[str, Any]]] = {}
        for row in summary(self.origins):
            components.setdefault(row.provenance.component, []).append(row.provenance.record())
        metadata: dict[str, Any] = {
            "stage": "transplant",
            "command": "transplant",
            "seed": self.options.seed,
            "components": components,
            "donors": {str(donor): donor.content for donor in self.donors},
            "carried": records(summary(self.origins)),
            "origins": {origin.tensor: origin.record() for origin in self.origins},
            "config": config_values(self.target.config),
        }
        if self.left:
            metadata["left_behind"] = [left.record() for left in self.left]
        return metadata | self._tokenizer()

    def _tokenizer(self) -> dict[str, Any]:
        """The artifact record of the tokenizer that copied embeddings belong to; empty without copied embeddings."""
        embedding = next(origin for origin in self.origins if origin.component == "embeddings")
        if embedding.source == "base" and self.target.base is not None:
            return self.target.base.saved.tokenizer_record()
        if embedding.source == "copy":
            owner = next(donor for donor in self.donors if str(donor) == embedding.given[0].donor)
            return owner.saved.tokenizer_record()
        return {}

    def _parents(self) -> list[Artifact | Mapping[str, Any]]:
        base = [self.target.base] if self.target.base else []
        return [donor.saved.parent for donor in [*base, *self.donors]]


@contextmanager
def _ahead(makers: Mapping[str, Callable[[], torch.Tensor]]) -> Iterator[dict[str, Callable[[], torch.Tensor]]]:
    """The makers, to call in the order of their names; another thread runs the next two ahead."""
    order = iter(sorted(makers))
    waiting: deque[Future[torch.Tensor]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="transplant") as thread:

        def begin() -> None:
            if (name := next(order, None)) is not None:
                waiting.append(thread.submit(makers[name]))

        def take() -> torch.Tensor:
            made = waiting.popleft().result()
            begin()
            return made

        begin()
        begin()
        yield dict.fromkeys(makers, take)


def transplant(**options: Any) -> Artifact:
    """Build a model from components of other models and write it, like `proctool transplant`.

    The keyword arguments are the fields of `TransplantOptions`:

        proctool.transplant(attention="set.safetensors", mlp="eca.safetensors", output="mixed.safetensors")

    Returns the written artifact. Raises OptionError, ModelError, ArtifactError, and then writes nothing.
    """
    chosen = config.build(TransplantOptions, options, "transplant")
    return plan_transplant(chosen).write(chosen.output)


def plan_transplant(options: TransplantOptions) -> Transplant:
    """Plan and check everything from configurations and shapes, without reading weights.

    Raises OptionError, ModelError, ArtifactError.
    """
    require_safe([Output(options.output, "--output", "model")], reads_of(options))
    opened: dict[str, Donor] = {}

    def donor(path: str) -> Donor:
        is_on_hub = model_id(user_path(path)) is not None
        if not is_on_hub and not user_path(path).exists():
            raise ArtifactError(f"{path}: no such file; give a model artifact, a Hugging Face folder or a hub id")
        key = path if is_on_hub else str(user_path(path).resolve())
        if key not in opened:
            opened[key] = Donor(open_model(user_path(path)))
        return opened[key]

    given: dict[str, tuple[Donor, ...]] = {}
    for component in CARRIED:
        if written := getattr(options, component):
            given[component] = tuple(donor(path.strip()) for path in written[0].split(","))
            if len(set(given[component])) != len(given[component]):
                raise OptionError(f"{component}: the same donor is given twice in {written[0]}; give it once")
    way = options.embeddings
    embeddings_from = donor(options.embeddings_from) if options.embeddings_from else None
    if embeddings_from is not None and way in (None, "fresh"):
        raise OptionError("embeddings_from: needs --embeddings copy, mean, sample or scale; add one")
    if embeddings_from is None and way not in (None, "fresh"):
        if len(opened) != 1:
            raise OptionError(f"embeddings: {way} needs one donor; give it with --embeddings-from FILE")
        embeddings_from = next(iter(opened.values()))
    donors = tuple(opened.values())
    _tell_apart(donors)
    if not donors:
        raise OptionError("transplant: no donor is given; give one with --attention, --mlp, --norms, ... FILE")
    base = Donor(open_model(user_path(options.base))) if options.base else None
    model = outline(base.config if base else _configuration(options, donors[0]))
    target = target_of(model, lambda name: draw(model, name, options.seed), options.seed, base)
    if base is not None:
        _check_whole(target, base)
    ranges = layer_sets(options.layers, given, target)
    treatments = treatments_of(options, given)
    grafts = [Graft(name, each, ranges.get(name), treatments[name]) for name, each in given.items()]
    sharpening: Sharpening | None = None
    if options.heads is not None or options.sharpen is not None:
        chosen = chosen_heads(options.heads, given, ranges, target)
        if options.sharpen is not None:
            sharpening = Sharpening(treatments["attention"].sharpen, target, given["attention"])
        factors = sharpening.factors if sharpening else None
        grafts = [
            dataclasses.replace(each, heads=chosen, factors=factors) if each.component == "attention" else each
            for each in grafts
        ]
    steps = plan(target, grafts, way, embeddings_from, options.depth_map)
    if sharpening is not None:
        sharpening.steps = steps
    left = leftovers(target, grafts, embeddings_from if way == "copy" else None)
    planned = Transplant(options, target, tuple(steps), donors, tuple(differences(target, donors)), tuple(left))
    require_own_model(options.output, "--output", planned.has_written, force=options.force)
    return planned


def _tell_apart(donors: Sequence[Donor]) -> None:
    """Give donors distinct labels: their files often have the same name in different folders."""
    for label in (lambda path: f"{path.absolute().parent.name}/{path.name}", str):
        names = [donor.label for donor in donors]
        for donor in donors:
            if names.count(donor.label) > 1:
                donor.label = label(donor.saved.path)


def _check_whole(target: Target, base: Donor) -> None:
    for name, shape in target.shapes.items():
        if base.shapes.get(name) != shape:
            found = f"has shape {base.shapes[name]}, not {shape}" if name in base.shapes else "is missing"
            raise ModelError(f"{base.saved.path}: tensor {name} {found}, which contradicts its configuration")


def _configuration(options: TransplantOptions, first: Donor) -> PretrainedConfig:
    """The configuration of a target without a base: from the options, else the first donor's."""
    written = Written() if options.model is None else written_sizes(options.model)
    vocab_size = options.vocab_size or written.vocab_size or int(first.config.vocab_size)
    context = options.context or written.context or context_of(first.config)
    if options.model is not None:
        if context is None:
            raise OptionError(f"context: {first} has no context limit to use; give --context")
        family = first.config.model_type
        return model_config(options.model, vocab_size=vocab_size, context=context, family=family, padded=False)
    made = copy.deepcopy(first.config)
    made.vocab_size = vocab_size
    if context is not None:
        made.max_position_embeddings = context
    return made


def as_json(planned: Transplant) -> dict[str, Any]:
    """The plan as JSON: totals, notes, and the origin of every tensor."""
    return {
        "command": "transplant",
        "output": str(planned.options.output),
        "family": planned.target.config.model_type,
        "parameters": sum(origin.size for origin in planned.origins),
        "notes": list(planned.notes),
        "left_behind": [left.record() for left in planned.left],
        "carried": records(summary(planned.origins)),
        "tensors": [
            {"tensor": origin.tensor, "shape": list(origin.shape), "layer": origin.layer, **origin.record()}
            for origin in planned.origins
        ],
    }
