"""The whole check, in order: what is looked up, then what is measured."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from proctool import __version__
from proctool.doctor import found, speeds
from proctool.doctor.facts import Checkup


def check(folder: Path) -> Checkup:
    """Look around and measure, with run folders to be made in `folder`. Takes about five seconds."""
    began = time.monotonic()
    asked = found.HubAsked()
    device = found.device()
    here = torch.device(device.kind)
    kinds = ("fp32", "bf16") if device.has_bf16 or device.kind == "cpu" else ("fp32", "fp16")
    # Diagnostics train in fp32 on a CPU; on a GPU half precision is what runs of any size use.
    usual = "fp32" if device.kind == "cpu" else kinds[1]
    return Checkup(
        proctool=__version__,
        software=found.software(),
        device=device,
        attention=found.attention(here, usual),
        products=tuple(speeds.products(here, precision) for precision in kinds),
        disk=speeds.disk(folder),
        feeds=tuple(speeds.feed(task, here) for task in speeds.TASKS),
        caches=found.caches(),
        hub=asked.answer(),
        seconds=round(time.monotonic() - began, 1),
    )
