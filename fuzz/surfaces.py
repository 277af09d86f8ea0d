"""What strangers' bytes reach: one class a surface. `seeds` are good inputs, `check` hands one input to the code as a
command would; whatever it raises but proctool's own errors and the operating system's is a finding.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shlex
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzz import hostile
from fuzz.mutate import mutated, mutated_value

ROOT = Path(__file__).parents[1]


class Finding(Exception):
    """An input that was not refused as it should be, or accepted wrongly."""


class Surface(ABC):
    """One way in. `folder` is empty, in memory where there is such a place, and all that may be written to."""

    words: Sequence[str] = ()
    """What mutations insert beside the usual."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = self.make_seeds()

    @abstractmethod
    def make_seeds(self) -> list[bytes]:
        """Inputs that are accepted."""

    def draw(self, random: Random) -> bytes:
        """A damaged input."""
        return mutated(random, random.choice(self.seeds), self.seeds, self.words)

    @abstractmethod
    def check(self, data: bytes) -> None:
        """Hand an input to the code."""

    def written(self, name: str, data: bytes) -> Path:
        """A file of this name that holds the input."""
        path = self.folder / name
        path.write_bytes(data)
        return path


class _Values(Surface):
    """Inputs that are JSON: damaged as values, so that they get past the parser."""

    def draw(self, random: Random) -> bytes:
        if random.random() < 0.2:
            return super().draw(random)
        return json.dumps(mutated_value(random, json.loads(random.choice(self.seeds)))).encode()


class ArtifactBytes(Surface):
    """Artifacts as bytes: header lengths, headers, metadata, tensors."""

    words = (
        "F32",
        "BF16",
        "F8_E4M3",
        '"shape":[',
        '"data_offsets":[',
        "__metadata__",
        "proctool",
        "18446744073709551615",
    )

    def make_seeds(self) -> list[bytes]:
        import numpy as np

        from proctool import artifact

        seeds = []
        for tensors, about in (
            ({}, {}),
            ({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"config": hostile.TINY}),
            ({"tokens": np.zeros((2, 5), np.uint16), "targets": np.ones((2, 5), bool)}, hostile._DATA),
        ):
            artifact.write(self.folder / "seed.safetensors", tensors, kind="data", about=about)
            seeds.append((self.folder / "seed.safetensors").read_bytes())
        self.truth = {bytes(seed) for seed in seeds}
        return seeds

    def draw(self, random: Random) -> bytes:
        data = super().draw(random)
        if random.random() < 0.5 and len(data) > 8:  # a length that fits, so that what follows is looked at
            at = data.rfind(b"}") + 1
            data = struct.pack("<Q", max(0, at - 8)) + data[8:]
        return data

    def check(self, data: bytes) -> None:
        from proctool import artifact

        found = artifact.read_header(self.written("a.safetensors", data))
        artifact.read_numpy(found)
        artifact.read_torch(found)
        length = struct.unpack("<Q", data[:8])[0]
        if found.content not in self._contents():
            raise Finding("a damaged artifact was accepted with contents of its own")
        if data not in self.truth and len(data) < length:
            raise Finding("longer than it is")

    def _contents(self) -> set[str]:
        if not hasattr(self, "contents"):
            from proctool import artifact

            self.contents = set()
            for seed in self.seeds:
                path = self.folder / "truth.safetensors"
                path.write_bytes(seed)
                self.contents.add(artifact.read_header(path).content)
        return self.contents


