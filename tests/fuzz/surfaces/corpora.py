"""Text in its formats, and tokenizers."""

from __future__ import annotations

import gzip
import io
import json
from random import Random
from typing import Any

from tests.fuzz.mutate import mutated
from tests.fuzz.surfaces.base import Finding, Surface, Values


class Texts(Surface):
    """Plain text corpora."""

    name = "a.txt"

    def make_seeds(self) -> list[bytes]:
        words = "one line of text\n\nand é more \N{PILE OF POO}\r\n"
        return [words.encode(), b"\xef\xbb\xbf" + words.encode() * 20, b"\n" * 40, (words * 4000).encode()[: 140 << 10]]

    def draw(self, random: Random) -> bytes:
        # The long seed crosses the size at which documents are cut; it is drawn seldom, as it is slow.
        seed = self.seeds[-1] if random.random() < 0.002 else random.choice(self.seeds[:-1])
        return mutated(random, seed, self.seeds[:-1], self.words)

    def check(self, data: bytes) -> None:
        from proctool.corpora import formats

        path = str(self.written(self.name, data))
        formats.stretches(path, len(data), 64, None)
        whole = list(formats.read(path, 0, None, "text"))
        if any(not isinstance(each.content, bytes) or (each.problem and len(each.problem) > 4000) for each in whole):
            raise Finding("a document that is none")
        if self.name.endswith((".txt", ".jsonl")) and len(data) > 2:
            halves = [*formats.read(path, 0, len(data) // 2, "text"), *formats.read(path, len(data) // 2, None, "text")]
            good = [each.content for each in halves if not each.problem]
            if self.name.endswith(".jsonl") and good != [each.content for each in whole if not each.problem]:
                raise Finding("stretches do not give the documents of the whole")


class Lines(Texts):
    """JSON lines."""

    name = "a.jsonl"
    words = ('{"text": "a"}\n', '{"text": null}', '"text"', "[1]", '"\\ud800"', "\n\n", "{}", "[" * 3000)

    def make_seeds(self) -> list[bytes]:
        line = b'{"text": "a document \\u00e9", "meta": {"a": [1, 2.5, null]}}\n'
        return [line, line * 5, b'{"text": ""}\n{"other": "x"}\n[1]\n' + line, line * 2]


class Gzip(Texts):
    """Compressed text: half of the damage is done before compression."""

    name = "a.jsonl.gz"

    def make_seeds(self) -> list[bytes]:
        self.plain = Lines(self.folder).seeds
        return [self.pack(each) for each in self.plain]

    def pack(self, data: bytes) -> bytes:
        return gzip.compress(data, 1, mtime=0)

    def draw(self, random: Random) -> bytes:
        if random.random() < 0.5:
            return self.pack(mutated(random, random.choice(self.plain), self.plain, Lines.words))
        return mutated(random, random.choice(self.seeds), self.seeds, ())


class Zstandard(Gzip):
    """The same with .zst."""

    name = "a.jsonl.zst"

    def pack(self, data: bytes) -> bytes:
        import zstandard

        return zstandard.ZstdCompressor(level=1).compress(data)


class Parquet(Texts):
    """Parquet files: pyarrow reads them, in this process."""

    name = "a.parquet"

    def make_seeds(self) -> list[bytes]:
        import pyarrow
        import pyarrow.parquet

        seeds = []
        texts: list[Any] = ["a document", None, "é" * 20, ""]
        columns = (
            {"text": texts * 5},
            {"text": [1, 2]},
            {"text": [["a"], None]},
            {"other": ["x"]},
            {"text": [b"\xff\xfe", b"a"]},
        )
        for values in columns:
            for compression in ("NONE", "SNAPPY"):
                out = io.BytesIO()
                pyarrow.parquet.write_table(pyarrow.table(values), out, compression=compression, row_group_size=8)
                seeds.append(out.getvalue())
        return [*seeds, seeds[0]]


class Tokenizers(Values):
    """tokenizer.json, and what a model file carries of a tokenizer."""

    def make_seeds(self) -> list[bytes]:
        import tokenizers

        from proctool.corpora.subwords import load_tokenizer

        bpe = json.loads(load_tokenizer("bytes").definition)
        bpe["model"]["vocab"] = dict(list(bpe["model"]["vocab"].items())[:40])
        bpe["added_tokens"][0]["id"] = 40
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "</s>": 2, "?": 3}, unk_token="?"))
        words.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\s+|\w+"), "isolated")
        words.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
        )
        unigram = tokenizers.Tokenizer(tokenizers.models.Unigram([("<eos>", 0.0), ("a", -1.0), ("b", -2.0)], 0, True))
        unigram.decoder = tokenizers.decoders.ByteFallback()
        return [json.dumps(bpe).encode(), words.to_str().encode(), unigram.to_str().encode()]

    def check(self, data: bytes) -> None:
        from proctool.corpora.subwords import load_tokenizer

        tokenizer = load_tokenizer(str(self.written("tokenizer.json", data)))
        ids = tokenizer.encode_batch([b"a b ab", "aé\N{PILE OF POO}".encode(), b"\xff", b""])
        if any(len(each) and int(each.max()) >= tokenizer.vocab_size for each in ids):
            raise Finding("an id outside the vocabulary")
        tokenizer.decode(ids[0])
        _ = tokenizer.fingerprint
