"""BLiMP: does a model give the grammatical one of two sentences more probability? (Warstadt et al. 2020, 1912.00582)

A sentence's score is the sum of the log-probabilities of all its tokens. The first token is predicted from the tokens
that start every text of the model: end-of-text, or what a foreign tokenizer adds. This is the paper's "simple LM
method" as in lm-evaluation-harness: a space precedes the sentence, so that its first word is the same token as in
running text, and the grammatical sentence wins if both scores are equal.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.errors import CorpusError, OptionError, first_line
from proctool.paths import is_path, user_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.corpora.tokenizers import Ids
    from proctool.evaluation.eval_model import EvalModel

REPOSITORY = "nyu-mll/blimp"

_FIELDS = ("sentence_good", "sentence_bad", "UID", "linguistics_term")


@dataclass(frozen=True, kw_only=True)
class BlimpOptions:
    """Measure grammar: how often the grammatical sentence of a minimal pair is more probable."""

    data: str = REPOSITORY
    """BLiMP's .jsonl file, a folder of them, or a dataset on the hub."""
    tokenizer: str | None = None
    """Tokenizer, a path or a name such as bytes (default: the model's)."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    leading_space: bool = True
    """Put a space before each sentence, as lm-evaluation-harness does."""
    limit: int | None = None
    """Pairs per paradigm, from the first (default: all 1000)."""
    batch_size: int = 64
    """Sentences per batch; it does not change the result."""

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")


@dataclass(frozen=True)
class Pair:
    """Two sentences that differ only in grammaticality."""

    good: str
    bad: str
    paradigm: str
    phenomenon: str


def blimp(
    model: Path, options: BlimpOptions, listen: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, Any]:
    """Accuracy per paradigm and phenomenon; `listen` gets the numbers of scored and of all sentences.

    Raises CorpusError (data), ArtifactError, ModelError (a sentence longer than the model's context).
    """
    from proctool.evaluation.eval_model import open_subject

    subject = open_subject(model, options.tokenizer, options.end_of_text)
    pairs = _first(options.limit, read_pairs(options.data))
    texts = [sentence for pair in pairs for sentence in (pair.good, pair.bad)]
    encoded = encode(subject, texts, leading_space=options.leading_space)
    scores = log_probabilities(
        subject.model(), encoded, options.batch_size, listen, begun=len(subject.beginning.first)
    ).reshape(-1, 2)
    right = scores[:, 0] >= scores[:, 1]
    by_paradigm = _shares([pair.paradigm for pair in pairs], right)
    phenomenon = {pair.paradigm: pair.phenomenon for pair in pairs}
    return {
        "event": "blimp",
        **subject.metadata(),
        "data": options.data,
        "data_sha256": _digest(pairs),
        "leading_space": options.leading_space,
        "pairs": len(pairs),
        "accuracy": float(np.mean([share["accuracy"] for share in by_paradigm.values()])),
        "phenomena": _shares([pair.phenomenon for pair in pairs], right),
        "paradigms": {name: {"phenomenon": phenomenon[name], **share} for name, share in by_paradigm.items()},
    }


def read_pairs(data: str) -> list[Pair]:
    """The pairs of a .jsonl file, of a folder of them (by name), or of a hub repository. Raises CorpusError."""
    path = user_path(data)
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            raise CorpusError(f"{path}: the folder has no .jsonl files; give the folder with BLiMP's files")
        return [pair for file in files for pair in _read_file(file)]
    if path.is_file():
        return list(_read_file(path))
    if is_path(data) or data.count("/") != 1 or path.suffix:
        raise CorpusError(f"{data}: no such file or folder; give BLiMP's .jsonl files, or {REPOSITORY} for the hub")
    return list(_read_hub(data))


def _read_file(path: Path) -> Iterator[Pair]:
    found = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                found = True
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    raise CorpusError(f"{path} line {number}: not JSON") from None
                yield _pair(record, f"{path} line {number}")
    if not found:
        raise CorpusError(f"{path}: the file has no pairs")


def _read_hub(repository: str) -> Iterator[Pair]:
    import datasets

    datasets.disable_progress_bars()
    try:
        for name in datasets.get_dataset_config_names(repository):
            for number, record in enumerate(datasets.load_dataset(repository, name, split="train"), 1):
                yield _pair(record, f"{repository} {name} record {number}")
    except CorpusError:
        raise
    except Exception as error:  # datasets, the hub client and the network each raise their own
        raise CorpusError(
            f"{repository}: cannot be loaded from the hub ({first_line(error)}); give BLiMP's .jsonl files with --data"
        ) from None


def _pair(record: Any, where: str) -> Pair:
    if not isinstance(record, Mapping):
        raise CorpusError(f"{where}: not a JSON object")
    for name in _FIELDS:
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise CorpusError(f'{where}: the field "{name}" has no text; a pair needs {", ".join(_FIELDS)}')
    return Pair(*(record[name] for name in _FIELDS))


def _first(limit: int | None, pairs: Iterable[Pair]) -> list[Pair]:
    taken: dict[str, int] = {}
    kept = []
    for pair in pairs:
        taken[pair.paradigm] = taken.get(pair.paradigm, 0) + 1
        if limit is None or taken[pair.paradigm] <= limit:
            kept.append(pair)
    return kept


def encode(subject: EvalModel, texts: Sequence[str], *, leading_space: bool) -> list[Ids]:
    """The ids of each text with its start tokens. Raises ModelError if one is longer than the model's context."""
    from proctool.models.build import require_context

    tokenizer = subject.tokenizer
    start = np.array(subject.beginning.first, np.uint32)
    space = " " if leading_space else ""
    encoded = [
        np.concatenate([start, ids.astype(np.uint32)])
        for ids in tokenizer.encode_batch([space + text for text in texts])
    ]
    for text, ids in zip(texts, encoded, strict=True):
        # The last token is only predicted, not read.
        what = f'{subject.saved.path}: "{text}"'
        require_context(subject.saved.config, len(ids) - 1, what, "use a model with a longer context")
    return encoded


def log_probabilities(
    model: PreTrainedModel,
    sequences: Sequence[Ids],
    batch_size: int,
    listen: Callable[[int, int], None] = lambda done, of: None,
    *,
    begun: int = 1,
) -> NDArray[np.float64]:
    """For each sequence the summed log-probability, in nats, of all its tokens but the first `begun`: (sequences,)."""
    import torch

    from proctool.procedural.samples import Samples
    from proctool.training.batch import Batch
    from proctool.training.loss import TargetLoss

    module = TargetLoss(model).eval()
    lengths = np.array([len(each) for each in sequences])
    order = np.argsort(-lengths, kind="stable")  # longest first: a lack of memory shows at once
    sums = np.zeros(len(sequences))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = np.zeros((len(rows), lengths[rows].max()), np.uint32)
        for row, number in enumerate(rows):
            tokens[row, : lengths[number]] = sequences[number]
        place = np.arange(tokens.shape[1])
        targets = (place >= begun) & (place < lengths[rows, None])
        batch = Batch.of(Samples(tokens, targets), model.device)
        with torch.no_grad():
            losses, _ = module.scores(batch.tokens, batch.positions, batch.labels)
        row_of = (batch.positions // batch.tokens.shape[1]).cpu().numpy()
        sums[rows] = -np.bincount(row_of, losses.double().cpu().numpy(), minlength=len(rows))
        listen(start + len(rows), len(order))
    return sums


def _shares(groups: Sequence[str], right: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """The accuracy of each group, by name."""
    shares = {}
    for name in sorted(set(groups)):
        chosen = right[[group == name for group in groups]]
        accuracy = float(chosen.mean())
        error = math.sqrt(accuracy * (1 - accuracy) / (len(chosen) - 1)) if len(chosen) > 1 else None
        shares[name] = {"accuracy": accuracy, "standard_error": error, "pairs": len(chosen)}
    return shares


def _digest(pairs: Sequence[Pair]) -> str:
    written = json.dumps([[pair.paradigm, pair.good, pair.bad] for pair in pairs])
    return hashlib.sha256(written.encode()).hexdigest()
