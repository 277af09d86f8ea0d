"""Options of `proctool transplant` and `proctool.transplant`. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proctool.errors import OptionError

CARRIED = ("attention", "mixer", "mlp", "norms", "positions")
"""Components that have a flag of their own."""


@dataclass(frozen=True, kw_only=True)
class TransplantOptions:
    """Build a model from components of other models; the rest is fresh or from a base model.

    Donors are model artifacts or Hugging Face folders. Everything is checked before anything is written.
    """

    attention: tuple[str, ...] = ()
    """Donor of attention; A,B averages several donors, here and below."""
    mlp: tuple[str, ...] = ()
    """Donor of the MLPs, including experts and routers."""
    norms: tuple[str, ...] = ()
    """Donor of the norms."""
    positions: tuple[str, ...] = ()
    """Donor of the position embeddings; cut or stretched to the context."""
    mixer: tuple[str, ...] = ()
    """Donor of token mixers other than attention, such as Mamba layers."""
    embeddings: Literal["fresh", "scale", "mean", "sample", "copy"] | None = None
    """Start of token embeddings (default: the base's, or fresh)."""
    embeddings_from: str | None = None
    """Donor of the embeddings (default: the only donor)."""
    layers: tuple[str, ...] = ()
    """Carry only these target layers: 0-5,8, or mlp=0-5 (repeatable)."""
    heads: tuple[str, ...] | None = field(default=None, metadata={"comma": True})
    """Carry only these attention heads: 1.2,0.3 (layer.head), random:2."""
    depth_map: Literal["repeat", "stretch", "first"] | None = None
    """If depths differ, take donor layer i mod D, i * D / T, or i."""
    shuffle: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Control: permute the values of these components' tensors."""
    match_scale: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Control: fresh weights at the donor's scale for these components."""
    sharpen: str | None = None
    """Control: multiply queries by this factor, or match donor entropy."""
    noise: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Control: Gaussian noise relative to the weights: 0.1, or mlp=0.1."""
    alpha: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Interpolate from start (0) to donor (1): 0.5, or attention=0.5."""
    base: str | None = None
    """Model for the configuration and all other weights (default: fresh)."""
    model: str | None = None
    """Shape, preset or configuration without a base (default: the donor's)."""
    vocab_size: int | None = None
    """Vocabulary size (default: that of --base, --model or the donor)."""
    context: int | None = None
    """Context in tokens (default: that of --base, --model or the donor)."""
    seed: int = 0
    """Seed for fresh weights, permutations, noise and sampled rows."""
    output: Path = field(default=Path("mixed.safetensors"), metadata={"incidental": True})
    """Model file to write."""
    force: bool = field(default=False, metadata={"incidental": True})
    """Replace a model at --output that another command wrote."""

    def __post_init__(self) -> None:
        for name in CARRIED:
            given = getattr(self, name)
            if len(given) > 1:
                raise OptionError(f"{name}: given twice; to average several donors, write {','.join(given)}")
        for name in ("vocab_size", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")
            if value is not None and self.base is not None:
                raise OptionError(f"{name}: --base sets it; leave it out, or use --model")
        if self.seed < 0:
            raise OptionError(f"seed = {self.seed}: must be at least 0")
        if self.base is not None and self.model is not None:
            raise OptionError("--base and --model: both set the configuration; give only one")
