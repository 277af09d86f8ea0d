"""The table of GPUs, and finding one by the names that people and drivers give it."""

from __future__ import annotations

import pytest

from proctool.errors import OptionError
from proctool.models.hardware import GPUS, find_gpu, peak_flops


def test_the_table_is_of_dense_peaks() -> None:
    for gpu in GPUS:
        assert 0 < gpu.fp32 <= gpu.tf32 < gpu.half < 3e15
        assert gpu.source.startswith("https://")
        assert 0 < gpu.room < gpu.gigabytes * 2**30
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("Tesla V100-SXM2-16GB", "V100 16GB"),
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GH200 480GB", "gh200"),  # 480 GB are the CPU's
        ("NVIDIA H800", "h800"),
        ("NVIDIA H800 PCIe", "h800-pcie"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA GB300", "gb300"),
        ("NVIDIA GeForce RTX 5090", "5090"),
        ("AMD Instinct MI300X OAM", "mi300x"),
    ],
)
def test_names(device: str, name: str) -> None:
    found = find_gpu(name)
    for precision in ("fp32", "tf32", "fp16"):
        assert peak_flops(device, precision) == found.peak(precision)


def test_a_name_within_another_is_not_taken_for_it() -> None:
    assert peak_flops("NVIDIA L40", "bf16") is None  # neither an L4 nor an L40S
    assert peak_flops("NVIDIA A1000", "bf16") is None
    assert peak_flops("NVIDIA GeForce RTX 4090 D", "bf16") is None  # a smaller chip
    assert peak_flops("NVIDIA GeForce RTX 5090 Laptop GPU", "bf16") is None


def test_where_there_is_no_bf16_there_is_no_peak_of_it() -> None:
    assert find_gpu("v100").peak("bf16") is None
    assert find_gpu("v100").peak("fp16") == 125e12


@pytest.mark.parametrize(("name", "says"), [("h10", 'did you mean "h100"'), ("", "known: "), ("abacus", "known: ")])
def test_unknown_names_are_refused_with_what_is_known(name: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        find_gpu(name)


@pytest.mark.parametrize(
    ("device", "multiprocessors", "share"),
    [
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 14, 14 / 108),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 60, 60 / 132),
        ("NVIDIA H100 80GB HBM3 MIG 7g.80gb", 132, 1),
        ("NVIDIA H100 80GB HBM3", 132, 1),
    ],
)
def test_a_slice_has_its_share_of_the_peak(device: str, multiprocessors: int, share: float) -> None:
    whole = find_gpu("a100" if "A100" in device else "h100").half
    assert peak_flops(device, "bf16", multiprocessors) == pytest.approx(share * whole)


def test_a_slice_of_unknown_size_has_no_peak() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16") is None
