"""What people write: recipes, tasks, command lines."""

from __future__ import annotations

import shlex
from random import Random
from typing import Any

from tests.fuzz import hostile
from tests.fuzz.mutate import mutated
from tests.fuzz.surfaces.base import ROOT, Finding, Surface


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

        self.words = (
            *tasks(),
            "shuffle(",
            "unigram(",
            "random(",
            ")",
            " + ",
            "*0.5",
            ":small",
            "length=",
            "k=",
            "symbols=",
        )
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
    options.notice = lambda _: None  # a line beside the one of a refusal

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


def _require_refusal(code: int, said: str) -> None:
    """What a command line may come to: done, refused in one line, or a usage error."""
    if code not in (0, 1, 2) or (code == 1 and len(said.strip().splitlines()) != 1):
        raise Finding(f"exit code {code}, {len(said.splitlines())} lines: {said[:300]}")
