"""Folders of runs and experiments, from which reports are made."""

from __future__ import annotations

import json
from random import Random

from tests.fuzz.mutate import mutated_value
from tests.fuzz.surfaces.base import Finding, Surface, Values


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


class Experiments(Values):
    """experiment.json, by which reports go."""

    def make_seeds(self) -> list[bytes]:
        from proctool import config
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
            seeds.append(json.dumps(config.plain(record(planned, _RECIPE, f"proctool run {number}"))).encode())
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
