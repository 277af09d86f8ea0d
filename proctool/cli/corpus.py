"""`proctool corpus`: build, merge, measure and inspect token stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from proctool.cli import display
from proctool.cli.lazy import LazyGroup, group, single
from proctool.cli.options import Common, with_options
from proctool.errors import OptionError
from proctool.outputs import reads_of, require_safe
from proctool.units import counted, format_bytes

if TYPE_CHECKING:
    from proctool.corpora import Corpus, Tokenizer, TokenStore


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """A corpus and how to tokenise it."""

    corpus: str = "python"
    """A corpus by name, a file, folder or pattern, or a hub id."""
    tokenizer: str = "bytes"
    """bytes, characters, or any tokenizer by path or name."""
    end_of_text: str | None = None
    """Token that ends a text (default: the tokenizer's own)."""
    text_field: str | None = None
    """Field that holds a record's text, such as text or meta.text."""
    validation: str | None = None
    """Separate validation corpus; its documents are kept out of training."""
    skip_bad: bool = False
    """Skip documents that cannot be read instead of stopping."""
    cache_dir: Path | None = None
    """Token store folder (default: $PROCTOOL_CACHE or ~/.cache/proctool)."""

    def opened(self) -> tuple[Corpus, Tokenizer]:
        """The corpus and the tokenizer."""
        from proctool.corpora import load_tokenizer, open_corpus

        require_safe([], reads_of(self), cache_dir=self.cache_dir)
        corpus = open_corpus(
            self.corpus,
            text_field=self.text_field,
            validation=self.validation,
            skip_bad=self.skip_bad,
            cache_dir=self.cache_dir,
        )
        return corpus, load_tokenizer(self.tokenizer, self.end_of_text)


@dataclass(frozen=True, kw_only=True)
class BuildOptions(CorpusOptions):
    """Tokenise a corpus into a token store, or a share of it."""

    context: int = 1024
    """Tokens per row, to count rows; a store works with any context."""
    budget: int | None = None
    """Stop after this many training tokens, for example 655M."""
    workers: int | None = None
    """Worker processes (default: one per core)."""
    shard: str | None = None
    """Build only share i/n (i from 1); then run `proctool corpus merge`."""


@dataclass(frozen=True, kw_only=True)
class MergeOptions(CorpusOptions):
    """Merge the shares that separate jobs built."""

    source: tuple[Path, ...] = ()
    """Cache folder of one job, if each job had its own (repeatable)."""


@dataclass(frozen=True, kw_only=True)
class InspectOptions(CorpusOptions):
    """Show a corpus's parts, its size and some documents."""

    show: int = 2
    """Documents to print."""
    split: str = "train"
    """Split to print documents of."""
    verify: bool = False
    """Also verify all hashes of its token store."""


@dataclass(frozen=True, kw_only=True)
class StatsOptions(CorpusOptions):
    """Measure a corpus's rows, as `proctool generate --stats` does for a task."""

    context: int = 1024
    """Tokens per row."""
    rows: int = 1024
    """Rows to measure, spread evenly over the split."""
    split: str = "train"
    """Split to measure."""


def _build(options: BuildOptions, common: Common) -> None:
    corpus, tokenizer = options.opened()
    if common.dry_run:
        return _planned(corpus, tokenizer, common)
    from proctool.corpora import open_store
    from proctool.corpora.shares import build_share, parse_share

    with display.store_progress() as listen:
        settings: dict[str, Any] = {
            "cache_dir": options.cache_dir,
            "progress": listen,
            "workers": options.workers,
        }
        if options.shard is not None:
            if options.budget is not None:
                raise OptionError("give --shard or --budget, not both: a budget is a prefix of the whole corpus")
            made = build_share(corpus, tokenizer, parse_share(options.shard), **settings)
            tokens = sum(counts["tokens"] for shard in made for counts in shard.splits.values())
            display.say(f"built share {options.shard}: {counted(len(made), 'shard')}, {counted(tokens, 'token')}")
            if common.json:
                display.emit({"event": "share", "shard": options.shard, "shards": len(made), "tokens": tokens})
            return None
        store = open_store(corpus, tokenizer, options.context, budget=options.budget, **settings)
    return _told(store, common)


def _planned(corpus: Corpus, tokenizer: Tokenizer, common: Common) -> None:
    size = corpus.stored_bytes
    display.notes(corpus.notes)
    display.say(
        f"{corpus.name}: {len(corpus.parts)} parts, {format_bytes(size) if size is not None else 'unknown size'} as "
        f"stored, splits {', '.join(corpus.splits)}; nothing was written"
    )
    if common.json:
        planned = {"corpus": corpus.name, "parts": len(corpus.parts), "bytes": size, "splits": list(corpus.splits)}
        display.emit({**planned, "tokenizer": tokenizer.spec, "vocab_size": tokenizer.vocab_size})


def _told(store: TokenStore, common: Common) -> None:
    display.notes(store.notes)
    metadata: dict[str, Any] = {"event": "corpus", "corpus": store.corpus, "tokenizer": store.tokenizer.spec}
    for split in store.splits:
        counts = {what: store.count(split, what) for what in ("documents", "bytes", "tokens")}
        metadata[split] = counts
        display.say(
            f"  {split:<12}{counted(counts['documents'], 'document')}, {format_bytes(counts['bytes'])} of text, "
            f"{counted(counts['tokens'], 'token')}"
        )
    rows = len(store.split())
    metadata |= {"rows": rows, "context": store.context, "content": store.content, "skipped": store.skipped}
    display.say(
        f"{store.corpus}: {counted(rows, 'training row')} of {store.context} tokens in {store.folder} "
        f"(content {store.content[:12]})"
    )
    if common.json:
        display.emit({**metadata, "folder": str(store.folder)})


def _merge(options: MergeOptions, common: Common) -> None:
    from proctool.corpora.shares import merge

    corpus, tokenizer = options.opened()
    made = merge(corpus, tokenizer, options.source, cache_dir=options.cache_dir)
    tokens = sum(counts["tokens"] for shard in made for counts in shard.splits.values())
    display.say(
        f"merged {counted(len(made), 'shard')}, {counted(tokens, 'token')}; `--corpus {corpus.name}` now reuses them "
        "instead of tokenising again"
    )
    if common.json:
        display.emit({"event": "merge", "corpus": corpus.name, "shards": len(made), "tokens": tokens})


def _inspect(options: InspectOptions, common: Common) -> None:
    import itertools

    corpus, tokenizer = options.opened()
    _planned(corpus, tokenizer, common)
    for document in itertools.islice(corpus.documents(options.split), options.show):
        answer = "" if document.answer is None else document.answer.decode("utf-8", "replace")
        text = document.content.decode("utf-8", "replace") + answer
        print(text if len(text) <= 600 else f"{text[:600]} ... ({len(text)} characters)")
        print("-" * 40)
    display.notes(corpus.skipped.notes if corpus.skipped else ())
    if options.verify:
        from proctool.corpora import open_store

        with display.store_progress() as listen:
            store = open_store(
                corpus, tokenizer, context=2, cache_dir=options.cache_dir, progress=listen, needs_row=False
            )
        store.verify()
        display.say(f"{len(store.shards)} shards in {store.folder}: all hashes match")


def _stats(options: StatsOptions, common: Common) -> None:
    import numpy as np

    from proctool.corpora import open_store
    from proctool.procedural.statistics import measure

    if options.rows < 1:
        raise OptionError(f"rows = {options.rows}: must be at least 1")
    corpus, tokenizer = options.opened()
    with display.store_progress() as listen:
        store = open_store(corpus, tokenizer, options.context, cache_dir=options.cache_dir, progress=listen)
    rows = store.split(options.split)
    indices = np.unique(np.linspace(0, len(rows) - 1, min(options.rows, len(rows))).astype(np.int64))
    measured = measure(rows.read(indices), tokenizer.vocab_size)
    display.statistics(f"{store.corpus} ({tokenizer.spec})", measured, common.json)


class CorpusGroup(LazyGroup):
    """The subcommands for corpora."""

    def entries(self) -> Mapping[str, str]:
        """The commands."""
        return {
            "build": "Tokenise a corpus into a token store, or a share of it.",
            "merge": "Merge the shares that separate jobs built.",
            "stats": "Measure entropies, copies and vocabulary of a corpus.",
            "inspect": "Show a corpus's parts, its size and some documents.",
        }

    def load(self, name: str) -> typer.Typer:
        """The command."""
        made = {
            "build": lambda: with_options(BuildOptions, _build),
            "merge": lambda: with_options(MergeOptions, _merge, dry_run=False),
            "stats": lambda: with_options(StatsOptions, _stats, dry_run=False),
            "inspect": lambda: with_options(InspectOptions, _inspect, dry_run=False),
        }
        return single(name, made[name](), self.entries()[name])


app = group(CorpusGroup, "Build, merge, measure and inspect token stores of corpora.")
