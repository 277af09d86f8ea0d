"""Models by name: layers x heads x width, or a preset. Does not import torch, to keep help and plans fast."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool import config
from proctool.errors import ModelError
from proctool.hub import CONFIGURATION, fetch, model_id
from proctool.paths import user_path
from proctool.untrusted import parse_json
from proctool.untrusted.models import MOST_HEADS, MOST_LAYERS, MOST_WIDTH


@dataclass(frozen=True)
class Shape:
    """A decoder's size."""

    layers: int
    heads: int
    width: int

    def __str__(self) -> str:
        return f"{self.layers}x{self.heads}x{self.width}"

    @property
    def init_std(self) -> float:
        """Standard deviation of fresh weights: GPT-2's .02 at its width of 768, and 1 / sqrt(width) from there.

        With GPT-2's own number, the weights of a narrow model are so small that it learns slowly at first.
        """
        return GPT2_INIT_STD * math.sqrt(768 / self.width)


GPT2_INIT_STD = 0.02


@dataclass(frozen=True)
class ModelStart:
    """The initialisation of a model given by shape or preset."""

    init_std: float
    """Standard deviation of fresh weights."""
    tied: bool | None = None
    """Whether the head shares the token embedding; None: the family's default."""


PRESETS = {
    "pico": Shape(2, 2, 16),
    "diagnostic": Shape(2, 4, 16),  # the paper's model for diagnostics, section 4: see PUBLISHED_STARTS
    "gpt2": Shape(12, 12, 768),
    "gpt2-medium": Shape(24, 16, 1024),
    "gpt2-large": Shape(36, 20, 1280),
    "gpt2-xl": Shape(48, 25, 1600),
    "paper-large": Shape(16, 8, 2048),  # the paper's largest class
}

_CONFIGURED = Path(__file__).parent / "presets"
CONFIGURATIONS = {file.stem: file for file in sorted(_CONFIGURED.glob("*.json"))}
"""Presets of newer families: published shapes, for any vocabulary, without scaled rotary positions."""

PUBLISHED_STARTS: Mapping[str, ModelStart] = {"diagnostic": ModelStart(GPT2_INIT_STD, tied=False)}
"""Presets with their published initialisation instead of the default for their width. Source: the paper's code."""

_WRITTEN = re.compile(r"(\d+)x(\d+)x(\d+)")
MOST = Shape(MOST_LAYERS, MOST_HEADS, MOST_WIDTH)


def parse_model(spec: str) -> Shape | Path:
    """A preset, a shape `layers x heads x width` such as 2x4x16, or the path of a transformers configuration: a file,
    a folder, or a hub model's configuration in the hub's cache.

    Raises ModelError, HubError.
    """
    if spec in PRESETS:
        return PRESETS[spec]
    if spec in CONFIGURATIONS:
        return CONFIGURATIONS[spec]
    if written := _WRITTEN.fullmatch(spec):
        shape = Shape(*map(int, written.groups()))
        if min(shape.layers, shape.heads, shape.width) < 1:
            raise ModelError(f"model {spec}: layers, heads and width must be at least 1")
        if shape.layers > MOST.layers or shape.heads > MOST.heads or shape.width > MOST.width:
            raise ModelError(f"model {spec}: exceeds the limit of {MOST}; write layers x heads x width")
        if shape.width % shape.heads:
            raise ModelError(f"model {spec}: width {shape.width} is not a multiple of its {shape.heads} heads")
        return shape
    if not spec:
        raise ModelError("model: is empty; write a shape such as 2x4x16, a preset or a path")
    path = user_path(spec)
    if path.exists():
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise ModelError(f"model {spec}: the folder has no config.json")
        return path
    if (wanted := model_id(spec)) is not None:
        return fetch(wanted, (CONFIGURATION,)).folder / CONFIGURATION
    raise ModelError(
        f'model "{spec}" is neither a preset, a shape such as 4x4x64 (layers x heads x width), '
        f"a configuration file, nor OWNER/NAME on the hub{config.suggestion(spec, [*PRESETS, *CONFIGURATIONS])}"
    )


def start_of(spec: str) -> ModelStart | None:
    """The initialisation of the shape or preset `spec`; None for a configuration. Raises ModelError."""
    found = parse_model(spec)
    return PUBLISHED_STARTS.get(spec, ModelStart(found.init_std)) if isinstance(found, Shape) else None


DEFAULT_CONTEXT, LONGEST_DEFAULT_CONTEXT = 128, 2048
"""Default tokens per row, and the most that a configuration's context gives by default."""


@dataclass(frozen=True)
class Written:
    """Sizes in a configuration file; None if it does not have them."""

    vocab_size: int | None = None
    context: int | None = None


def written_sizes(spec: str) -> Written:
    """Sizes in the configuration file or folder `spec`; empty for a shape, a preset or a damaged file."""
    values = _written(spec) or {}
    found = [
        next((values[key] for key in keys if type(values.get(key)) is int and values[key] > 0), None)
        for keys in (("vocab_size",), ("max_position_embeddings", "n_positions", "max_seq_len"))
    ]
    return Written(*found)


def written_digest(spec: str) -> str | None:
    """SHA-256 of the contents of the configuration `spec`; None for a shape, a preset or a damaged file."""
    values = _written(spec)
    return None if values is None else hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _written(spec: str) -> dict[str, Any] | None:
    try:
        path = parse_model(spec)
        if not isinstance(path, Path) or path.stat().st_size > 1 << 20:
            return None
        values = parse_json(path.read_bytes())
    except (ModelError, OSError, ValueError):
        return None  # building the model reports the error
    return values if isinstance(values, dict) else None


def default_context(spec: str) -> int:
    """The default number of tokens per row for a model."""
    return min(written_sizes(spec).context or DEFAULT_CONTEXT, LONGEST_DEFAULT_CONTEXT)
