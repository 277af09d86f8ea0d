"""Small models that read bytes, with strong opinions, and minimal pairs to ask them about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from proctool.corpora.carried import record
from proctool.corpora.tokenizers import ByteTokenizer, Tokenizer
from proctool.models.build import build_model, model_config
from proctool.models.saved import save_model

CONTEXT = 48


def save_speaker(
    path: Path,
    seed: int = 0,
    *,
    context: int = CONTEXT,
    metadata: dict[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Path:
    """A model of bytes, or of `tokenizer`, with weights far from fresh ones, so that its choices are no coin tosses."""
    tokenizer = tokenizer or ByteTokenizer()
    config = model_config("2x2x16", vocab_size=tokenizer.vocab_size, context=context, eos_id=tokenizer.eos_id)
    model = build_model(config, seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    save_model(path, model, record(tokenizer) if metadata is None else metadata)
    return path


def write_pairs(path: Path, pairs: Sequence[tuple[str, str]], uid: str, term: str = "agreement") -> Path:
    rows = [
        {"sentence_good": good, "sentence_bad": bad, "field": "syntax", "linguistics_term": term, "UID": uid}
        for good, bad in pairs
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


NOUNS = ("cat", "senator", "naïve girl", "old teacher", "dog that barked", "mayor of the town", "bus")
AGREEMENT = [(f"The {noun} sleeps.", f"The {noun} sleep.") for noun in NOUNS]
REFLEXIVES = [(f"A {noun} hurt itself.", f"A {noun} hurt themselves.") for noun in NOUNS]
