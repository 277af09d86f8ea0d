"""Rates and memory of the token store, printed as JSON lines.

    python benchmarks/corpora.py tokenise --text FILE.json.gz --tokenizer FOLDER
    python benchmarks/corpora.py read
    python benchmarks/corpora.py memory --text FILE.json.gz --gigabytes 2
    python benchmarks/corpora.py questions

Rates against the library are taken in turns, since the machine may be shared; processor time stands beside the clock.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from proctool.corpora import RowOrder, documents, load_tokenizer, open_corpus, open_store
from proctool.corpora.documents import Corpus


def corpus_of(options: argparse.Namespace) -> Corpus:
    return open_corpus(options.text, text_field=options.text_field)


def spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(work) -> tuple[float, float]:
    wall, processor = time.perf_counter(), spent()
    work()
    return time.perf_counter() - wall, spent() - processor


def tokenise(options: argparse.Namespace) -> None:
    """A store built from a corpus against `encode_batch` alone, which has the texts in memory."""
    import tokenizers

    corpus, tokenizer = corpus_of(options), load_tokenizer(options.tokenizer)
    texts, size = [], 0
    for document in corpus.documents():
        texts.append(document.content.decode("utf-8", "replace"))
        size += document.size
    backend = tokenizers.Tokenizer.from_str(tokenizer.definition)

    def alone() -> None:
        for start in range(0, len(texts), options.batch):
            backend.encode_batch(texts[start : start + options.batch], add_special_tokens=False)

    def build() -> None:
        with tempfile.TemporaryDirectory() as cache:
            open_store(corpus, tokenizer, 1024, cache_dir=cache, workers=options.workers)

    taken: dict[str, list[tuple[float, float]]] = {"encode_batch": [], "store": []}
    for _ in range(options.rounds):
        taken["encode_batch"].append(timed(alone))
        taken["store"].append(timed(build))
    wall, processor = (
        {name: size / 1e6 / statistics.median(each[which] for each in runs) for name, runs in taken.items()}
        for which in (0, 1)
    )
    say(
        "tokenise",
        megabytes=size / 1e6,
        documents=len(texts),
        megabytes_per_second=wall,
        megabytes_per_processor_second=processor,
        wall_ratio=wall["store"] / wall["encode_batch"],
        processor_ratio=processor["store"] / processor["encode_batch"],
        rounds=[[round(a[0], 1), round(b[0], 1)] for a, b in zip(*taken.values(), strict=True)],
    )


def read(options: argparse.Namespace) -> None:
    """Random rows, in the order of training, batch by batch."""
    corpus, tokenizer = open_corpus("python"), load_tokenizer("bytes")
    with tempfile.TemporaryDirectory() as cache:
        for context, batch in ((512, 64), (1024, 48), (2048, 32)):
            rows = open_store(corpus, tokenizer, context, cache_dir=cache).split()
            order = RowOrder(len(rows), 0)
            rates = []
            for _ in range(options.rounds):
                steps = max(1, 4 * len(rows) // batch)
                wall, _ = timed(
                    lambda rows=rows, order=order, steps=steps, batch=batch: [
                        rows.read(order.indices(step * batch, (step + 1) * batch)) for step in range(steps)
                    ]
                )
                rates.append(steps * batch * context / wall / 1e6)
            say(
                "read",
                context=context,
                batch=batch,
                million_tokens_per_second=statistics.median(rates),
                best=max(rates),
            )


def memory(options: argparse.Namespace) -> None:
    """Peak memory of a build from a large file of JSON lines, made of the given text's lines in random order."""
    if options.block:
        documents.SMALLEST_BLOCK = options.block << 20  # as a larger corpus would have it
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        path = Path(scratch) / "large.jsonl"
        # In a process of its own, whose memory ends with it.
        writer = multiprocessing.get_context("spawn").Process(target=write_large, args=(path, options))
        writer.start()
        writer.join()
        written = path.stat().st_size
        corpus, tokenizer = open_corpus(str(path)), load_tokenizer(options.tokenizer)
        peak = Peak()
        wall, processor = timed(lambda: open_store(corpus, tokenizer, 1024, cache_dir=scratch, workers=options.workers))
        say(
            "memory", gigabytes=written / 1e9, tokenizer=options.tokenizer, block_mebibytes=corpus.block >> 20,
            workers=options.workers, seconds=wall, megabytes_per_second=written / 1e6 / wall,
            megabytes_per_processor_second=written / 1e6 / processor, **peak.stop(),
        )  # fmt: skip


def write_large(path: Path, options: argparse.Namespace) -> None:
    """Documents that all differ: stretches of 20 to 300 lines that begin anywhere in the text."""
    lines = [line for document in corpus_of(options).documents() for line in document.content.decode().splitlines(True)]
    rng, written = random.Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        while written < options.gigabytes * 1e9:
            start = rng.randrange(len(lines))
            written += file.write(json.dumps({"text": "".join(lines[start : start + rng.randrange(20, 300)])}) + "\n")


class Peak:
    """The largest memory of this process and its children, sampled ten times a second."""

    def __init__(self) -> None:
        self._most = {"own": 0, "resident": 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._over.wait(0.1):
            now = [self._memory(pid) for pid in self._tree(os.getpid())]
            for what in self._most:
                self._most[what] = max(self._most[what], sum(each[what] for each in now))

    def _tree(self, pid: int) -> list[int]:
        found = [pid]
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                children = task.read_text().split()
            except OSError:
                continue
            for child in children:
                found += self._tree(int(child))
        return found

    def _memory(self, pid: int) -> dict[str, int]:
        try:
            fields = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return {"own": 0, "resident": 0}

        def total(*names: str) -> int:
            return sum(int(line.split()[1]) << 10 for line in fields if line.startswith(names))

        # Anonymous pages are what cannot be given back; the files being read and written are the page cache's.
        return {"own": total("Pss_Anon:", "Pss_Shmem:"), "resident": total("Rss:")}

    def stop(self) -> dict[str, float]:
        """MiB of pages of its own, shared ones counted once, and of all resident pages, shared ones in each process."""
        self._over.set()
        self._thread.join()
        return {f"peak_{what}_mebibytes": size / 2**20 for what, size in self._most.items()}


def questions(options: argparse.Namespace) -> None:
    """Questions of all modules, made on the spot."""
    from proctool.corpora import questions as made

    for level in made.LEVELS:
        modules = made.modules()[level]
        wall, processor = timed(lambda level=level, modules=modules: [made.draw(level, name, 7, 5) for name in modules])
        count = 5 * len(modules)
        say(
            "questions",
            level=level,
            modules=len(modules),
            per_second=count / wall,
            per_processor_second=count / processor,
        )


def say(what: str, **figures: object) -> None:
    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value

    print(json.dumps({"benchmark": what, **{key: rounded(value) for key, value in figures.items()}}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tokenise", "read", "memory", "questions"])
    parser.add_argument("--text", default="python")
    parser.add_argument("--text-field", default=None)
    parser.add_argument("--tokenizer", default="bytes")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--scratch", default=None)
    parser.add_argument("--block", type=int, default=0, help="mebibytes of text in a shard")
    options = parser.parse_args()
    globals()[options.what](options)


if __name__ == "__main__":
    main()
