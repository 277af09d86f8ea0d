"""GLUE's tasks as published (Wang et al. 2019, arXiv 1804.07461). Does not import numpy or torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from proctool.paths import user_path


@dataclass(frozen=True)
class GlueTask:
    """The columns of a task's texts and label, and its metrics, the first of which reports show."""

    texts: tuple[str, ...]
    """Columns of the official files (numbers if the files have no header)."""
    label: str
    labels: tuple[str, ...] | None
    """Classes as written in the files, in the hub's order; None for grades from 0 to 5."""
    metrics: tuple[str, ...]
    hub: tuple[str, ...] = ("sentence1", "sentence2")
    train: tuple[str, ...] = ("train.tsv",)
    held_out: tuple[str, ...] = ("dev.tsv",)
    folder: str | None = None
    """The name of its folder in GLUE's archive, if that is not the task's name in capitals."""


_ENTAILMENT = ("entailment", "not_entailment")
GLUE = {
    "cola": GlueTask(("3",), "1", ("0", "1"), ("matthews", "accuracy"), ("sentence",),
                 ("train.tsv", "in_domain_train.tsv"), ("dev.tsv", "in_domain_dev.tsv"), folder="CoLA"),
    "sst2": GlueTask(("sentence",), "label", ("0", "1"), ("accuracy",), ("sentence",), folder="SST-2"),
    "mrpc": GlueTask(("#1 String", "#2 String"), "Quality", ("0", "1"), ("f1", "accuracy"),
                 train=("train.tsv", "msr_paraphrase_train.txt"), held_out=("dev.tsv", "msr_paraphrase_test.txt")),
    "qqp": GlueTask(("question1", "question2"), "is_duplicate", ("0", "1"), ("f1", "accuracy"),
                    ("question1", "question2")),
    "stsb": GlueTask(("sentence1", "sentence2"), "score", None, ("pearson", "spearman"), folder="STS-B"),
    "mnli": GlueTask(("sentence1", "sentence2"), "gold_label", ("entailment", "neutral", "contradiction"),
                     ("accuracy",), ("premise", "hypothesis"), held_out=("dev_matched.tsv",)),
    "qnli": GlueTask(("question", "sentence"), "label", _ENTAILMENT, ("accuracy",), ("question", "sentence")),
    "rte": GlueTask(("sentence1", "sentence2"), "label", _ENTAILMENT, ("accuracy",)),
    "wnli": GlueTask(("sentence1", "sentence2"), "label", ("0", "1"), ("accuracy",)),
}  # fmt: skip

SHORTEST = 8
"""The shortest context, in tokens, that leaves room for two texts."""
TASKS = ("wikitext", *GLUE, "py150")
"""The tasks of `proctool eval finetune`."""


def task_data(name: str, data: str) -> str:
    """The task's own folder, if `data` is a folder with one for each task; otherwise `data`."""
    folder = user_path(data)
    for each in (name, GLUE[name].folder or name.upper()):
        if (folder / each).is_dir():
            return str(Path(data) / each)
    return data
