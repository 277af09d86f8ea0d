"""What `benchmarks/gpu.py` measures, each function in a process of its own. They take and give what JSON can hold.

They run on the GPU where there is one, else on the CPU, so that all of it can be tried without a card.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_job import Found, device, make_job, memory, wait
from benchmarks.gpu_profile import profile
from proctool import artifact
from proctool.config import plain as as_json
from proctool.doctor import found, speeds
from proctool.events import EvalEvent, Event, NoteEvent, StartEvent, TrainEvent, read_events
from proctool.models.build import model_config, outline
from proctool.models.flops import training_flops
from proctool.training.devices import device_peak
from proctool.training.options import PretrainOptions
from proctool.training.speed import fastest

ROOT = Path(__file__).parents[1]


def environment(size: int) -> Found:
    """What the machine is, and the ceilings of products and copies."""
    here = device()
    numbers = 8 * size * size
    source, target = (torch.empty(numbers, device=here) for _ in range(2))
    copied = fastest(lambda: target.copy_(source), here, 0.5)
    vocabulary = {
        str(words): _products(4 * size, size, words) for words in (6 * size + 1, -(-(6 * size + 1) // 128) * 128)
    }
    return {
        "software": as_json(found.software()),
        "device": as_json(found.device()),
        "attention": as_json(found.attention(here, "bf16")),
        "cudnn": torch.backends.cudnn.version(),
        "products": [as_json(speeds.products(here, each, size)) for each in ("fp32", "bf16")],
        "copy_bytes_per_second": 8 * numbers / copied,
        "head_flops_by_vocabulary": vocabulary,
    }


def _products(rows: int, width: int, words: int) -> float:
    """Operations a second of the head's product over a vocabulary of `words`."""
    hidden = torch.randn(rows, width, device=device()).to(torch.bfloat16)
    head = torch.randn(words, width, device=device()).to(torch.bfloat16)
    return 2 * rows * width * words / fastest(lambda: hidden @ head.T, device(), 0.3)


