"""How fast a large transplant goes, and in how little memory: `python -m benchmarks.transplant [--json] [--dir DIR]`.

Two donors of 1.3 billion parameters are written (random numbers, tensor by tensor, so that this needs little memory
too); then a process of its own carries attention and norms from one and the MLPs from the other into a third file,
with fresh embeddings; its start and imports are not counted. The time is from plan to the file's name on the disk:
reading, hashing, the check for NaN, drawing the embeddings, writing and fsync. "Written" are the bytes of that file a
second, "moved" those and the bytes read from donors. Beside it stands what the place allows: one donor copied (read,
written, fsynced) with nothing else done to it; `--dir /dev/shm` leaves the disk out. The large files are deleted at the
end.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from proctool import artifact
from proctool.models.build import model_config, outline
from proctool.models.saved import config_values
from proctool.transplantation import TransplantOptions, plan_transplant

BILLION = "24x16x2048"
"""1.3 billion parameters with GPT-2's vocabulary."""


def write_donor(path: Path, shape: str, seed: int) -> None:
    """A model artifact of random numbers, one tensor in memory at a time."""
    model = outline(model_config(shape, vocab_size=50_257, context=1024))
    noise = 0.02 * torch.randn(1 << 22, generator=torch.Generator().manual_seed(seed))

    def make(extents: tuple[int, ...]) -> torch.Tensor:
        size = torch.Size(extents).numel()
        return noise.repeat(-(-size // len(noise)))[:size].view(extents)

    shapes = {name: ("F32", tuple(each.shape)) for name, each in model.named_parameters()}
    tensors = {name: functools.partial(make, extents) for name, (_, extents) in shapes.items()}
    artifact.write(path, tensors, kind="model", metadata={"config": config_values(model.config)}, shapes=shapes)


def peak_bytes() -> int:
    """The highest resident size of this process so far (getrusage would count its parent's before exec)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def transplant(folder: Path) -> dict[str, Any]:
    """Carry it out in this process and measure it. Memory is the process's highest resident size."""
    outline(model_config("1x1x4", vocab_size=8, context=8))  # imports transformers' GPT-2
    before, cpu = time.perf_counter(), time.process_time()
    imported = peak_bytes()
    planned = plan_transplant(
        TransplantOptions(
            attention=(str(folder / "a.safetensors"),),
            norms=(str(folder / "a.safetensors"),),
            mlp=(str(folder / "b.safetensors"),),
            output=folder / "mixed.safetensors",
        )
    )
    ready = time.perf_counter()
    planned.write(folder / "mixed.safetensors")
    seconds = time.perf_counter() - before
    size = (folder / "mixed.safetensors").stat().st_size
    read = sum(4 * origin.size for origin in planned.origins if origin.given)
    cpu = time.process_time() - cpu
    return {
        "parameters": sum(origin.size for origin in planned.origins),
        "bytes": size,
        "plan_seconds": ready - before,
        "seconds": seconds,
        "bytes_per_second": size / seconds,
        "moved_bytes_per_second": (size + read) / seconds,
        "processor_seconds": cpu,
        "bytes_per_processor_second": size / cpu,
        "peak_bytes": peak_bytes(),
        "imports_bytes": imported,
    }


def copy_speed(source: Path, target: Path) -> float:
    """Bytes a second of copying a file and nothing else, fsync included."""
    before = time.perf_counter()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(16 << 20):
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    seconds = time.perf_counter() - before
    target.unlink()
    return source.stat().st_size / seconds


def forget(path: Path) -> None:
    """Drop the file from the page cache, so that it is read from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, shape: str, cold: bool, repeats: int) -> dict[str, Any]:
    """Write the donors, run the transplant in processes of their own, keep the best, delete everything."""
    names = [folder / f"{name}.safetensors" for name in "ab"]
    for seed, path in enumerate(names):
        write_donor(path, shape, seed)
    runs, copies = [], []
    command = [sys.executable, "-m", "benchmarks.transplant", "--inside", str(folder)]
    for _ in range(repeats):
        for path in names if cold else ():
            forget(path)
        said = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(said.stdout))
        (folder / "mixed.safetensors").unlink()
        if cold:
            forget(names[0])
        copies.append(copy_speed(names[0], folder / "copy"))
    best = max(runs, key=lambda run: run["bytes_per_second"])
    return best | {
        "all_bytes_per_second": [run["bytes_per_second"] for run in runs],
        "copy_bytes_per_second": max(copies),
        "donors_cached": not cold,
        "load": os.getloadavg()[0],
        "processors": os.cpu_count(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of words")
    parser.add_argument("--dir", type=Path, help="where to put the 16 GB of files (default: the temporary folder)")
    parser.add_argument("--model", default=BILLION, help=f"layers x heads x width ({BILLION})")
    parser.add_argument("--cold", action="store_true", help="drop the donors from the page cache first")
    parser.add_argument("--repeats", type=int, default=2, help="runs, of which the best counts (2)")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        print(json.dumps(transplant(chosen.inside)))
        return
    with tempfile.TemporaryDirectory(dir=chosen.dir) as folder:
        found = measure(Path(folder), chosen.model, chosen.cold, chosen.repeats)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"{found['parameters'] / 1e9:.2f}B parameters, {found['bytes'] / 1e9:.1f} GB in {found['seconds']:.1f} s: "
        f"{found['bytes_per_second'] / 1e9:.2f} GB/s written, {found['moved_bytes_per_second'] / 1e9:.2f} GB/s moved "
        f"({found['bytes_per_processor_second'] / 1e9:.2f} GB written per processor second), "
        f"{found['peak_bytes'] / 1e9:.2f} GB of memory at most ({found['imports_bytes'] / 1e9:.2f} of it the imports); "
        f"a plain copy with fsync: {found['copy_bytes_per_second'] / 1e9:.2f} GB/s written; "
        f"load {found['load']:.1f} on {found['processors']} processors"
    )


if __name__ == "__main__":
    main()
