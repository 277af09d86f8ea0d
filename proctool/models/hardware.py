"""What known GPUs can do at most: dense products a second, from their makers' data sheets."""

from __future__ import annotations

# Floating-point operations a second in fp32, tf32, and bf16 or fp16, without sparsity. The first name found counts.
_PEAKS = {
    "GB200": (80e12, 1250e12, 2500e12),
    "B200": (75e12, 1125e12, 2250e12),
    "H200": (67e12, 494e12, 989e12),
    "H100 PCIe": (51e12, 378e12, 756e12),
    "H100 NVL": (60e12, 417e12, 835e12),
    "H100": (67e12, 494e12, 989e12),
    "A100": (19.5e12, 156e12, 312e12),
    "L40S": (91.6e12, 183e12, 362e12),
    "L4": (30.3e12, 60e12, 121e12),
    "A10G": (31.5e12, 35e12, 70e12),
    "A10": (31.2e12, 62.5e12, 125e12),
    "RTX 4090": (82.6e12, 82.6e12, 165e12),
    "RTX 3090": (35.6e12, 35.6e12, 71e12),
    "V100": (15.7e12, 15.7e12, 125e12),
    "T4": (8.1e12, 8.1e12, 65e12),
}


def peak_flops(device_name: str, precision: str) -> float | None:
    """The peak of a GPU by its name (as torch or its maker writes it) in fp32, tf32, bf16 or fp16; None if unknown."""
    for name, (fp32, tf32, half) in _PEAKS.items():
        if name.lower() in device_name.lower():
            return {"fp32": fp32, "tf32": tf32}.get(precision, half)
    return None
