"""PY150 as token completion (Raychev et al. 2016; CodeXGLUE, Lu et al. 2021, arXiv 2102.04664).

The official preprocessed files, train.txt, dev.txt and test.txt, have one program per line: `<s> import os <EOL> ...
</s>`, with spaces between code tokens. Our models read them with their own tokenizer: <EOL> becomes a line break, and a
code token is correct if all its pieces are correct. As in CodeXGLUE, line breaks and the marks at both ends are not
scored. A code token that is cut by a sample's edge is not scored either.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from proctool.errors import CorpusError
from proctool.procedural.samples import Samples

if TYPE_CHECKING:
    from proctool.corpora.tokenizers import Tokenizer
    from proctool.training.loss import TargetLoss

_FILES = {"train": ("train.txt",), "held out": ("test.txt", "dev.txt")}


@dataclass(frozen=True)
class Programs:
    """Rows of consecutive programs, and the code token that each piece belongs to; (rows, context) both."""

    tokens: NDArray[np.uint32]
    owner: NDArray[np.int64]
    """The number of the code token; -1 if it is not scored."""

    @property
    def samples(self) -> Samples:
        """Samples with all tokens of a row except the first as targets."""
        targets = np.ones(self.tokens.shape, bool)
        targets[:, 0] = False
        return Samples(self.tokens, targets)


def read_programs(folder: Path, split: str, tokenizer: Tokenizer, context: int) -> Programs:
    """One split as rows of `context` tokens, with end-of-text after each program. Raises CorpusError."""
    path = next((folder / name for name in _FILES[split] if (folder / name).is_file()), None)
    if path is None:
        raise CorpusError(f"{folder}: no {' or '.join(_FILES[split])}; give the folder of CodeXGLUE's PY150 files")
    ids: list[NDArray[Any]] = []
    owners: list[NDArray[np.int64]] = []
    count = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if not words:
                continue
            if words[0] != "<s>" or words[-1] != "</s>":
                raise CorpusError(
                    f"{path} line {number}: not a PY150 program, which starts with <s> and ends with </s>"
                )
            pieces, scored = _pieces(words[1:-1])
            encoded = [*tokenizer.encode_batch(pieces), np.array([tokenizer.eos_id])]
            for part, counts in zip(encoded, [*scored, False], strict=True):
                ids.append(part)
                owners.append(np.full(len(part), count if counts else -1))
                count += counts
    flat = np.concatenate(ids).astype(np.uint32) if ids else np.zeros(0, np.uint32)
    rows = len(flat) // context
    if not rows:
        raise CorpusError(f"{path}: has less than one sample of {context} tokens; lower --context")
    shape = (rows, context)
    return Programs(flat[: rows * context].reshape(shape), np.concatenate(owners)[: rows * context].reshape(shape))


def _pieces(words: list[str]) -> tuple[list[str], list[bool]]:
    """The text of each code token, with a space before it unless it starts a line, and whether it is scored."""
    texts, scored, begins = [], [], True
    for word in words:
        is_break = word == "<EOL>"
        texts.append("\n" if is_break else word if begins else f" {word}")
        scored.append(not is_break)
        begins = is_break
    return texts, scored


def token_accuracy(module: TargetLoss, programs: Programs, batch_size: int) -> dict[str, float]:
    """The share of code tokens predicted correctly, and the number scored."""
    import torch

    from proctool.training.batch import Batch

    module.eval()
    context = programs.tokens.shape[1]
    right = np.zeros(programs.tokens.shape, bool)
    for start in range(0, len(right), batch_size):
        rows = slice(start, start + batch_size)
        samples = programs.samples
        batch = Batch.of(Samples(samples.tokens[rows], samples.targets[rows]), module.model.device)
        with torch.no_grad():
            _, found = module.scores(batch.tokens, batch.positions, batch.labels)
        right[rows, 1:] = found.cpu().numpy().reshape(-1, context - 1)
    owner = programs.owner.reshape(-1)
    edge = np.zeros(programs.tokens.shape, bool)
    edge[:, 0] = True  # not predicted, so neither is the code token it belongs to
    scored = owner >= 0
    if not scored.any():
        return {"token_accuracy": 0.0, "code_tokens": 0}
    first = owner[scored].min()
    size = np.bincount(owner[scored] - first)
    hits = np.bincount(owner[scored] - first, right.reshape(-1)[scored])
    cut = np.bincount(owner[scored] - first, edge.reshape(-1)[scored]) > 0
    if owner[-1] >= 0:
        cut[owner[-1] - first] = True  # it may continue after the last row
    whole = (size > 0) & ~cut
    return {"token_accuracy": float((hits == size)[whole].mean()), "code_tokens": int(whole.sum())}
