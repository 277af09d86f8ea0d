"""`proctool doctor`: what this machine offers a training run, on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proctool.errors import OptionError
from proctool.paths import AS_PATH
from proctool.units import counted, format_bytes, format_count

if TYPE_CHECKING:
    from proctool.doctor.facts import Checkup, Products

_KERNELS = {
    "small-heads": "proctool's C kernel",
    "flash": "flash",
    "cudnn": "cuDNN",
    "efficient": "memory-efficient",
    "math": "math (unfused)",
    "unknown": "unknown",
}


def doctor(
    folder: Annotated[
        Path,
        typer.Option(help="Folder for runs, to measure its disk (default: this one).", show_default=False, **AS_PATH),
    ] = Path(),
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON on standard output.")] = False,
) -> None:
    """Check this machine's software, device, speed and folders, and give advice."""
    from proctool.cli.display import emit, line
    from proctool.cli.training import quiet_libraries
    from proctool.config import plain
    from proctool.doctor.advice import advise
    from proctool.doctor.checkup import check

    if not folder.is_dir():
        raise OptionError(f"--folder {folder}: not a folder; create it, or give a folder that exists")
    quiet_libraries()
    found = check(folder.absolute())
    advice = advise(found)
    if json:
        emit({**plain(found), "advice": plain(advice)})
        return
    for name, words in _rows(found):
        line(f"{name:<10} {words}", hanging=11)
    print()
    for each in advice:
        line(f"- {each.subject}: {each.text}")
    if not advice:
        print("Nothing is slow or missing.")


def _rows(found: Checkup) -> Iterator[tuple[str, str]]:
    """One line a subject."""
    software, device = found.software, found.device
    libraries = ", ".join(f"{name} {software.libraries[name]}" for name in ("transformers", "accelerate")
                          if name in software.libraries)  # fmt: skip
    yield "proctool", f"{found.proctool}; Python {software.python}"
    yield "torch", f"{software.torch}, {libraries}"
    if device.kind == "cpu":
        count = f"{counted(device.count, 'core')}, {counted(device.threads, 'thread')}"
    else:
        count = f"{device.count} devices" if device.count > 1 else ""
        count += f"{'; ' if count else ''}driver {device.driver or 'unknown'}, built for {software.cuda}"
    yield "device", f"{device.kind}: {device.name}; {count}"
    yield "memory", f"{format_bytes(device.free)} free of {format_bytes(device.memory)}"
    yield "bf16", "in hardware" if device.has_bf16 else "not in hardware"
    yield (
        "attention",
        "; ".join(f"heads of {each.head} in {each.precision}: {_KERNELS[each.kernel]}" for each in found.attention),
    )
    yield "matmul", "; ".join(map(_product, found.products))
    disk = found.disk
    speed = "cannot be written" if disk.written is None else f"{disk.written / 1e6:.0f} MB/s with fsync"
    yield "disk", f"{disk.folder}: {speed}, {format_bytes(disk.free)} free"
    for each in found.feeds:
        yield (
            each.name,
            f"generates {format_count(each.made)} samples/s; {each.model} trains on {format_count(each.eaten)} "
            "samples/s",
        )
    for cache in found.caches:
        free = "" if cache.free is None else f", {format_bytes(cache.free)} free"
        yield "cache", f"{cache.name}: {cache.folder}{'' if cache.writable else ' (read-only)'}{free}"
    hub = found.hub
    yield "hub", f"{hub.endpoint}: " + ("offline by HF_HUB_OFFLINE" if hub.offline else
                                        "reachable" if hub.reachable else "not reachable")  # fmt: skip
    yield "compiler", (software.compiler or "none") + ("; kernel for small heads works" if software.small_heads else "")
    yield "trackers", ", ".join(software.trackers) or "none"
    yield "extras", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in software.extras.items()) or "?"


def _product(each: Products) -> str:
    unit, scale = ("TFLOP/s", 1e12) if each.flops > 2e12 else ("GFLOP/s", 1e9)
    share = "" if each.peak is None else f" ({each.flops / each.peak:.0%} of the peak)"
    return f"{each.precision} {each.flops / scale:.3g} {unit}{share}"