class ArtifactDocuments(_Values):
    """Metadata damaged and sealed again, as a stranger can: every reader of artifacts takes it."""

    def make_seeds(self) -> list[bytes]:
        parent = {
            "name": "set.safetensors",
            "kind": "data",
            "content": "0" * 64,
            "about": {"task": "set"},
            "parents": [],
        }
        return [
            json.dumps(
                {"kind": kind, "about": about, "parents": parents, "versions": {"numpy": "2"}, "format": 1}
            ).encode()
            for kind, about, parents in (
                ("data", hostile._DATA, []),
                (
                    "model",
                    {"config": hostile.TINY, "tokenizer": "bytes", "origins": {"tokens": {"source": "x", "how": "y"}}},
                    [parent, {**parent, "parents": [parent]}],
                ),
                ("model", {"config": {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1}}, [parent]),
                (
                    "tokens",
                    {
                        "last": True,
                        "read": 2,
                        "skipped": 0,
                        "splits": {"train": {"documents": 1, "bytes": 2, "tokens": 3}},
                        "corpus": "x",
                        "tokenizer": "bytes",
                    },
                    [],
                ),
            )
        ]

    def check(self, data: bytes) -> None:
        from proctool import artifact
        from proctool.cli.files import inspect
        from proctool.corpora.shards import existing
        from proctool.models.saved import open_model
        from proctool.procedural.dataset import DataFile

        with contextlib.suppress(ValueError, RecursionError, OverflowError):
            document = json.loads(data)
            over = document if isinstance(document, dict) else {"about": document}
            tensors = {"tokens": ("U16", [1, 5], bytes(10)), "targets": ("BOOL", [1, 5], bytes(5))}
            hostile.sealed(self.folder / "k-00000.safetensors", tensors, **over)
        path = self.folder / "k-00000.safetensors"
        if not path.exists():
            return
        existing(self.folder, "k")
        found = artifact.read_header(path)
        if len(data) % 8 == 0:  # showing takes longer than all the rest
            with contextlib.redirect_stdout(io.StringIO()) as out:
                inspect(path, tensors=True, lineage=False, json=False)
                inspect(path, tensors=False, lineage=True, json=False)
                inspect(path, tensors=False, lineage=False, json=True)
            if "\x1b" in out.getvalue() or "\x9b" in out.getvalue():
                raise Finding("control codes of a stranger reach the terminal")
        for read in (DataFile.open, lambda path: open_model(path).tokenizer()):
            with contextlib.suppress(*_refusals()):
                read(path)
        json.dumps(found.as_parent)


class Configurations(_Values):
    """config.json of a model."""

    def make_seeds(self) -> list[bytes]:
        from transformers import AutoConfig

        from proctool.models.saved import config_values

        made = [hostile.TINY]
        families = ("gpt2", "llama", "qwen3", "mixtral", "gpt_neox", "mamba", "gemma2")
        made += [config_values(AutoConfig.for_model(family)) for family in families]
        return [json.dumps(values).encode() for values in made]

    def check(self, data: bytes) -> None:
        from proctool.models.build import config_of, read_config

        values = read_config(self.written("config.json", data))
        made = config_of(values.pop("model_type"), values)
        if getattr(made, "num_hidden_layers", 0) > 1000:
            raise Finding("absurd sizes were taken")


class Recipes(Surface):
    """Recipe files."""

    words = (
        "arms:",
        "warmup: {task: set}",
        "seeds: [0, 1]",
        "&x ",
        "*x",
        "<<: *x",
        "components: [attention]",
        "diagnostics:",
        "init: a",
        "embeddings: scale",
        "pretrain:",
        "model: 1x1x4",
        "corpus: python",
    )

    def make_seeds(self) -> list[bytes]:
        written = [path.read_bytes() for path in sorted((ROOT / "recipes").rglob("*.yaml"))]
        small = (
            b"name: a\nmodel: pico\ncorpus: python\n"
            b"arms:\n  cold: {}\n  set: {warmup: {task: 'set:inputs=4', steps: 5}}\n",
            b"name: b\nmodel: 1x1x4\nseeds: [0, 1]\n"
            b"diagnostics:\n  haystack: {pairs: 4, steps: 9, warmup: {steps: 3}}\n"
            b"arms:\n  cold: {}\n  x: {warmup: {task: [set, union]}, components: [attention], embeddings: scale}\n",
        )
        self.small = list(small)
        return [*small, *sorted(written, key=len)[:6]]

    def draw(self, random: Random) -> bytes:
        # Parsing the recipes that we ship takes ten times as long.
        seeds = self.seeds if random.random() < 0.03 else self.small
        return mutated(random, random.choice(seeds), self.seeds, self.words)

    def check(self, data: bytes) -> None:
        from proctool.experiment.graph import plan
        from proctool.recipe import load_recipe

        plan(load_recipe(self.written("recipe.yaml", data)), self.folder / "run")


