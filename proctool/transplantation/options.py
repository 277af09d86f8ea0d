"""What `proctool transplant` and `proctool.transplant` can be told. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from proctool.errors import OptionError

CARRIED = ("attention", "mixer", "mlp", "norms", "positions")
"""Components that have a flag of their own."""


@dataclass(frozen=True, kw_only=True)
class TransplantOptions:
    """Build a model from parts of others: each component from its own donor, the rest fresh or from a base model.

    Donors are model artifacts or Hugging Face folders. Everything is checked before anything is written.
    """

    attention: tuple[str, ...] = ()
    """Donor of the attention; A,B is the average of several, here and below."""
    mlp: tuple[str, ...] = ()
    """Donor of the MLPs, experts and routers included."""
    norms: tuple[str, ...] = ()
    """Donor of the norms."""
    positions: tuple[str, ...] = ()
    """Donor of the position embeddings: in full, cut to the context, or stretched over it."""
    mixer: tuple[str, ...] = ()
    """Donor of the token mixers that are not attention (Mamba and other state-space or recurrent layers)."""
    embeddings: Literal["fresh", "scale", "mean", "sample", "copy"] | None = None
    """Token embeddings: fresh, scale (fresh at the donor's scale), mean, sample, copy (default: base's, or fresh)."""
    embeddings_from: str | None = None
    """Donor of the embeddings (default: the donor of everything else, where there is only one)."""
    layers: tuple[str, ...] = ()
    """Only these layers of the model that is built: 0-5,8 for every component, mlp=0-5 for one; may be repeated."""
    heads: tuple[str, ...] | None = field(default=None, metadata={"comma": True})
    """Of attention, only these heads: 1.2,0.3 (layer.head from 0), random:2."""
    depth_map: Literal["repeat", "stretch", "first"] | None = None
    """Which of a donor's D layers layer i of T takes where depths differ: i mod D, i * D / T, or i, if there is one."""
    shuffle: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Control: permute the values of these components' tensors."""
    match_scale: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Control: for these components take fresh weights with the donor's standard deviation, tensor by tensor."""
    sharpen: str | None = None
    """Control: queries times this factor; match: the donor's entropy."""
    noise: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Control: add Gaussian noise of this fraction of the weights' size: 0.1, or mlp=0.1 for one component."""
    alpha: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Go this far from the start (0) to the donor (1): 0.5, or attention=0.5 for one component."""
    base: str | None = None
    """A model that gives the configuration and everything not carried (default: drawn from --seed)."""
    model: str | None = None
    """Instead of a base: a preset, layers x heads x width, or a configuration (default: the first donor's)."""
    vocab_size: int | None = None
    """Tokens in the vocabulary (default: that of the base, of --model's file, or of the first donor)."""
    context: int | None = None
    """Positions (default: those of the base, of --model's file, or of the first donor)."""
    seed: int = 0
    """Draws fresh weights, permutations, noise and sampled rows."""
    output: Path = field(default=Path("mixed.safetensors"), metadata={"incidental": True})
    """The model to write."""

    def __post_init__(self) -> None:
        for name in CARRIED:
            given = getattr(self, name)
            if len(given) > 1:
                raise OptionError(f"{name}: given twice; for the average of several donors write {','.join(given)}")
        for name in ("vocab_size", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name} = {value}: must be at least 1")
            if value is not None and self.base is not None:
                raise OptionError(f"{name}: a base model keeps its own; leave it out, or use --model")
        if self.seed < 0:
            raise OptionError(f"seed = {self.seed}: must be at least 0")
        if self.base is not None and self.model is not None:
            raise OptionError("--base and --model: a base gives the configuration too; choose one")
