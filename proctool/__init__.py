"""proctool: procedural pretraining, from rules to warmed-up language models."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proctool.transplantation import transplant as transplant


def __getattr__(name: str) -> Any:
    """`proctool.transplant`, made when it is asked for: importing proctool stays quick and torch-free."""
    if name == "transplant":
        from proctool.transplantation import transplant

        return transplant
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
