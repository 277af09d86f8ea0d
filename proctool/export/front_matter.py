"""The front matter of a model card, written with huggingface_hub's classes.

Fields: https://huggingface.co/docs/hub/model-cards. Each value comes from the artifact or from the user; unknown fields
are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.artifact import bare_name
from proctool.corpora.hub import PUBLISHED
from proctool.errors import OptionError
from proctool.units import to_perplexity

if TYPE_CHECKING:
    from proctool.models.saved import SavedModel

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,8}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Stated:
    """The facts that only the user knows."""

    license: str | None = None
    """License identifier of the hub, such as apache-2.0."""
    language: tuple[str, ...] = ()
    """Language codes such as en (default: those of its training corpora)."""

    def __post_init__(self) -> None:
        if self.license is not None and not _LICENSE.fullmatch(self.license):
            raise OptionError(
                f"license {self.license}: give an identifier of the hub, such as apache-2.0, mit or other"
            )
        if bad := [code for code in self.language if not _LANGUAGE.fullmatch(code)]:
            raise OptionError(f"language {bad[0]}: give a language code, such as en or pt-BR")


NOTHING = Stated()


@dataclass(frozen=True)
class Measured:
    """One recorded metric."""

    label: str
    kind: str
    """The hub's name of the metric."""
    value: float


def measured(metadata: Mapping[str, Any]) -> list[Measured]:
    """The metrics that an artifact records, on the validation split of its last training data."""
    found = metadata.get("metrics") or {}
    rows = []
    if isinstance(loss := found.get("loss"), int | float):
        rows.append(Measured("loss (nats per token)", "loss", float(loss)))
        if "corpus" in metadata and (perplexity := to_perplexity(float(loss))) is not None:
            rows.append(Measured("perplexity", "perplexity", perplexity))
    if isinstance(accuracy := found.get("accuracy"), int | float):
        rows.append(Measured("token accuracy", "accuracy", float(accuracy)))
    return rows


def front_matter(name: str, saved: SavedModel, stated: Stated) -> str:
    """The YAML block at the top of the card of the model `name`."""
    from huggingface_hub import ModelCardData

    nodes = list(_all(_as_node(saved)))
    abouts = [node.get("about") or {} for node in nodes]
    datasets = dict.fromkeys(name for about in abouts for name in _datasets(about))
    known = {each.repository: each.language for each in PUBLISHED.values()}
    language = stated.language or tuple(dict.fromkeys(code for each in datasets if (code := known.get(each))))
    is_procedural = saved.metadata.get("carried") or any("task" in about for about in abouts)
    results = _results(saved.metadata)
    data = ModelCardData(
        language=_one_or_all(language),
        license=stated.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["proctool", *(["procedural-pretraining"] if is_procedural else [])],
        base_model=_one_or_all(dict.fromkeys(_repositories(nodes))),
        datasets=list(datasets) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---"


def _as_node(saved: SavedModel) -> Mapping[str, Any]:
    return saved.parent if saved.artifact is None else saved.artifact.as_parent  # type: ignore[return-value]


def _all(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A model and all its ancestors."""
    yield node
    for parent in node.get("parents") or []:
        yield from _all(parent)


def _repositories(nodes: list[Mapping[str, Any]]) -> Iterator[str]:
    """The hub models among the ancestors."""
    for node in nodes:
        found = node.get("repository")
        if isinstance(found, Mapping) and isinstance(found.get("id"), str):
            yield found["id"]


def _datasets(about: Mapping[str, Any]) -> list[str]:
    """The hub datasets that a model was trained on: recorded, or derived from the corpus name in older artifacts."""
    recorded = about.get("datasets")
    if isinstance(recorded, list):
        return [each for each in recorded if isinstance(each, str)]
    corpus = str(about.get("corpus", ""))
    if corpus.startswith("hub:"):
        return [corpus.removeprefix("hub:").partition(":")[0]]
    return [PUBLISHED[corpus].repository] if corpus in PUBLISHED else []


def _results(metadata: Mapping[str, Any]) -> list[Any]:
    """The recorded metrics as the hub's EvalResults."""
    from huggingface_hub import EvalResult

    corpus, task = metadata.get("corpus"), metadata.get("task")
    if corpus is None and task is None:
        return []
    validation = (metadata.get("training") or {}).get("validation")
    what = _spec(task) if corpus is None else str(validation or corpus)
    datasets = _datasets({"corpus": validation} if validation else metadata)
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=datasets[0] if datasets else "procedural" if corpus is None else "local",
            dataset_name=bare_name(what),
            dataset_split="validation",
            metric_type=each.kind,
            metric_name=each.label,
            metric_value=each.value,
        )
        for each in measured(metadata)
    ]


def _spec(task: Any) -> str:
    return task if isinstance(task, str) else " + ".join(map(str, task))


def _one_or_all(values: Any) -> Any:
    """A single value unchanged, several as a list, none as None."""
    found = list(values)
    return found[0] if len(found) == 1 else found or None
