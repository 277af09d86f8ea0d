"""DeepMind Mathematics: greedy answers, correct if every character is correct (Saxton et al. 2019).

The model reads a question and its newline, as in training, after the tokens that a foreign tokenizer puts before every
text. It generates until end-of-text, at most as many tokens as the longest correct answer; longer answers are wrong.
Questions of equal length form a batch with a key-value cache. There is no padding, so an answer depends only on its
question.
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

from proctool import config
from proctool.corpora import questions
from proctool.corpora.catalog import open_corpus
from proctool.corpora.documents import VALIDATION
from proctool.corpora.files import File
from proctool.corpora.mathematics import TreePart
from proctool.errors import CorpusError
from proctool.evaluation.eval_model import EvalModel, open_subject
from proctool.evaluation.options import MathematicsOptions
from proctool.models.build import require_context

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPLITS = ("interpolate", "extrapolate")
_MADE = 20
"""Questions per module if they are generated, because sympy is slow."""


@dataclass(frozen=True)
class Question:
    """A question with its correct answer."""

    split: str
    module: str
    question: str
    """With its final newline."""
    answer: str


def mathematics(
    model: Path, options: MathematicsOptions, listen: Callable[[int, int], None] = lambda done, of: None
) -> list[dict[str, Any]]:
    """A line of results for each module, then one for each split; `listen` gets the number of answered questions.

    Raises ArtifactError, CorpusError, ModelError (a question and its answer do not fit the model's context).
    """
    subject = open_subject(model, options.tokenizer, options.end_of_text)
    asked = list(read_questions(options))
    answers = answer_all(subject, asked, options.batch_size, listen)
    right = np.array([given == each.answer for given, each in zip(answers, asked, strict=True)])
    shared = {**subject.metadata(), "corpus": options.corpus}
    lines = []
    for split in dict.fromkeys(each.split for each in asked):
        names = sorted({each.module for each in asked if each.split == split})
        shares = []
        for name in names:
            chosen = [n for n, each in enumerate(asked) if (each.split, each.module) == (split, name)]
            shares.append(float(right[chosen].mean()))
            lines.append(
                {"event": "mathematics-module", **shared, "split": split, "module": name, "questions": len(chosen),
                 "questions_sha256": _digest([asked[n] for n in chosen]), "accuracy": shares[-1]}
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
    """The questions to ask, module after module. Raises CorpusError if there are none."""
    base, _, variant = options.corpus.partition(":")
    if base != "mathematics":
        raise CorpusError(f"{options.corpus}: not a mathematics corpus; give mathematics or mathematics:FOLDER")
    folder = variant and not variant.isdecimal()  # a number is of questions for training
    splits = SPLITS if options.split == "both" else (options.split,)
    modules: dict[str, dict[str, Any]] = {
        split: _tree(options, split) if folder else dict(questions.modules()[split]) for split in splits
    }
    if lacking := next((split for split in splits if not modules[split]), None):
        raise CorpusError(f"{options.corpus}: has no {lacking} questions; choose another --split")
    names = {name for each in modules.values() for name in each}
    if unknown := next((part for part in options.modules if not any(part in name for name in names)), None):
        raise CorpusError(
            f"{options.corpus}: no {' or '.join(splits)} module named {unknown}{config.suggestion(unknown, names)}"
        )
    found = False
    for split in splits:
        for name, held in modules[split].items():
            if options.modules and not any(part in name for part in options.modules):
                continue
            for question in _of_file(options, split, name, held) if folder else _made(options, split, name):
                found = True
                yield question
    if not found:
        raise CorpusError(f"{options.corpus}: has no questions in {', '.join(sorted(names))}")


def _tree(options: MathematicsOptions, split: str) -> dict[str, File]:
    """The files of a split by module."""
    parts = (part for part in open_corpus(options.corpus).parts if isinstance(part, TreePart))
    held = [part for part in parts if part.split == (VALIDATION if split == "interpolate" else split)]
    return {Path(file.name).name.partition(".")[0]: file for part in held for file in part.modules}


def _of_file(options: MathematicsOptions, split: str, module: str, file: File) -> Iterator[Question]:
    for document in itertools.islice(TreePart((file,), split).documents(), options.questions):
        if document.problem and options.skip_bad:
            continue
        if document.problem or document.answer is None:
            raise CorpusError(document.problem or f"{file.path}: has a question without an answer")
        yield Question(split, module, _text(document.content, file.path), _text(document.answer, file.path))


def _text(written: bytes, path: str) -> str:
    try:
        return written.decode()
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: not UTF-8 text") from None


def _made(options: MathematicsOptions, split: str, module: str) -> Iterator[Question]:
    for question, answer in questions.draw(split, module, 0, options.questions or _MADE):
        yield Question(split, module, f"{question}\n", answer)


def answer_all(
    subject: EvalModel, asked: Sequence[Question], batch_size: int, listen: Callable[[int, int], None]
) -> list[str | None]:
    """The model's answer to each question; None if it does not end in time.

    Raises ModelError if a question with its answer does not fit the model's context.
    """
    tokenizer = subject.tokenizer
    begin = np.array(subject.beginning.added, np.uint32)
    texts = tokenizer.encode_batch([each.question for each in asked])
    prompts = [np.concatenate([begin, ids.astype(np.uint32)]) for ids in texts]
    most = np.array([len(ids) for ids in tokenizer.encode_batch([each.answer for each in asked])])
    lengths = np.array([len(ids) for ids in prompts])
    longest = int(np.argmax(lengths + most))
    # The final end-of-text is only predicted, not read.
    what = f"{subject.saved.path}: a question with its answer ({asked[longest].module})"
    advice = "choose other --modules, or use a model with a longer context"
    require_context(subject.saved.config, int(lengths[longest] + most[longest]), what, advice)
    model = subject.model()
    answers: list[str | None] = [None] * len(asked)
    done = 0
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        for start in range(0, len(alike), batch_size):
            rows = alike[start : start + batch_size]
            asked_now = np.stack([prompts[row] for row in rows])
            ids = greedy(model, asked_now, most[rows] + 1, tokenizer.eos_id, tokenizer.vocab_size)
            for row, written in zip(rows.tolist(), ids, strict=True):
                if written[-1] == tokenizer.eos_id:
                    answers[row] = tokenizer.decode(written[:-1])
            done += len(rows)
            listen(done, len(asked))
    return answers


def greedy(
    model: PreTrainedModel,
    prompts: NDArray[np.unsignedinteger[Any]],
    most: NDArray[np.int64],
    eos_id: int,
    vocab_size: int | None = None,
) -> list[list[int]]:
    """Greedy decoding: prompts (B, L) -> for each row up to `most` ids (B,), including end-of-text.

    transformers manages the cache of each family; settings in a folder's generation_config.json (sampling, penalties)
    are ignored. Ids from `vocab_size` on, which only pad the embeddings, are never chosen.
    """
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    rows = int(model.get_output_embeddings().weight.shape[0])
    asked = GenerationConfig(
        do_sample=False, use_cache=True, max_new_tokens=int(most.max()), eos_token_id=eos_id, pad_token_id=eos_id,
        suppress_tokens=list(range(vocab_size or rows, rows)) or None,
    )  # fmt: skip
    ids = torch.from_numpy(prompts.astype(np.int64)).to(model.device)  # (B, L)
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=asked)
    return [_ended(row[:end], eos_id) for row, end in zip(found[:, ids.shape[1] :].tolist(), most, strict=True)]


def _ended(ids: list[int], eos_id: int) -> list[int]:
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids
