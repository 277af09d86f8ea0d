"""Run folders and experiments as the commands leave them, without running any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proctool.reporting.record import RECORD

HOSTILE = "</script><i>set</i>"
"""An arm's name (a recipe would refuse it, a folder's name would not)."""


def write_events(folder: Path, *events: dict[str, Any], tail: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    return folder


def training(stretch: float = 1.0, end: bool = True, accuracy: float = 0.5, **start: Any) -> list[dict[str, Any]]:
    """The events of a run that sees 1000 tokens a step, whose losses come at `stretch` times the tokens."""
    steps = start.pop("steps", 100)
    events: list[dict[str, Any]] = [
        {"event": "start", "steps": steps, "tokens_per_step": 1000, "parameters": 1000, **start}
    ]
    for step in sorted({*range(0, steps + 1, 10), steps}):
        loss = 2 + 3 / (1 + step / 10 / stretch)
        tokens = step * 1000
        events.append(
            {"event": "eval", "step": step, "tokens": tokens, "split": "validation", "loss": loss, "accuracy": accuracy}
        )
    if end:
        events.append({"event": "end", "step": steps, "tokens": 1000 * steps, "seconds": 1.0, "content": "c0ffee" * 10})
    return events


class Made:
    """An experiment's folder in the making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages: dict[str, Any] = {}
        self.arms: dict[str, dict[str, Any]] = {}

    def stage(self, key: str, donor: str | None, events: list[dict[str, Any]]) -> str:
        """A finished stage (its folder is called by its key)."""
        write_events(self.root / key, *events)
        command = ["proctool", "pretrain", "--run-dir", key]
        self.stages[key] = {
            "name": key, "folder": key, "command": command, "donor": donor, "steps": 100, "tokens": 100_000,
            "eval_samples": 1000,
        }  # fmt: skip
        return key

    def measured(
        self,
        arm: str,
        seed: int,
        pretrain: str | None,
        budgets: Mapping[str, str],
        finetunes: Mapping[str, str] | None = None,
        **diagnostics: str,
    ) -> None:
        """What measures an arm with a seed."""
        found = {"pretrain": pretrain, "diagnostics": diagnostics} | ({"budgets": dict(budgets)} if budgets else {})
        found |= {"finetunes": dict(finetunes)} if finetunes else {}
        self.arms.setdefault(arm, {})[str(seed)] = found

    def write(self, **more: Any) -> Path:
        """Write the record; the folder."""
        record = {
            "format": 1, "name": "tiny", "title": "Does </script><b>it</b> help?", "baseline": "cold", "seeds": [0, 1],
            "recipe": {"model": "2x2x16", "corpus": "python", "arms": {}},
            "source": "name: tiny # <script>alert(1)</script>\n", "command": "proctool run tiny.yaml",
            "environment": {"python": "3.11"}, "chance": {"haystack": 0.3}, "stages": self.stages, "arms": self.arms,
        } | more  # fmt: skip
        (self.root / RECORD).write_text(json.dumps(record), encoding="utf-8")
        return self.root


def two_arms(root: Path, **more: Any) -> Path:
    """Two arms (one with a hostile name) and two seeds, pretrained and diagnosed, with a hostile title."""
    made = Made(root)
    for seed in (0, 1):
        warm = made.stage(f"warm{seed}", None, training(command="warmup", task="set:inputs=8"))
        carried = [{"component": "attention", "source": "carried", "reason": "from warm.safetensors"}]
        cold = made.stage(f"cold{seed}", None, training())
        hot = made.stage(f"hot{seed}", warm, training(0.7 + 0.01 * seed, carried=carried))
        low = made.stage(f"hay-cold{seed}", None, training(accuracy=0.3))
        high = made.stage(f"hay-hot{seed}", warm, training(accuracy=0.9 + 0.01 * seed))
        made.measured("cold", seed, cold, {}, haystack=low)
        made.measured(HOSTILE, seed, hot, {}, haystack=high)
    return made.write(**more)


def substitutive(root: Path) -> Path:
    """A warm-up in two lengths and its shuffled control, three seeds, three budgets, published numbers.

    The arms reach every loss at 0.8 and 0.6 of the baseline's tokens, the control at 0.95 of them.
    """
    made = Made(root)
    ways = {"set-10k": (0.8, 10_000), "set-20k": (0.6, 20_000), "set-20k-shuffled": (0.95, 20_000)}
    for seed in (0, 1, 2):
        jitter = 0.004 * (seed - 1)
        made.measured("cold", seed, made.stage(f"cold{seed}", None, training()), {})
        for arm, (stretch, tokens) in ways.items():
            task = "shuffle(set:inputs=8)" if "shuffled" in arm else "set:inputs=8"
            spent = [event | ({"tokens": tokens} if event["event"] == "end" else {}) for event in
                     training(command="warmup", task=task)]  # fmt: skip
            warm = made.stage(f"warm-{arm}{seed}", None, spent)
            budgets = {
                share: made.stage(
                    f"{arm}-{share}-{seed}", warm, training(stretch + jitter, steps=int(100 * float(share)))
                )
                for share in ("0.5", "0.75", "1")
            }
            made.measured(arm, seed, budgets["1"], budgets)
    about = {
        arm: {
            "made_from": "cold" if arm == "cold" else "set",
            "control": "shuffled" if "shuffled" in arm else None,
            "of": ["set-20k"] if "shuffled" in arm else [],
        }
        for arm in made.arms
    }
    quoted = {"what": "C4", "section": "section 5", "measure": "perplexity", "step": None, "diagnostic": None}
    return made.write(about=about, published=[quoted | {"arms": {"cold": 62.0, "set-20k": 59.9}}])


def finetuned(root: Path, seeds: tuple[int, ...] = (0, 1, 2), **hot: Any) -> Path:
    """Two arms, pretrained and then fine-tuned on other text, where `set` is 0.1 nats better give or take its seed."""
    made = Made(root)
    for seed in seeds:
        warm = made.stage(f"warm{seed}", None, training(command="warmup", task="set:inputs=8"))
        for arm, start, stretch, less in (("cold", None, 1.0, 0.0), ("set", warm, 0.7, 0.1 + 0.01 * seed)):
            before = made.stage(f"{arm}{seed}", start, training(stretch, corpus="c4"))
            events = training(corpus="wikitext", tokenizer="gpt2", steps=50)
            if arm == "set":
                events[0] |= hot
            for event in events[1:-1]:
                event["loss"] -= less
            after = made.stage(f"tuned-{arm}{seed}", before, events)
            made.measured(arm, seed, before, {}, finetunes={"wikitext": after})
    return made.write()
