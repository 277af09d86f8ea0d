"""GLUE's examples: official tab-separated files, records of the hub in files, or the hub itself.

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
from proctool.evaluation.finetune.tasks import GLUE, GlueTask, task_data
from proctool.paths import is_path, user_path
from proctool.procedural.samples import Samples
from proctool.untrusted import parse_json

if TYPE_CHECKING:
    from proctool.corpora.tokenizers import Tokenizer

REPOSITORY = "nyu-mll/glue"
GRADES = 1000
"""Grades of STS-B are stored as integers in thousandths, in place of classes."""


@dataclass(frozen=True)
class Examples:
    """One or two texts per example, and the classes (or grades in thousandths)."""

    texts: list[tuple[str, ...]]
    labels: list[int]


def read_examples(name: str, data: str, held_out: bool) -> Examples:
    """One split of the task `name`, from a folder or the hub. Raises CorpusError.

    `data` is the task's folder, or a folder with one for each task (`task_data`).
    """
    task = GLUE[name]
    folder = user_path(task_data(name, data))
    if not folder.is_dir():
        if is_path(data):
            raise CorpusError(f"{data}: no such folder")
        rows = _hub_rows(name, data, held_out)
    elif files := _files_of_hub(name, folder, held_out):
        rows = _records(task, files)
    else:
        rows = _rows(task, folder, held_out)
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


Row = tuple[str, tuple[str, ...], Any]
"""The place of an example for error messages, its texts and its label."""


def _split(name: str, held_out: bool) -> str:
    """The name of a split on the hub."""
    return ("validation_matched" if name == "mnli" else "validation") if held_out else "train"


def _files_of_hub(name: str, folder: Path, held_out: bool) -> list[Path]:
    """Files of a split as the hub has them: train.jsonl, train.parquet, or train-00000-of-00001.parquet."""
    for split in dict.fromkeys((_split(name, held_out), "validation" if held_out else "train")):
        for names in (f"{split}.jsonl", f"{split}.parquet", f"{split}-*-of-*.parquet"):
            if found := sorted(folder.glob(names)):
                return found
    return []


def _records(task: GlueTask, paths: Sequence[Path]) -> Iterator[Row]:
    for path in paths:
        for number, record in enumerate(_lines(path) if path.suffix == ".jsonl" else _columns(task, path), 1):
            where = f"{path} {'line' if path.suffix == '.jsonl' else 'record'} {number}"
            if not isinstance(record, dict):
                raise CorpusError(f"{where}: is not a JSON object; give the records of the hub, one per line")
            for column in task.hub:
                if not isinstance(record.get(column), str):
                    raise CorpusError(f'{where}: has no text "{column}"; give the columns of the hub')
            yield where, tuple(record[column] for column in task.hub), record.get("label")


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield parse_json(line, any_text=True)
            except ValueError:
                raise CorpusError(f"{path} line {number}: is not valid JSON; give one record per line") from None


def _columns(task: GlueTask, path: Path) -> Iterator[Any]:
    import pyarrow

    from proctool.corpora.columns import parquet

    file = parquet(str(path))
    columns = [name for name in (*task.hub, "label") if name in file.schema_arrow.names]
    try:
        for batch in file.iter_batches(columns=columns):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: damaged ({first_line(error)}); download or copy it again") from None


def _rows(task: GlueTask, folder: Path, held_out: bool) -> Iterator[Row]:
    names = task.held_out if held_out else task.train
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise CorpusError(
            f"{folder}: the folder has no {' or '.join(names)}, and no file of the hub such as train.jsonl; "
            "give the folder with the task's files"
        )
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


def _hub_rows(name: str, repository: str, held_out: bool) -> Iterator[Row]:
    if repository.count("/") != 1 or repository.startswith((".", "/")):
        raise CorpusError(
            f"{repository}: no such folder; give a folder with GLUE's .tsv files, or {REPOSITORY} for the hub"
        )
    import datasets

    datasets.disable_progress_bars()
    split = _split(name, held_out)
    try:
        records: Sequence[Mapping[str, Any]] = datasets.load_dataset(repository, name, split=split)
    except Exception as error:  # datasets, the hub client and the network each raise their own
        raise CorpusError(
            f"{repository}: cannot be loaded from the hub ({first_line(error)}); "
            "give a folder with GLUE's files with --data (in a recipe: data)"
        ) from None
    for number, record in enumerate(records, 1):
        yield f"{repository} {name} record {number}", tuple(record[key] for key in GLUE[name].hub), record["label"]


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
