"""`proctool tokenizer train`: train a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import typer

from proctool.cli import display
from proctool.cli.lazy import LazyGroup, group, single
from proctool.cli.options import Common, with_options
from proctool.errors import OptionError
from proctool.outputs import reads_of, require_new_folder
from proctool.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerOptions:
    """Train a byte-level BPE tokenizer on a corpus and write a folder that AutoTokenizer loads."""

    corpus: str = "python"
    """A corpus by name, a file, folder or pattern, or a hub id."""
    vocab_size: int = 32_000
    """Vocabulary size, including the 256 bytes and end-of-text."""
    text_field: str | None = None
    """Field that holds a record's text, such as text or meta.text."""
    validation: str | None = None
    """Separate validation corpus; its documents are kept out of training."""
    skip_bad: bool = False
    """Skip documents that cannot be read instead of stopping."""
    sample: int = 1_000_000_000
    """Bytes of training text to use."""
    output: Path | None = field(default=None, metadata={"folder": True})
    """Folder to write (default: CORPUS-tokenizer)."""


def _train(options: TrainTokenizerOptions, common: Common) -> None:
    from proctool.corpora.bpe import compression, require_size, train_bpe
    from proctool.corpora.catalog import open_corpus

    if options.sample < 1:
        raise OptionError(f"sample = {options.sample}: must be at least 1 byte")
    require_size(options.vocab_size)
    folder = options.output or Path(f"{Path(options.corpus.partition(':')[0]).name}-tokenizer")
    require_new_folder(folder, "--output", reads_of(options))
    corpus = open_corpus(
        options.corpus, text_field=options.text_field, validation=options.validation, skip_bad=options.skip_bad
    )
    display.notes(corpus.notes)
    if common.dry_run:
        size = format_bytes(corpus.stored_bytes) if corpus.stored_bytes is not None else "unknown"
        display.say(
            f"would train a vocabulary of {options.vocab_size} on {corpus.name} (stored size: {size}) into {folder}"
        )
        if common.json:
            display.emit({"corpus": corpus.name, "vocab_size": options.vocab_size, "output": str(folder)})
        return
    with display.progress("reading text", options.sample, "bytes") as shown:
        trained = train_bpe(corpus, options.vocab_size, folder, sample=options.sample, listen=shown.update)
    rate = compression(trained, corpus)
    display.notes(corpus.skipped.notes if corpus.skipped else ())
    display.say(
        f"wrote {folder}: vocabulary of {trained.vocab_size}, {rate:.2f} bytes per token; "
        f"use it with --tokenizer {folder}"
    )
    if common.json:
        display.emit(
            {
                "event": "tokenizer",
                "output": str(folder),
                "vocab_size": trained.vocab_size,
                "eos_id": trained.eos_id,
                "bytes_per_token": rate,
                "fingerprint": trained.fingerprint,
            }
        )


class TokenizerGroup(LazyGroup):
    """The subcommands for tokenizers."""

    def entries(self) -> Mapping[str, str]:
        """The commands."""
        return {"train": "Train a byte-level BPE tokenizer on a corpus."}

    def load(self, name: str) -> typer.Typer:
        """The command."""
        return single(name, with_options(TrainTokenizerOptions, _train), self.entries()[name])


app = group(TokenizerGroup, "Train a tokenizer.")
