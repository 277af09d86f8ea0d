"""EleutherAI's lm-evaluation-harness on a model artifact, without an export (needs the extra `[eval]`).

The harness builds the prompts and scores the answers: its HFLM class gets the model and the tokenizer in memory.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from proctool.errors import CorpusError, ModelError, OptionError, first_line
from proctool.internals import of_lm_eval
from proctool.outputs import Output, reads_of, require_safe
from proctool.results import HarnessScores, write_results
from proctool.training.options import INCIDENTAL

_CODE = re.compile(r"!function|!!python|^\s*class\s*:|__\w+__", re.MULTILINE)
"""Parts of a task's YAML that would run code: Python functions, classes, and templates with Python internals."""


@dataclass(frozen=True, kw_only=True)
class HarnessOptions:
    """Run tasks of EleutherAI's lm-evaluation-harness on a model, without an export."""

    tasks: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Tasks, groups, tags or patterns of the harness: piqa,blimp_*."""
    data: Path | None = None
    """Folder with TASK.jsonl or DATASET.jsonl files, instead of the hub."""
    include_path: tuple[Path, ...] = ()
    """Folder of your own task YAML files, without code (repeatable)."""
    limit: int | None = None
    """Samples per task, from the first (default: all)."""
    num_fewshot: int | None = None
    """Examples in the prompt (default: the task's)."""
    batch_size: int = 32
    """Sequences per batch."""
    tokenizer: str | None = None
    """Tokenizer, a path or a name such as bytes (default: the model's)."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    seed: int = 1234
    """Seed for few-shot examples and other random choices of tasks."""
    output: Path | None = field(default=None, metadata=INCIDENTAL)
    """File to write the results to, as a line of JSON (default: none)."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise OptionError("tasks: none given; give at least one, such as --tasks blimp_causative")
        for name, least in (("limit", 1), ("num_fewshot", 0), ("batch_size", 1), ("seed", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise OptionError(f"{name} = {value}: must be at least {least}")


def harness(model: Path, options: HarnessOptions) -> dict[str, Any]:
    """Every metric of every task, as the harness reports it.

    Raises OptionError (no lm-eval, an unknown task), CorpusError (a task's data), ArtifactError, ModelError.
    """
    if find_spec("lm_eval") is None:
        raise OptionError('lm-evaluation-harness is not installed; run pip install "proctool[eval]"')
    from proctool.evaluation.eval_model import open_subject
    from proctool.export.folder import written_tokenizer

    if options.output is not None:
        require_safe([Output(options.output, "--output", "results")], reads_of(options, model=model))
    subject = open_subject(model, options.tokenizer, options.end_of_text)
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(options.include_path)
    names = known_tasks(options.tasks, manager)
    if options.data is not None and not options.data.is_dir():
        raise CorpusError(f"{options.data}: no such folder; give the folder with the tasks' .jsonl files")
    with _kept_from_side_paths():
        tasks = _load(names, manager, options.data)
        tokenizer = written_tokenizer(subject.saved, subject.tokenizer).hf
        wrapped = HFLM(pretrained=subject.model(), tokenizer=tokenizer, batch_size=options.batch_size)
        try:
            found = lm_eval.simple_evaluate(
                model=wrapped,
                tasks=tasks,
                task_manager=manager,
                num_fewshot=options.num_fewshot,
                limit=options.limit,
                log_samples=False,
                random_seed=options.seed,
                numpy_random_seed=options.seed,
                torch_random_seed=options.seed,
                fewshot_random_seed=options.seed,
            )
        except AssertionError:  # the harness's only check of lengths
            raise ModelError(
                f"{model}: its context of {subject.context} tokens is too short for an answer of these tasks; use a "
                "model with a longer context"
            ) from None
        except (ValueError, RuntimeError, IndexError) as error:  # the harness has no errors of its own
            raise ModelError(f"{model}: lm-evaluation-harness failed: {first_line(error)}") from None
    result = {
        "event": "harness",
        **subject.metadata(),
        "lm_eval": lm_eval.__version__,
        "seed": options.seed,
        "limit": options.limit,
        "num_fewshot": options.num_fewshot,
        "results": {name: _metrics(values) for name, values in found["results"].items()},
        "samples": {name: count["effective"] for name, count in found["n-samples"].items()},
        "task_versions": {name: str(version) for name, version in found["versions"].items()},
    }
    if options.output is not None:
        write_results(options.output, [_scores(result)])
    return result


def _scores(result: Mapping[str, Any]) -> HarnessScores:
    """What a results file keeps."""
    kept = {each.name: result[each.name] for each in fields(HarnessScores)}
    finite = {
        task: {metric: float(value) for metric, value in values.items() if math.isfinite(value)}
        for task, values in kept.pop("results").items()
    }
    return HarnessScores(**kept, results=finite)


def require_tasks(options: HarnessOptions) -> None:
    """Raise OptionError if the harness is not installed or does not have the tasks."""
    if find_spec("lm_eval") is None:
        raise OptionError('lm-evaluation-harness is not installed; run pip install "proctool[eval]"')
    known_tasks(options.tasks, _manager(options.include_path))


@functools.cache
def _own_tasks() -> Any:
    """The harness's tasks. Kept, because reading their thousands of files takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _manager(include: Sequence[Path]) -> Any:
    from lm_eval.tasks import TaskManager

    if not include:
        return _own_tasks()
    for folder in include:
        if not folder.is_dir():
            raise OptionError(f"include_path: {folder}: no such folder")
        for path in sorted(folder.rglob("*")):
            if path.is_file() and (path.suffix in (".yaml", ".yml") or "yaml" in path.name):
                if found := _CODE.search(path.read_text(encoding="utf-8", errors="replace")):
                    raise OptionError(
                        f"{path}: runs code ({found.group().strip()}), which proctool does not allow; remove it"
                    )
                if re.search(r"^\s*include\s*:\s*[./~]*/", path.read_text(errors="replace"), re.MULTILINE):
                    raise OptionError(f"{path}: includes a file of another folder; copy that file into this folder")
    return TaskManager(include_path=[str(folder) for folder in include])


def known_tasks(wanted: Iterable[str], manager: Any) -> list[str]:
    """The tasks that names and patterns match. Raises OptionError with similar names on an unknown one."""
    known: list[str] = manager.all_tasks
    found: list[str] = []
    for name in wanted:
        matches = [name] if name in known else manager.match_tasks([name]) if re.search(r"[*?\[]", name) else []
        if not matches:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            advice = f"did you mean {' or '.join(near)}?" if near else "`lm_eval ls tasks` lists them"
            raise OptionError(f'tasks: the harness has no task "{name}" ({advice})')
        found += [match for match in matches if match not in found]
    return found


def _load(names: Sequence[str], manager: Any, data: Path | None) -> list[Any]:
    if data is not None:
        return [_with_file(name, manager, data) for name in _leaves(names, manager)]
    tasks: list[Any] = []
    for name in names:
        try:
            loaded = manager.load([name])
            tasks += (
                list(loaded["tasks"].values()) if name not in loaded.get("groups", {}) else [loaded["groups"][name]]
            )
        except Exception as error:  # datasets, the hub client and the network each raise their own
            raise CorpusError(
                f"{name}: its data cannot be loaded ({first_line(error)}); give .jsonl files with --data FOLDER"
            ) from None
    return tasks


def _leaves(names: Iterable[str], manager: Any) -> Iterator[str]:
    """The single tasks in tasks, groups and tags, without loading data."""
    for name in names:
        inner = of_lm_eval.members(name, manager)
        if inner is None:
            yield name
        else:
            yield from _leaves(inner, manager)


def _with_file(name: str, manager: Any, data: Path) -> Any:
    """A task of the harness with a local file as its data. Raises CorpusError, OptionError."""
    settings = of_lm_eval.task_settings(name, manager)
    if "class" in settings or "custom_dataset" in settings:
        raise OptionError(f"{name}: the task creates its data itself and cannot use --data; leave the task out")
    candidates = [data / f"{stem}.jsonl" for stem in (name, settings.get("dataset_name")) if stem]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise CorpusError(
            f"{data}: no {' or '.join(candidate.name for candidate in candidates)} for the task {name}; add that file"
        )
    split = settings.get("test_split") or settings.get("validation_split") or settings.get("training_split")
    own = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {split: str(file)}}}
    try:
        return of_lm_eval.task_of({**settings, **own})
    except Exception as error:  # datasets and jinja raise their own
        raise CorpusError(f"{file}: does not fit the task {name}: {first_line(error)}") from None


@contextlib.contextmanager
def _kept_from_side_paths() -> Iterator[None]:
    """Keep `evaluate` from loading metrics as code from the hub, and the harness from asking git for a commit."""
    import datasets

    datasets.disable_progress_bars()
    with contextlib.ExitStack() as after:
        for module, name, value in of_lm_eval.side_paths():
            after.callback(setattr, module, name, getattr(module, name, None))
            setattr(module, name, value)
        yield


def _metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"acc,none": .5} as {"acc": .5}; other filters keep their names."""
    kept = {key: value for key, value in values.items() if isinstance(value, int | float) and "," in key}
    return {key.removesuffix(",none"): value for key, value in kept.items()}
