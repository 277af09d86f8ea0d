"""One line of advice for each thing that is slow or missing: rules over facts, and their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proctool.doctor.facts import Checkup
from proctool.units import format_bytes, format_count

SHARE_OF_PEAK = 0.5
"""Large products reach more than this share of a GPU's peak unless something holds the GPU back."""
SLOW_DISK = 100e6
"""Bytes a second. A checkpoint of GPT-2 small is 1.5 GB."""
LITTLE_DISK, LITTLE_CACHE = 5 << 30, 2 << 30
"""Bytes. The first holds three checkpoints of GPT-2 small, the second its tokenizer, weights and a small corpus."""
LITTLE_MEMORY = 1 << 30


@dataclass(frozen=True)
class Advice:
    """What to do about one thing."""

    subject: str
    text: str


Rule = Callable[[Checkup], Iterator[Advice]]


def advise(found: Checkup) -> tuple[Advice, ...]:
    """The advice that applies, most important first."""
    return tuple(advice for rule in RULES for advice in rule(found))


def gpu_without_torch(found: Checkup) -> Iterator[Advice]:
    """A GPU that torch cannot use."""
    if found.device.unseen_gpu:
        why = "was built for CPUs" if found.software.cuda is None else "cannot use its driver"
        yield Advice(
            "device", f"this machine has a GPU but torch {why}; install a CUDA build of torch or a newer driver"
        )


def occupied_memory(found: Checkup) -> Iterator[Advice]:
    """Memory that other programs hold."""
    device = found.device
    if device.free < LITTLE_MEMORY:
        yield Advice("memory", f"only {format_bytes(device.free)} are free on the device; stop other programs there")
    elif device.kind == "cuda" and device.free < device.memory / 2:
        yield Advice("memory", "other programs hold more than half of the GPU's memory; nvidia-smi lists them")


def idle_cores(found: Checkup) -> Iterator[Advice]:
    """Fewer threads than cores on a CPU."""
    device = found.device
    if device.kind == "cpu" and device.threads < device.count:
        yield Advice(
            "threads",
            f"torch uses {device.threads} of {device.count} cores; set OMP_NUM_THREADS={device.count} for a single run",
        )


def slow_products(found: Checkup) -> Iterator[Advice]:
    """Products below the data sheet's speed."""
    for each in found.products:
        if each.peak is not None and each.flops < SHARE_OF_PEAK * each.peak:
            share = each.flops / each.peak
            yield Advice(
                "products",
                f"{each.precision} products reach {share:.0%} of the GPU's peak; check power limit, heat and other "
                "programs with nvidia-smi",
            )


def precision(found: Checkup) -> Iterator[Advice]:
    """A precision that this device is slow in, or fast in."""
    speeds = {each.precision: each.flops for each in found.products}
    if found.device.kind == "cuda" and not found.device.has_bf16:
        yield Advice("bf16", "this GPU has no bf16; use --precision fp16")
    elif found.device.kind == "cpu" and "bf16" in speeds and "fp32" in speeds:
        if speeds["bf16"] < speeds["fp32"]:
            yield Advice("bf16", "bf16 products are slower than fp32 here; stay with --precision fp32")
        elif speeds["bf16"] > 1.5 * speeds["fp32"]:
            times = speeds["bf16"] / speeds["fp32"]
            yield Advice("bf16", f"bf16 products are {times:.1f} times as fast as fp32; try --precision bf16")


def slow_attention(found: Checkup) -> Iterator[Advice]:
    """An attention kernel that writes whole maps to memory."""
    for each in found.attention:
        if each.kernel == "math" and each.head > 16:
            yield Advice(
                "attention", f"no fused attention for {each.precision} heads of {each.head}; use a newer torch"
            )


def compiler(found: Checkup) -> Iterator[Advice]:
    """No C compiler, or one that does not work."""
    if found.software.compiler is None:
        yield Advice(
            "compiler", "no C compiler: install gcc or set CC; diagnostics and --compile are slower without it"
        )
    elif not found.software.small_heads:
        yield Advice(
            "compiler", f"{found.software.compiler} cannot build the kernel for small heads; install gcc with OpenMP"
        )


def disk(found: Checkup) -> Iterator[Advice]:
    """A slow, full or read-only disk for run folders."""
    place = found.disk
    if place.written is None:
        yield Advice("disk", f"{place.folder} cannot be written; choose another folder with --run-dir and -o")
    elif place.written < SLOW_DISK:
        yield Advice(
            "disk",
            f"checkpoints are written at {format_bytes(place.written)}/s; use a local disk (--run-dir) or raise "
            "--checkpoint-every",
        )
    if place.written is not None and place.free < LITTLE_DISK:
        yield Advice("disk", f"{format_bytes(place.free)} are free; free some, or use another disk with --run-dir")


def slow_stream(found: Checkup) -> Iterator[Advice]:
    """A stream that a model waits for."""
    for each in found.feeds:
        if each.made < each.eaten:
            yield Advice(
                each.name,
                f"the stream makes {format_count(each.made)} samples/s and {each.model} takes "
                f"{format_count(each.eaten)}; write them to a file first: proctool generate {each.name}",
            )


def caches(found: Checkup) -> Iterator[Advice]:
    """Caches that cannot grow."""
    variables = {"proctool": "PROCTOOL_CACHE", "hub": "HF_HOME"}
    for each in found.caches:
        variable = variables.get(each.name, "its variable")
        if not each.writable:
            yield Advice("cache", f"{each.folder} cannot be written; set {variable} to a folder that can")
        elif each.free is not None and each.free < LITTLE_CACHE:
            free = format_bytes(each.free)
            yield Advice("cache", f"{each.folder} has {free} free; set {variable} to a folder on a larger disk")


def hub(found: Checkup) -> Iterator[Advice]:
    """A hub that does not answer."""
    if found.hub.reachable is False:
        yield Advice(
            "hub", f"{found.hub.endpoint} does not answer; use local files, and set HF_HUB_OFFLINE=1 to skip waiting"
        )


def packages(found: Checkup) -> Iterator[Advice]:
    """Optional packages."""
    if not found.software.trackers:
        yield Advice("trackers", "none installed; for --track: pip install tensorboard (or wandb, trackio)")
    if missing := [name for name, there in found.software.extras.items() if not there]:
        yield Advice("extras", f"not installed: {', '.join(missing)}; pip install 'proctool[{missing[0]}]' adds one")


RULES: tuple[Rule, ...] = (
    gpu_without_torch, occupied_memory, idle_cores, slow_products, precision, slow_attention, compiler, disk,
    slow_stream, caches, hub, packages,
)  # fmt: skip
