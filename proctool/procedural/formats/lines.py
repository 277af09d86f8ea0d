"""Samples as JSON Lines: numbers (`input_ids`, `labels`), or text with a word per symbol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proctool import artifact
from proctool.procedural.formats.part import ContentHash, Progress, StreamPart
from proctool.procedural.formats.tables import labels_of
from proctool.procedural.formats.words import Words


def write_jsonl(part: StreamPart, path: Path, progress: Progress) -> str:
    """Write {"input_ids": [...], "labels": [...]} for each sample, and the description. Returns the content hash."""
    content = ContentHash(part.shape, part.stream.task.dtype)
    with _described(part, path, {}, content) as (out,):
        for samples in part.pieces(progress):
            content.add(samples)
            rows = zip(samples.tokens.tolist(), labels_of(samples).tolist(), strict=True)
            lines = (f'{{"input_ids": {tokens}, "labels": {labels}}}\n' for tokens, labels in rows)
            out.write("".join(lines).encode())
    return content.digest()


def write_text(part: StreamPart, path: Path, progress: Progress, words: Words) -> str:
    """Write {"text": ...} for each sample, and the description. Returns the content hash.

    Raises OptionError for a tokenizer that would not tokenise the text into the same words.
    """
    content = ContentHash(part.shape, part.stream.task.dtype)
    with _described(part, path, {"text": words.metadata}, content) as (out,):
        for samples in part.pieces(progress):
            content.add(samples)
            texts = words.texts(samples.tokens)
            out.write("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode())
    return content.digest()


def _described(part: StreamPart, path: Path, more: dict[str, Any], content: ContentHash) -> Any:
    return artifact.described(
        [path], artifact.sidecar_of(path), kind="data", about={**part.metadata, **more}, content=content.digest
    )