def train(model: str, context: int, batch: int, steps: int, vocabulary: int, **changes: Any) -> Found:
    """Tokens a second and MFU of proctool's loop on random tokens: the median of the second half."""
    with tempfile.TemporaryDirectory() as folder:
        events, job = make_job(Path(folder), model, context, batch, steps, vocabulary, **changes)
        job.run()
    trained = [each for each in events if isinstance(each, TrainEvent)]
    kept = trained[len(trained) // 2 :]
    mfu = [each.mfu for each in kept if each.mfu is not None]
    return {
        "tokens_per_second": statistics.median(each.tokens_per_second or 0 for each in kept),
        "mfu": statistics.median(mfu) if mfu else None,
        "loss": trained[-1].loss,
        "notes": [each.note for each in events if isinstance(each, NoteEvent)],
        **memory(),
    }


def plain(model: str, context: int, batch: int, steps: int, vocabulary: int, accumulate: int, compile: bool) -> Found:
    """The same model in the plain loop of gpu_plain.py."""
    from benchmarks.gpu_plain import PlainGPT, PlainTraining

    here = device()
    config = model_config(model, vocab_size=vocabulary, context=context)
    gpt = PlainGPT(config.n_layer, config.n_head, config.n_embd, context, vocabulary)
    training = PlainTraining(gpt, here.type, batch, context, vocabulary, accumulate, compile)
    marks = []
    for number in range(steps):
        training.step(number)
        wait()
        marks.append(time.perf_counter())
    speed = batch * context / _a_step(marks)
    flops = training_flops(outline(config), batch * context, context) / (batch * context)
    peak = device_peak(here, "bf16")
    return {"tokens_per_second": round(speed), "mfu": speed * flops / peak if peak else None, **memory()}


def exact(
    model: str, context: int, batch: int, steps: int, vocabulary: int, deterministic: bool, **changes: Any
) -> Found:
    """Whether a second run, and a killed and resumed one, end with the bits of the first."""
    if deterministic:
        changes |= _deterministic()
    weights = {}
    every = max(2, steps // 3)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def job_of(name: str) -> Any:
            return make_job(
                folder,
                model,
                context,
                batch,
                steps,
                vocabulary,
                name=name,
                checkpoint_every=every,
                log_every=1,
                **changes,
            )[1]

        for name in ("first", "second", "killed"):
            if name == "killed":
                job = job_of(name)
                job.listeners = [*job.listeners, _kill_at(2 * steps // 3)]
                with contextlib.suppress(KeyboardInterrupt):
                    job.run()
            job_of(name).run()
            weights[name] = artifact.read_torch(artifact.read_header(folder / f"{name}.safetensors"))
    first = weights.pop("first")
    apart = {
        name: max(float((each[key].double() - first[key].double()).abs().max()) for key in first)
        for name, each in weights.items()
    }
    return {"second_exact": apart["second"] == 0, "resumed_exact": apart["killed"] == 0, "largest_difference": apart}


def _kill_at(step: int) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if isinstance(event, TrainEvent) and event.step == step:
            raise KeyboardInterrupt

    return listen


def _deterministic() -> Found:
    """The option that makes a run deterministic; without it, the same by torch's own functions."""
    if "deterministic" in {each.name for each in dataclasses.fields(PretrainOptions)}:
        return {"deterministic": True}
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    return {}


def haystack(loop: str, steps: int, batch: int, workers: int = 0, compile: bool = False) -> Found:
    """Samples a second of the 2x4x16 diagnostic, by the Trainer or by proctool."""
    from benchmarks.training import with_proctool, with_trainer

    if loop == "trainer":
        return {"samples_per_second": with_trainer(steps, batch, workers)}
    return {"samples_per_second": with_proctool(steps, batch, compile=compile)}


def tests(only: Sequence[str], processes: int) -> Found:
    """The fast tests of training and models, with the GPU in sight."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += [*only, *(["-n", str(processes)] if processes > 1 else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return {"code": done.returncode, "tail": done.stdout.splitlines()[-25:]}


def science(out: str, corpus: str, sample: int, recipe: Found) -> Found:
    """A recipe on Python code of this machine, cold against warmed: its curves and its report."""
    name = recipe["name"]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)

        def run(*words: str) -> None:
            settings = {**os.environ, "PROCTOOL_CACHE": str(work / "cache")}
            command = [sys.executable, "-m", "proctool", *words]
            subprocess.run(command, cwd=work, check=True, env=settings, stdout=sys.stderr)

        began = time.monotonic()
        size = "512" if sample < 10_000_000 else "16384"
        run("tokenizer", "train", "--corpus", corpus, "--vocab-size", size, "--sample", str(sample), "-o", "bpe")
        (work / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
        trained = time.monotonic()
        run("run", "recipe.yaml", "--jobs", "2")
        ended = time.monotonic()
        root = work / "runs" / name
        curves = {str(log.parent.relative_to(root)): _curve(log.parent) for log in sorted(root.rglob("metrics.jsonl"))}
        for page in root.glob("report.*"):
            (Path(out) / f"{name}-{page.name}").write_bytes(page.read_bytes())
    return {"tokenizer_seconds": trained - began, "run_seconds": ended - trained, "curves": curves}


def _curve(folder: Path) -> Found:
    events = read_events(folder)
    trained = [each for each in events if isinstance(each, TrainEvent)]
    start = next(each for each in events if isinstance(each, StartEvent))
    return {
        "command": start.command,
        "loss": [(each.step, each.loss) for each in events if isinstance(each, EvalEvent)],
        "tokens_per_second": trained[-1].tokens_per_second,
        "mfu": trained[-1].mfu,
    }


def _a_step(marks: Sequence[float]) -> float:
    """Seconds of a step, over the second half of the marks at their ends."""
    half = len(marks) // 2
    return (marks[-1] - marks[half - 1]) / (len(marks) - half)


MEASURES: dict[str, Callable[..., Found]] = {
    each.__name__: each for each in (environment, train, plain, exact, profile, haystack, tests, science)
}
