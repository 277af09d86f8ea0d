"""Descriptions of a model's tensors: their contents and layouts. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from proctool import config
from proctool.errors import OptionError
from proctool.models.components import COMPONENTS

Rotary = Literal["halves", "pairs", "halves-reversed"]
"""Which rows of a head rotate together, and in which direction:

halves           row i with row i + size / 2 (transformers, litgpt)
pairs            row 2i with row 2i + 1 (Meta's Llama, torchtitan)
halves-reversed  like halves, by the negative angle (nanochat)
"""

PARTS = {
    "query": "attention",
    "key": "attention",
    "value": "attention",
    "attention_output": "attention",
    "query_norm": "attention",
    "key_norm": "attention",
    "gate": "mlp",
    "up": "mlp",
    "down": "mlp",
    "attention_norm": "norms",
    "mlp_norm": "norms",
    "final_norm": "norms",
    "tokens": "embeddings",
    "positions": "positions",
    "head": "head",
}
"""The parts that a tensor can hold, with their component. All projects share these parts."""


@dataclass(frozen=True)
class TensorRule:
    """Which tensors belong to a component, and what they hold.

        TensorRule("attn.c_attn", "attention", ("query", "key", "value"))

    Raises OptionError for an unknown component or part, or an invalid regular expression.
    """

    pattern: str
    """A prefix of whole name parts ("attn" covers attn.proj.weight), or a regular expression for the whole name."""
    component: str
    """One of attention, mixer, mlp, norms, embeddings, positions, head."""
    parts: tuple[str, ...] = ()
    """Parts (of `PARTS`) in the tensors; several parts are fused row after row. A tensor without parts is carried only
    between models where it has the same name."""
    grouped: bool = False
    """Fused query, key and value are stored per group: the queries of a key-value head, its key, its value."""
    transposed: bool = False
    """Weights are stored as (inputs, outputs), like Conv1D in transformers' GPT-2, not as (outputs, inputs)."""
    optional: bool = False
    """Whether some models of the project do not have these tensors."""

    def __post_init__(self) -> None:
        if self.component not in COMPONENTS:
            hint = config.suggestion(self.component, COMPONENTS)
            raise OptionError(f'mapping: {self.pattern}: "{self.component}" is not a component{hint}')
        for part in self.parts:
            if part not in PARTS:
                raise OptionError(f'mapping: {self.pattern}: "{part}" is not a part{config.suggestion(part, PARTS)}')
            if PARTS[part] != self.component:
                raise OptionError(f"mapping: {self.pattern}: {part} belongs to {PARTS[part]}, not {self.component}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise OptionError(f"mapping: {self.pattern} is not a valid regular expression: {error}") from None

    def ending(self, name: str) -> str | None:
        """The rest of `name` after the pattern ("weight", "bias" or ""); None if the rule does not cover it."""
        if name == self.pattern:
            return ""
        if name.startswith(f"{self.pattern}."):
            return name[len(self.pattern) + 1 :]
        if re.fullmatch(self.pattern, name) is None:
            return None
        last = name.rpartition(".")[2]
        return last if last in ("weight", "bias") else ""

    def keys(self, name: str, ending: str) -> tuple[str, ...]:
        """The parts in the tensor `name`, each with its ending: ("query.weight", "key.weight", "value.weight")."""
        return tuple(f"{part}.{ending or 'weight'}" for part in self.parts) or (name,)


@dataclass(frozen=True)
class ModelMapping:
    """The tensors of a model class. The first rule that covers a tensor counts; others must have its component."""

    name: str
    """Its name in messages."""
    stack: str
    """Name of the module that holds the layers: "transformer.h"."""
    inside: tuple[TensorRule, ...]
    """Rules for tensors of a layer, by their names within it: "attn.c_attn"."""
    outside: tuple[TensorRule, ...] = ()
    """Rules for all other tensors."""
    rotary: Rotary | None = None
    """How query and key rotate; None without rotary positions."""
    heads: int | str | tuple[str, ...] | None = None
    """Number of query heads, or the attributes that have it ("config.n_head"; several are tried in order)."""
    kv_heads: int | str | tuple[str, ...] | None = None
    """Number of key-value heads, given in the same way; None: as many as query heads."""
    vocabulary: str | None = None
    """The attribute that has the vocabulary size without padding ("config.vocab_size")."""
    padded_to: int | None = None
    """Embeddings may be padded to a multiple of this number of rows, unless `vocabulary` gives the exact number."""

    def __post_init__(self) -> None:
        if self.rotary not in (None, *get_args(Rotary)):
            known = " or ".join(get_args(Rotary))
            raise OptionError(f"mapping {self.name}: rotary = {self.rotary!r}: must be {known}, or None")
        for name in ("heads", "kv_heads"):
            if isinstance(value := getattr(self, name), int) and value < 1:
                raise OptionError(f"mapping {self.name}: {name} = {value}: must be at least 1")

    def place(self, name: str) -> tuple[int | None, str]:
        """The layer of the tensor `name` (None outside the stack), and its name there."""
        if name.startswith(f"{self.stack}."):
            layer, _, inside = name[len(self.stack) + 1 :].partition(".")
            if layer.isdecimal() and inside:
                return int(layer), inside
        return None, name

    def rules(self, layer: int | None) -> tuple[TensorRule, ...]:
        """The rules for the tensors of a layer, or for the other tensors."""
        return self.outside if layer is None else self.inside