class TaskSpecifications(Surface):
    """Tasks as they are written on the command line, in recipes and in data files."""

    def make_seeds(self) -> list[bytes]:
        from proctool.procedural.registry import tasks

        self.words = (*tasks(), "shuffle(", "unigram(", ")", " + ", "*0.5", ":small", "length=", "k=", "symbols=")
        plain = [cls().spec for cls in tasks().values()]
        mixed = [
            "set*0.5 + union*0.5",
            "shuffle(set:inputs=24)",
            "shuffle(set*1 + union*3)",
            "unigram(dyck:k=4,length=16)",
        ]
        return [spec.encode() for spec in (*plain, *mixed)]

    def check(self, data: bytes) -> None:
        from proctool.procedural.mixture import parse_tasks

        task = parse_tasks(data.decode("utf-8", "replace"))
        if not (0 < task.length <= 1 << 17 and 0 < task.vocab_size <= 1 << 16):
            raise Finding(f"{task.spec}: {task.length} tokens of {task.vocab_size}")
        if parse_tasks(task.spec) != task:
            raise Finding(f"{task.spec} reads back as another task")


class Arguments(Surface):
    """Command lines. What a command would then do is cut off: only reading them is looked at."""

    words = (
        "--task",
        "--json",
        "--dry-run",
        "--set",
        "--config",
        "-o",
        "--steps",
        "--model",
        "--seed",
        "--init",
        "--lr",
        "--components",
        "attention,mlp",
        "set:inputs=4",
        "2x2x16",
        "--help",
        "--show",
        "--shard",
        "1/2",
        "generate",
        "warmup",
        "pretrain",
        "eval",
        "run",
        "compare",
        "report",
        "corpus",
        "inspect",
        "export",
        "transplant",
    )

    def make_seeds(self) -> list[bytes]:
        _cut_off()
        (self.folder / "options.yaml").write_text("steps: 5\nbatch-size: 4\n")
        lines = (
            "generate set --inputs 4 --samples 10 --seed 1 -o a.safetensors --dry-run",
            "generate dyck --k 4 --show 2",
            "warmup --task set:inputs=4 --model pico --steps 5 -o w.safetensors",
            "warmup --config options.yaml --task set",
            "warmup --task set --task union --set lr=1e-3 --set schedule=cosine --json --dry-run",
            "pretrain --corpus text --model 2x2x16 --init w.safetensors --components attention,mlp --embeddings scale",
            "eval haystack --pairs 4 --steps 5 --init none",
            "eval perplexity m.safetensors --corpus text",
            "run recipe.yaml --dry-run --jobs 2",
            "compare a b --json",
            "report runs/x --markdown",
            "inspect x.safetensors",
            "export x.safetensors folder",
            "corpus build --corpus text --tokenizer bytes --context 8 --shard 1/2",
            "tokenizer train --corpus text --vocab-size 300 -o t",
            "--version",
            "generate --help",
            "transplant --help",
        )
        return [line.encode() for line in lines]

    def draw(self, random: Random) -> bytes:
        words = random.choice(self.seeds).decode().split()
        for _ in range(random.choice((1, 1, 2, 3))):
            at = random.randrange(len(words) + 1)
            kind = random.randrange(5)
            if kind == 0 and words:
                del words[at % len(words)]
            elif kind == 1:
                words.insert(at, random.choice(self.words))
            elif kind == 2 and words:
                words[at % len(words)] = random.choice(random.choice(self.seeds).decode().split())
            elif words:
                word = words[at % len(words)].encode()
                words[at % len(words)] = mutated(random, word, self.seeds, self.words).decode("utf-8", "replace")
        return shlex.join(word.replace("\0", "") for word in words).encode()  # no argument can hold a zero byte

    def check(self, data: bytes) -> None:
        try:
            words = shlex.split(data.decode("utf-8", "surrogateescape"))
        except ValueError:
            return
        code, _, said = hostile.outcome(words)
        _require_refusal(code, said)


def _cut_off() -> None:
    """Replace what commands do with their options by nothing, before their modules are imported."""
    from proctool import config
    from proctool.cli import options
    from proctool.errors import RunError

    keep_values = options.with_values

    def stop(*_: Any, **__: Any) -> None:
        raise RunError("this is as far as reading arguments goes")

    def with_values(classes: Any, action: Any, **more: Any) -> Any:
        def build_all(values: Any, *_: Any, **__: Any) -> None:
            for cls, given in zip(classes, values, strict=True):
                config.build(cls, given, "")
            stop()

        return keep_values(classes, build_all, **more)

    options.with_values = with_values

    from proctool.cli.lazy import LazyGroup

    keep_resolve = LazyGroup.resolve_command
    known: dict[tuple[type, str], Any] = {}

    def resolve_command(self: LazyGroup, ctx: Any, args: list[str]) -> Any:
        """Each command is made once, not for every input."""
        if (type(self), args[0]) in known:
            return args[0], known[type(self), args[0]], args[1:]
        name, command, rest = keep_resolve(self, ctx, args)
        if command is not None and name in self.entries():
            known[type(self), name] = command
        return name, command, rest

    LazyGroup.resolve_command = resolve_command  # type: ignore[method-assign]
    import proctool.experiment.execute as execute

    execute.execute = stop


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


class Tokenizers(_Values):
    """tokenizer.json, and what a model file carries of a tokenizer."""

    def make_seeds(self) -> list[bytes]:
        import tokenizers

        from proctool.corpora.tokenizers import load_tokenizer

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
        from proctool.corpora.tokenizers import load_tokenizer

        tokenizer = load_tokenizer(str(self.written("tokenizer.json", data)))
        ids = tokenizer.encode_batch([b"a b ab", "aé\N{PILE OF POO}".encode(), b"\xff", b""])
        if any(len(each) and int(each.max()) >= tokenizer.vocab_size for each in ids):
            raise Finding("an id outside the vocabulary")
        tokenizer.decode(ids[0])
        _ = tokenizer.fingerprint


class Metrics(Surface):
    """metrics.jsonl, from which comparisons are made."""

    words = (
        '{"event": "eval", "step": 1, "tokens": 5, "loss": 2.0}\n',
        '{"event": "end"}\n',
        '"loss": NaN',
        '"step": 1e400',
    )

    def make_seeds(self) -> list[bytes]:
        events = [
            {"event": "start", "steps": 4, "seed": 0, "parameters": 100, "flops": 10},
            {"event": "eval", "step": 0, "tokens": 0, "loss": 3.0, "accuracy": 0.1, "split": "validation"},
            {"event": "train", "step": 2, "tokens": 32, "loss": 2.5, "lr": 0.1, "seconds": 0.5, "tokens_per_second": 9},
            {"event": "eval", "step": 4, "tokens": 64, "loss": 2.0, "accuracy": 0.2, "split": "validation"},
            {"event": "end", "step": 4, "tokens": 64, "loss": 2.0, "seconds": 1.0, "content": "0" * 64},
        ]
        self.other = self.folder / "other"
        self.other.mkdir(exist_ok=True)
        good = "".join(json.dumps(event) + "\n" for event in events).encode()
        (self.other / "metrics.jsonl").write_bytes(good)
        return [good, good * 2]

    def draw(self, random: Random) -> bytes:
        if random.random() < 0.3:
            return super().draw(random)
        lines = [json.loads(line) for line in random.choice(self.seeds).splitlines()]
        at = random.randrange(len(lines))
        lines[at] = mutated_value(random, lines[at])
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    def check(self, data: bytes) -> None:
        from proctool.reporting.report import build_report
        from proctool.reporting.run_folders import load_runs

        self.written("metrics.jsonl", data)
        build_report(load_runs([f"base={self.other}", f"new={self.folder}"], None))


class Experiments(_Values):
    """experiment.json, by which reports go."""

    def make_seeds(self) -> list[bytes]:
        from proctool.experiment.graph import plan
        from proctool.experiment.record import record
        from proctool.recipe import load_recipe

        seeds = []
        for number, more in enumerate(("", "title: a `b`\nbaseline: x\n")):
            recipe = self.written("recipe.yaml", (_RECIPE + more).encode())
            planned = plan(load_recipe(recipe), self.folder / "run")
            for stage in planned.stages:
                folder = stage.folder(self.folder / "run")
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in _EVENTS))
            seeds.append(json.dumps(record(planned, _RECIPE, f"proctool run {number}")).encode())
        return seeds

    def check(self, data: bytes) -> None:
        from proctool.reporting.experiment import load_experiment
        from proctool.reporting.page import page
        from proctool.reporting.report import build_report

        self.written("run/experiment.json", data)
        report = build_report(load_experiment(self.folder / "run"))
        json.dumps(report.as_json())
        if "<script>alert" in page(report):
            raise Finding("a script of a stranger is on the page")


_RECIPE = """name: a
model: 1x1x4
corpus: python
context: 16
seeds: [0, 1]
diagnostics:
  haystack: {pairs: 2, vocab: 16, steps: 9, ramp_steps: 1, warmup: {steps: 3, ramp_steps: 1}}
pretrain: {steps: 4, ramp_steps: 1}
arms:
  cold: {}
  x: {warmup: {task: "set:inputs=4", steps: 4, ramp_steps: 1}, components: [attention]}
"""
_EVENTS = (
    {"event": "start", "steps": 4, "seed": 0, "parameters": 100, "flops": 10},
    {"event": "eval", "step": 0, "tokens": 0, "loss": 3.0, "accuracy": 0.1, "split": "validation"},
    {"event": "eval", "step": 4, "tokens": 64, "loss": 2.0, "accuracy": 0.2, "split": "validation"},
    {"event": "end", "step": 4, "tokens": 64, "loss": 2.0, "seconds": 1.0, "content": "0" * 64},
)

SURFACES: dict[str, type[Surface]] = {
    "artifact": ArtifactBytes,
    "documents": ArtifactDocuments,
    "config": Configurations,
    "recipe": Recipes,
    "tasks": TaskSpecifications,
    "arguments": Arguments,
    "text": Texts,
    "jsonl": Lines,
    "gz": Gzip,
    "zst": Zstandard,
    "parquet": Parquet,
    "tokenizer": Tokenizers,
    "metrics": Metrics,
    "experiment": Experiments,
}


def _refusals() -> tuple[type[BaseException], ...]:
    from proctool.errors import ProctoolError

    return ProctoolError, OSError


def _require_refusal(code: int, said: str) -> None:
    """What a command line may come to: done, refused in one line, or a usage error."""
    if code not in (0, 1, 2) or (code == 1 and len(said.strip().splitlines()) != 1):
        raise Finding(f"exit code {code}, {len(said.splitlines())} lines: {said[:300]}")


def verdict(surface: Surface, data: bytes) -> str:
    """ "taken" or "refused". Raises whatever is a finding."""
    try:
        surface.check(data)
    except _refusals() as error:
        from proctool.errors import describe_os_error, one_line

        line = one_line(describe_os_error(error) if isinstance(error, OSError) else str(error))
        if not line or len(line) > 1100:
            raise Finding(f"a refusal of {len(line)} characters") from error
        return "refused"
    return "taken"
