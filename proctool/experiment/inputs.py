"""Checks of everything that a plan's stages read, before the first of them trains."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from proctool.errors import CorpusError, OptionError, ProctoolError
from proctool.evaluation.finetune import FinetuneOptions
from proctool.evaluation.harness import HarnessOptions, require_tasks
from proctool.experiment.graph import Plan
from proctool.experiment.stage import Stage
from proctool.hub import model_id
from proctool.paths import is_path
from proctool.training.options import InitOptions, PretrainOptions
from proctool.transplantation.options import CARRIED, TransplantOptions
from proctool.units import format_count

if TYPE_CHECKING:
    from proctool.corpora.size import CorpusSize

T = TypeVar("T")


def check_inputs(plan: Plan, *, quick: bool) -> list[str]:
    """Open everything that unfinished stages read: models, tokenizers, and corpora with their field and splits.

    With `quick` it uses no network and returns a note for each unchecked input. Raises OptionError.
    """
    notes: dict[str, None] = {}
    models, texts = dict.fromkeys(_models(plan.missing())), dict.fromkeys(_texts(plan.missing()))
    for option, path in models:
        if quick and model_id(path) is not None:
            notes[f'{option} "{path}" is not a local path; it is not checked, but read from the hub later'] = None
            continue
        _of(option, lambda path=path: _open_model(path))  # type: ignore[misc]
    asked = [each.options for each in plan.missing() if isinstance(each.options, HarnessOptions)]
    for options in [] if quick else {each.tasks: each for each in asked}.values():
        _of("evaluate", functools.partial(require_tasks, options))
    for task, data in dict.fromkeys(_tasks(plan.missing())):
        if quick and not is_path(data):
            notes[
                f'the data of fine-tuning tasks, "{data}", is not local; it is not checked, but read from the hub later'
            ] = None
            continue
        _of("finetune", functools.partial(_read_task, task, data))
    for text in texts:
        _check_text(*text, quick=quick, notes=notes)
    return list(notes)


def _models(stages: list[Stage]) -> Iterator[tuple[str, str]]:
    """The options that name a model, with its path or id."""
    for stage in stages:
        options = stage.options
        if isinstance(options, InitOptions) and options.init not in (None, "none") and "init" not in stage.inputs:
            yield "init", str(options.init)
        if isinstance(options, TransplantOptions):
            for name in (*CARRIED, "base", "embeddings_from"):
                given: Any = getattr(options, name)
                if name not in stage.inputs:
                    yield from ((name, each) for each in ((given,) if isinstance(given, str) else given or ()))


def _tasks(stages: list[Stage]) -> Iterator[tuple[str, str]]:
    """The tasks of fine-tunings, with their data."""
    from proctool.evaluation.finetune.glue import REPOSITORY

    for stage in stages:
        if isinstance(stage.options, FinetuneOptions):
            yield stage.command[-1], stage.options.data or REPOSITORY


def _read_task(task: str, data: str) -> None:
    from proctool.evaluation.finetune.glue import read_examples

    for held_out in (False, True):
        read_examples(task, data, held_out)


def _texts(stages: list[Stage]) -> Iterator[tuple[Any, ...]]:
    for stage in stages:
        options = stage.options
        if isinstance(options, PretrainOptions):
            yield (
                options.corpus, options.text_field, options.tokenizer, options.context, options.budget,
                options.cache_dir, bool(options.skip_bad), options.validation, options.end_of_text,
            )  # fmt: skip


@dataclass(frozen=True)
class CorpusReading:
    """A corpus, and how much of it one stage reads at most."""

    size: CorpusSize
    tokens: int
    epochs: float | None
    """Of its training tokens within the budget; None if their number is unknown."""

    def words(self) -> str:
        """A line for people."""
        passes = "" if self.epochs is None else f" in {self.epochs:.3g} epochs"
        return f"{self.size.words()}; a stage reads at most {format_count(self.tokens)}{passes}"


def corpora_read(stages: Sequence[Stage]) -> list[CorpusReading]:
    """The corpora that stages read, without network access. Raises CorpusError."""
    from proctool.corpora.size import corpus_size

    found: dict[tuple[Any, ...], list[tuple[int, int | None]]] = {}
    for stage in stages:
        options = stage.options
        if isinstance(options, PretrainOptions):
            key = (
                options.corpus, options.tokenizer, options.text_field, options.validation, options.end_of_text,
                bool(options.skip_bad), options.cache_dir,
            )  # fmt: skip
            found.setdefault(key, []).append((stage.tokens - stage.procedural_tokens, options.budget))
    readings = []
    for (corpus, tokenizer, field, validation, end, skip_bad, cache), readers in found.items():
        size = corpus_size(
            corpus, tokenizer, text_field=field, validation=validation, end_of_text=end, skip_bad=skip_bad,
            cache_dir=cache,
        )  # fmt: skip
        epochs = [tokens / min(budget or size.tokens, size.tokens) for tokens, budget in readers if size.tokens]
        readings.append(CorpusReading(size, max(tokens for tokens, _ in readers), max(epochs, default=None)))
    return readings


def _open_model(path: str) -> None:
    from proctool.models.saved import open_model
    from proctool.paths import user_path

    if not user_path(path).exists() and model_id(path) is None:
        raise OptionError(f"{path}: no such file or folder")
    open_model(user_path(path))


def _check_text(
    name: str, field: str | None, tokenizer: str, context: int, budget: int | None, cache: Any, skip_bad: bool,
    validation: str | None, end_of_text: str | None, *, quick: bool, notes: dict[str, None],
) -> None:  # fmt: skip
    from proctool.corpora import open_corpus
    from proctool.corpora.catalog import is_here
    from proctool.corpora.documents import VALIDATION
    from proctool.corpora.hub import repositories
    from proctool.corpora.preview import require_rows
    from proctool.corpora.store import is_built, open_store
    from proctool.corpora.subwords import load_tokenizer, load_tokenizer_here

    found = _of("tokenizer", lambda: (load_tokenizer_here if quick else load_tokenizer)(tokenizer, end_of_text))
    if found is None:
        notes[f'tokenizer "{tokenizer}" is not a local path; it is not checked, but read from the hub later'] = None
    if quick and not all(is_here(each, cache) for each in (name, validation) if each is not None):
        notes[f'corpus "{name}" is on the hub; it is not checked, but read later'] = None
        return
    corpus = _of(
        "corpus",
        lambda: open_corpus(name, text_field=field, validation=validation, skip_bad=skip_bad, cache_dir=cache),
    )
    if found is not None and is_built(corpus, found, budget, cache):
        # A store may be of another context: its rows are counted, and the corpus is not read.
        store = _of("corpus", lambda: open_store(corpus, found, context, budget=budget, cache_dir=cache))
        _of("corpus", lambda: store.split(VALIDATION))
    elif not (quick and repositories(corpus)):
        _of("corpus", lambda: require_rows(corpus, found, context, skip_bad=skip_bad))


def _of(option: str, look: Callable[[], T]) -> T:
    """Call `look`; its errors get the option's name."""
    try:
        return look()
    except CorpusError as error:
        raise OptionError(f"{option}: {str(error).removeprefix(f'{option} ')}") from None
    except ProctoolError as error:
        raise OptionError(f"{option}: {error}") from None
