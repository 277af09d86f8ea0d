"""`proctool doctor`: its facts as JSON and back, its rules of advice over made-up machines, and the command itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from proctool.config import plain
from proctool.doctor import checkup, found, speeds
from proctool.doctor.advice import RULES, advise
from proctool.doctor.facts import Attention, Cache, Checkup, Device, Disk, Feed, Hub, Products, Software
from proctool.models import small_heads
from proctool.training import speed
from proctool.untrusted.json_text import typed
from tests.conftest import Said

GiB = 1 << 30

GOOD = Checkup(
    proctool="1.0",
    software=Software(
        python="3.12.1", torch="2.9.0", libraries={"numpy": "2.0"}, cuda="12.8", compiler="/usr/bin/cc",
        small_heads=True, trackers=("tensorboard",), extras={"report": True},
    ),
    device=Device(
        kind="cuda", name="NVIDIA H100 80GB HBM3", count=8, threads=16, driver="570.1", memory=80 * GiB,
        free=79 * GiB, has_bf16=True, unseen_gpu=False,
    ),
    attention=(
        Attention(head=4, precision="bf16", kernel="math"),
        Attention(head=64, precision="bf16", kernel="flash"),
    ),
    products=(Products(precision="bf16", size=8192, flops=700e12, peak=989e12),),
    disk=Disk(folder="/runs", written=2e9, free=900 * GiB),
    feeds=(Feed(task="dyck:k=16,length=128", model="2x4x16", made=2e6, eaten=1e6),),
    caches=(Cache(name="proctool", folder="/cache", writable=True, free=90 * GiB),),
    hub=Hub(endpoint="https://huggingface.co", offline=False, reachable=True),
    seconds=5.0,
)  # fmt: skip


def changed(**parts: Any) -> Checkup:
    """The good machine with some facts changed; a mapping changes fields of a part."""
    made = {
        name: dataclasses.replace(getattr(GOOD, name), **value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return dataclasses.replace(GOOD, **made)


def speeds_of(**flops: float) -> tuple[Products, ...]:
    return tuple(Products(precision=name, size=1024, flops=value, peak=None) for name, value in flops.items())


CPU = {"kind": "cpu", "count": 16, "threads": 16}
BAD = {
    "gpu_without_torch": (changed(device={"unseen_gpu": True}), "newer driver"),
    "gpu_without_torch, CPU build": (
        changed(device={"unseen_gpu": True}, software={"cuda": None}), "install a CUDA build",
    ),
    "occupied_memory": (changed(device={"free": 39 * GiB}), "nvidia-smi"),
    "occupied_memory, none left": (changed(device={"free": GiB - 1}), "stop other programs"),
    "idle_cores": (changed(device=CPU | {"threads": 4}), "OMP_NUM_THREADS=16"),
    "slow_products": (changed(products=(dataclasses.replace(GOOD.products[0], flops=480e12),)), "49%"),
    "precision": (changed(device={"has_bf16": False}), "--precision fp16"),
    "precision, slow on a CPU": (changed(device=CPU, products=speeds_of(fp32=2e9, bf16=1e9)), "--precision fp32"),
    "precision, fast on a CPU": (changed(device=CPU, products=speeds_of(fp32=1e9, bf16=2e9)), "2.0 times"),
    "slow_attention": (changed(attention=(Attention(head=64, precision="fp32", kernel="math"),)), "heads of 64"),
    "compiler": (changed(software={"compiler": None, "small_heads": False}), "gcc or set CC"),
    "compiler, that fails": (changed(software={"small_heads": False}), "OpenMP"),
    "disk": (changed(disk={"written": 9e6}), "--checkpoint-every"),
    "disk, full": (changed(disk={"free": GiB}), "1.0 GiB are free"),
    "disk, read-only": (changed(disk={"written": None}), "cannot be written"),
    "slow_stream": (changed(feeds=(dataclasses.replace(GOOD.feeds[0], made=9e5),)), "proctool generate dyck"),
    "caches": (changed(caches=(dataclasses.replace(GOOD.caches[0], writable=False),)), "PROCTOOL_CACHE"),
    "caches, full": (changed(caches=(Cache(name="hub", folder="/hub", writable=True, free=GiB),)), "HF_HOME"),
    "hub": (changed(hub={"reachable": False}), "HF_HUB_OFFLINE=1"),
    "packages": (changed(software={"trackers": ()}), "pip install tensorboard"),
    "packages, extras": (changed(software={"extras": {"report": False, "zstd": True}}), "not installed: report;"),
}  # fmt: skip


def test_a_good_machine_gets_no_advice() -> None:
    assert advise(GOOD) == ()


@pytest.mark.parametrize("name", BAD)
def test_one_thing_wrong_gives_one_line_of_advice(name: str) -> None:
    bad, says = BAD[name]
    (advice,) = advise(bad)
    assert says in advice.text
    assert "\n" not in advice.text
    (rule,) = (rule for rule in RULES if list(rule(bad)))
    assert rule.__name__ == name.partition(",")[0]


def test_every_rule_has_a_case() -> None:
    assert {rule.__name__ for rule in RULES} == {name.partition(",")[0] for name in BAD}


@pytest.mark.parametrize(
    "fine",
    [
        changed(hub={"offline": True, "reachable": None}),  # chosen, so nothing to advise
        changed(feeds=(dataclasses.replace(GOOD.feeds[0], made=1e6),)),
        changed(products=(dataclasses.replace(GOOD.products[0], peak=None, flops=1e9),)),
        changed(device=CPU, products=speeds_of(fp32=1e9, bf16=1.4e9)),
    ],
)
def test_what_is_as_it_should_be_gets_no_advice(fine: Checkup) -> None:
    assert advise(fine) == ()


def test_facts_are_json_and_come_back_the_same() -> None:
    for facts in (GOOD, *(bad for bad, _ in BAD.values())):
        assert typed(Checkup, json.loads(json.dumps(plain(facts)))) == facts


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures of a moment, without compiling the kernel for small heads."""
    monkeypatch.setattr(found, "kernel", lambda: None)
    monkeypatch.setattr(small_heads, "kernel", lambda: None)
    monkeypatch.setattr(speeds, "_PRODUCTS_SECONDS", 0.0)
    monkeypatch.setattr(speeds, "_FEED_SECONDS", 0.0)
    monkeypatch.setattr(speeds, "_TOKENS", 256)
    monkeypatch.setattr(speeds, "_DISK_SECONDS", 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_command_measures_this_machine(proctool: Callable[..., Said]) -> None:
    said = proctool("doctor", "--json")
    assert said.code == 0, said.err
    document = json.loads(said.out)
    advice = document.pop("advice")
    facts = typed(Checkup, document)
    assert facts.device.count >= 1
    assert 0 < facts.device.free <= facts.device.memory
    assert {each.precision for each in facts.products} >= {"fp32"}
    assert all(each.flops > 0 for each in facts.products)
    assert facts.disk.written
    assert facts.disk.written > 0
    assert facts.hub == Hub(endpoint=facts.hub.endpoint, offline=True, reachable=None)
    assert [each.name for each in facts.feeds] == ["haystack", "dyck"]
    assert all(each.made > 0 and each.eaten > 0 for each in facts.feeds)
    assert advice == plain(advise(facts))
    assert {path.name for path in Path().iterdir()} <= {"cache"}


def test_the_screen_holds_every_part_and_its_advice(
    proctool: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = changed(hub={"reachable": False}, software={"compiler": None, "small_heads": False})
    monkeypatch.setattr(checkup, "check", lambda folder: bad)
    said = proctool("doctor")
    lines = said.out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
    for part in ("H100", "driver 570.1", "700 TFLOP/s (71% of the peak)", "2000 MB/s", "flash", "not reachable"):
        assert part in said.out
    assert sum(line.startswith("- ") for line in lines) == len(advise(bad)) == 2
    monkeypatch.setattr(checkup, "check", lambda folder: GOOD)
    assert "Nothing is slow or missing." in proctool("doctor").out


def test_a_folder_that_is_none_is_refused(proctool: Callable[..., Said]) -> None:
    said = proctool("doctor", "--folder", "nowhere")
    assert said.code == 1
    assert "nowhere" in said.line


@pytest.mark.parametrize("reached", [True, False])
def test_the_hub_is_asked_unless_offline(monkeypatch: pytest.MonkeyPatch, reached: bool) -> None:
    from huggingface_hub import constants

    asked: list[str] = []

    def ask(endpoint: str) -> bool:
        asked.append(endpoint)
        return reached

    assert found.HubAsked(ask).answer().reachable is None
    assert not asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert found.HubAsked(ask).answer().reachable is reached
    assert asked == [constants.ENDPOINT]


def test_a_hub_that_cannot_be_reached_is_no_error() -> None:
    assert not found._answers("http://127.0.0.1:9")  # the port of discard, where nothing listens
    assert not found._answers("no address")


def test_a_disk_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    assert speeds.disk(tmp_path / "gone").written is None


def test_the_kernel_of_small_heads_is_named_only_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(found, "kernel", object)
    assert [each.kernel for each in found.attention(cpu, "fp32")] == ["small-heads", "flash"]
    assert found.attention(cpu, "bf16")[0].kernel != "small-heads"
    monkeypatch.setattr(found, "kernel", lambda: None)
    assert found.attention(cpu, "fp32")[0].kernel != "small-heads"


@pytest.mark.parametrize("compiler", ["", "no-such-compiler"])
def test_the_compiler_is_looked_for_on_the_path(monkeypatch: pytest.MonkeyPatch, compiler: str, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found.compiler() is None
    if not compiler:
        (tmp_path / "gcc").write_text("")
        (tmp_path / "gcc").chmod(0o755)
        assert found.compiler() == str(tmp_path / "gcc")


def test_the_speed_of_a_layer_counts_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "fastest", lambda *_: 2.0)
    before = torch.get_num_threads()
    assert speed.layer_flops.__wrapped__(torch.device("cpu"), "fp32", 8) == 4096 * 8 * 32 * before
    assert torch.get_num_threads() == before


def test_the_kernels_of_a_step_are_timed_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []

    def step(*_: object) -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(speed, "step_seconds", step)
    torch.set_num_threads(2)
    try:
        assert speed.kernel_seconds.__wrapped__("cpu") == 1 / speed.step_kernels(2, "fp32")
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
