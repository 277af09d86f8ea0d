"""GLUE's tasks as published (Wang et al. 2019, arXiv 1804.07461): tab-separated files, or records from the hub.

A classification sample is the text, end-of-text, and the class as the only target. It is predicted at the last token
of the text, where a causal model has seen the whole text.

    tokens   s s s EOT t t EOT C _      (n, length): two texts here, one without the second; C a class, not a token
    targets  . . . .   . . .   x .
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proctool.errors import CorpusError, first_line
from proctool.paths import is_path, user_path
from proctool.procedural.samples import Samples

if TYPE_CHECKING:
    from proctool.corpora.tokenizers import Tokenizer

REPOSITORY = "nyu-mll/glue"
GRADES = 1000
"""Grades of STS-B are stored as integers in thousandths, in place of classes."""


@dataclass(frozen=True)
class GlueTask:
    """The columns of a task's texts and label, and its metrics."""

    texts: tuple[str, ...]
    """Columns of the official files (numbers if the files have no header)."""
    label: str
    labels: tuple[str, ...] | None
    """Classes as written in the files, in the hub's order; None for grades from 0 to 5."""
    metrics: tuple[str, ...]
    hub: tuple[str, ...] = ("sentence1", "sentence2")
    train: tuple[str, ...] = ("train.tsv",)
    held_out: tuple[str, ...] = ("dev.tsv",)


_ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    "cola": GlueTask(("3",), "1", ("0", "1"), ("matthews", "accuracy"), ("sentence",),
                 ("train.tsv", "in_domain_train.tsv"), ("dev.tsv", "in_domain_dev.tsv")),
    "sst2": GlueTask(("sentence",), "label", ("0", "1"), ("accuracy",), ("sentence",)),
    "mrpc": GlueTask(("#1 String", "#2 String"), "Quality", ("0", "1"), ("f1", "accuracy"),
                 train=("train.tsv", "msr_paraphrase_train.txt"), held_out=("dev.tsv", "msr_paraphrase_test.txt")),
    "qqp": GlueTask(("question1", "question2"), "is_duplicate", ("0", "1"), ("f1", "accuracy"),
                    ("question1", "question2")),
    "stsb": GlueTask(("sentence1", "sentence2"), "score", None, ("pearson", "spearman")),
    "mnli": GlueTask(("sentence1", "sentence2"), "gold_label", ("entailment", "neutral", "contradiction"),
                     ("accuracy",), ("premise", "hypothesis"), held_out=("dev_matched.tsv",)),
    "qnli": GlueTask(("question", "sentence"), "label", _ENTAILMENT, ("accuracy",), ("question", "sentence")),
    "rte": GlueTask(("sentence1", "sentence2"), "label", _ENTAILMENT, ("accuracy",)),
    "wnli": GlueTask(("sentence1", "sentence2"), "label", ("0", "1"), ("accuracy",)),
}  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """One or two texts per example, and the classes (or grades in thousandths)."""

    texts: list[tuple[str, ...]]
    labels: list[int]


def read_examples(name: str, data: str, held_out: bool) -> Examples:
    """One split of the task `name`, from a folder or the hub. Raises CorpusError."""
    task = TASKS[name]
    folder = user_path(data)
    if not folder.is_dir() and is_path(data):
        raise CorpusError(f"{data}: no such folder")
    rows = _rows(task, folder, held_out) if folder.is_dir() else _hub_rows(name, data, held_out)
    examples = Examples([], [])
    for where, texts, label in rows:
        examples.texts.append(texts)
        examples.labels.append(_class(task, label, where))
    if not examples.labels:
        raise CorpusError(f"{data}: has no examples of {name}")
    return examples


def _class(task: GlueTask, label: Any, where: str) -> int:
    if task.labels is None:
        try:
            grade = float(label)
        except (TypeError, ValueError):
            grade = -1.0
        if not 0 <= grade <= 5:
            raise CorpusError(f'{where}: "{label}" is not a grade from 0 to 5')
        return round(GRADES * grade)
    if isinstance(label, int) and 0 <= label < len(task.labels):
        return label
    if label not in task.labels:
        raise CorpusError(f'{where}: "{label}" is not one of the classes {", ".join(task.labels)}')
    return task.labels.index(label)


def _rows(task: GlueTask, folder: Path, held_out: bool) -> Iterator[tuple[str, tuple[str, ...], str]]:
    names = task.held_out if held_out else task.train
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise CorpusError(f"{folder}: the folder has no {' or '.join(names)}; give the folder with the task's files")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.stat().st_size else []
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text at byte {error.start}") from None
    wanted = (*task.texts, task.label)
    if wanted[0].isdigit():
        places, first = [int(each) for each in wanted], 1
    else:
        header = lines[0].split("\t") if lines else []
        for column in wanted:
            if column not in header:
                raise CorpusError(f'{path}: the first line has no column "{column}"; give the official file')
        places, first = [header.index(column) for column in wanted], 2
    for number, line in enumerate(lines[first - 1 :], first):
        cells = line.split("\t")
        if len(cells) <= max(places):
            raise CorpusError(f"{path} line {number}: has {len(cells)} columns, but needs {max(places) + 1}")
        *texts, label = (cells[place] for place in places)
        yield f"{path} line {number}", tuple(texts), label


def _hub_rows(name: str, repository: str, held_out: bool) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    if repository.count("/") != 1 or repository.startswith((".", "/")):
        raise CorpusError(
            f"{repository}: no such folder; give a folder with GLUE's .tsv files, or {REPOSITORY} for the hub"
        )
    import datasets

    datasets.disable_progress_bars()
    split = ("validation_matched" if name == "mnli" else "validation") if held_out else "train"
    try:
        records: Sequence[Mapping[str, Any]] = datasets.load_dataset(repository, name, split=split)
    except Exception as error:  # datasets, the hub client and the network each raise their own
        raise CorpusError(
            f"{repository}: cannot be loaded from the hub ({first_line(error)}); "
            "give a folder with GLUE's files with --data"
        ) from None
    for number, record in enumerate(records, 1):
        yield f"{repository} {name} record {number}", tuple(record[key] for key in TASKS[name].hub), record["label"]


def encode(examples: Examples, tokenizer: Tokenizer, longest: int) -> Samples:
    """Samples of at most `longest` tokens including the class; long texts are cut at the end, the longer text first."""
    parts = [tokenizer.encode_batch([texts[k] for texts in examples.texts]) for k in range(len(examples.texts[0]))]
    rows = []
    for texts in zip(*parts, strict=True):
        room = longest - 1 - len(texts)  # the class, and end-of-text after each
        lengths = [len(text) for text in texts]
        while sum(lengths) > room:
            longer = int(np.argmax(lengths))
            lengths[longer] -= min(sum(lengths) - room, max(1, lengths[longer] - sorted(lengths)[0]))
        row: list[int] = []
        for text, length in zip(texts, lengths, strict=True):
            row += [*text[:length].tolist(), tokenizer.eos_id]
        rows.append(row)
    tokens = np.zeros((len(rows), max(map(len, rows)) + 1), np.uint32)
    targets = np.zeros(tokens.shape, bool)
    for number, (row, label) in enumerate(zip(rows, examples.labels, strict=True)):
        tokens[number, : len(row)] = row
        tokens[number, len(row)] = label
        targets[number, len(row)] = True
    return Samples(tokens, targets)
