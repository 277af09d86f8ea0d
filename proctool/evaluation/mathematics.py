"""DeepMind Mathematics: greedy answers, right when they are right in every character (Saxton et al. 2019).

The model reads a question and its newline, as in training, and writes until end-of-text or as many tokens as the
longest right answer has; whoever writes on is wrong. Questions of one length are answered together over a key-value
cache: without filling there is nothing that an answer could depend on but its question.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.corpora import questions
from proctool.corpora.catalog import open_corpus
from proctool.corpora.documents import VALIDATION
from proctool.corpora.mathematics import TreePart
from proctool.errors import CorpusError, ModelError
from proctool.evaluation.options import MathematicsOptions
from proctool.evaluation.subject import Subject, open_subject

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPLITS = ("interpolate", "extrapolate")
_MADE = 20
"""Questions of each module where they are made on the spot: sympy takes its time."""


@dataclass(frozen=True)
class Question:
    """A question with its right answer."""

    split: str
    module: str
    question: str
    """With the newline that ends it."""
    answer: str


def mathematics(
    model: Path, options: MathematicsOptions, listen: Callable[[int, int], None] = lambda done, of: None
) -> list[dict[str, Any]]:
    """A line of results for each module, then one for each split; `listen` is told how many questions are answered.

    Raises ArtifactError, CorpusError, ModelError (a question and its answer do not fit the model's context).
    """
    subject = open_subject(model, options.tokenizer)
    asked = list(read_questions(options))
    answers = answer_all(subject, asked, options.batch_size, listen)
    right = np.array([given == each.answer for given, each in zip(answers, asked, strict=True)])
    shared = {**subject.about(), "corpus": options.corpus}
    lines = []
    for split in dict.fromkeys(each.split for each in asked):
        names = sorted({each.module for each in asked if each.split == split})
        shares = []
        for name in names:
            chosen = [n for n, each in enumerate(asked) if (each.split, each.module) == (split, name)]
            shares.append(float(right[chosen].mean()))
            lines.append(
                {"event": "mathematics-module", **shared, "split": split, "module": name, "questions": len(chosen),
                 "accuracy": shares[-1]}
            )  # fmt: skip
        mine = [n for n, each in enumerate(asked) if each.split == split]
        lines.append(
            {
                "event": "mathematics",
                **shared,
                "split": split,
                "questions": len(mine),
                "questions_sha256": _digest([asked[n] for n in mine]),
                "accuracy": float(right[mine].mean()),
                "mean_over_modules": float(np.mean(shares)),
            }
        )
    return lines


def _digest(asked: Sequence[Question]) -> str:
    written = json.dumps([[each.module, each.question, each.answer] for each in asked])
    return hashlib.sha256(written.encode()).hexdigest()


def read_questions(options: MathematicsOptions) -> Iterator[Question]:
    """The questions that are asked, module after module. Raises CorpusError where there are none."""
    base, _, folder = options.corpus.partition(":")
    if base != "mathematics":
        raise CorpusError(f"{options.corpus}: not mathematics; give mathematics, or mathematics:FOLDER")
    found = False
    for split in SPLITS if options.split == "both" else (options.split,):
        for question in _of_tree(options, split) if folder else _made(options, split):
            found = True
            yield question
    if not found:
        raise CorpusError(
            f"{options.corpus}: no {options.split} questions"
            + (f" in modules named {', '.join(options.modules)}" if options.modules else "")
        )


def _of_tree(options: MathematicsOptions, split: str) -> Iterator[Question]:
    corpus = open_corpus(options.corpus)
    wanted = VALIDATION if split == "interpolate" else split
    for part in corpus.parts:
        if not isinstance(part, TreePart) or part.split != wanted:
            continue
        for file in part.modules:
            module = Path(file.name).name.partition(".")[0]
            if not _is_wanted(module, options):
                continue
            for document in itertools.islice(TreePart((file,), wanted).documents(), options.questions):
                if document.problem or document.answer is None:
                    raise CorpusError(document.problem or f"{file.path}: a question without an answer")
                yield Question(split, module, _text(document.content, file.path), _text(document.answer, file.path))


def _text(written: bytes, path: str) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: not UTF-8 text") from None


def _made(options: MathematicsOptions, split: str) -> Iterator[Question]:
    for module in questions.modules()[split]:
        if _is_wanted(module, options):
            for question, answer in questions.draw(split, module, 0, options.questions or _MADE):
                yield Question(split, module, f"{question}\n", answer)


def _is_wanted(module: str, options: MathematicsOptions) -> bool:
    return not options.modules or any(part in module for part in options.modules)


def answer_all(
    subject: Subject, asked: Sequence[Question], batch_size: int, listen: Callable[[int, int], None]
) -> list[str | None]:
    """What the model answers to each question, None where it does not come to an end.

    Raises ModelError where a question with its answer does not fit the model's context.
    """
    tokenizer = subject.tokenizer
    prompts = tokenizer.encode_batch([each.question for each in asked])
    most = np.array([len(ids) for ids in tokenizer.encode_batch([each.answer for each in asked])])
    lengths = np.array([len(ids) for ids in prompts])
    longest = int(np.argmax(lengths + most))
    # The closing end-of-text is predicted, never read.
    if subject.context is not None and lengths[longest] + most[longest] > subject.context:
        raise ModelError(
            f"{subject.saved.path}: its context of {subject.context} tokens cannot hold a question of "
            f"{lengths[longest]} with its answer of {most[longest]} ({asked[longest].module})"
        )
    model = subject.model()
    answers: list[str | None] = [None] * len(asked)
    done = 0
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        for start in range(0, len(alike), batch_size):
            rows = alike[start : start + batch_size]
            ids = greedy(model, np.stack([prompts[row] for row in rows]), most[rows] + 1, tokenizer.eos_id)
            for row, written in zip(rows.tolist(), ids, strict=True):
                if written[-1] == tokenizer.eos_id:
                    answers[row] = tokenizer.decode(written[:-1])
            done += len(rows)
            listen(done, len(asked))
    return answers


def greedy(
    model: PreTrainedModel, prompts: NDArray[np.unsignedinteger[Any]], most: NDArray[np.int64], eos_id: int
) -> list[list[int]]:
    """The likeliest token again and again: prompts (B, L) -> for each row up to `most` ids (B,), end-of-text included.

    Rows that have ended leave the batch's results alone; reading stops when all have.
    """
    import torch

    ids = torch.from_numpy(prompts.astype(np.int64)).to(model.device)  # (B, L)
    written: list[list[int]] = [[] for _ in range(len(ids))]
    going = np.ones(len(ids), bool)
    cache: Any = None
    with torch.no_grad():
        read = ids
        while True:
            out = model(input_ids=read, use_cache=True, **({"past_key_values": cache} if cache is not None else {}))
            cache = getattr(out, "past_key_values", None)
            chosen = out.logits[:, -1].argmax(-1)  # (B,)
            for row, token in enumerate(chosen.tolist()):
                if going[row]:
                    written[row].append(token)
                    going[row] = token != eos_id and len(written[row]) < most[row]
            if not going.any():
                return written
            ids = torch.cat([ids, chosen[:, None]], 1)
            # A family without such a cache (a state space model) reads all of it again.
            read = chosen[:, None] if cache is not None else ids
