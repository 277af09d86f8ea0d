"""Copy chosen weights from donors into a model, and report what was copied, what was not, and why.

The function `proctool.transplant` builds and writes a model. This package has the rest: the plan, the transplant into a
model in memory that training starts from, and the descriptions of both. (It is not named `transplant`, because
`proctool.transplant` is the function.)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proctool.models.components import parse_components
    from proctool.transplantation.engine import BODY, Transplant, plan_transplant, transplant, transplant_into
    from proctool.transplantation.options import TransplantOptions
    from proctool.transplantation.origin import Origin, records, summary
    from proctool.transplantation.treatments import EMBEDDINGS

__all__ = [
    "BODY",
    "EMBEDDINGS",
    "Origin",
    "Transplant",
    "TransplantOptions",
    "parse_components",
    "plan_transplant",
    "records",
    "summary",
    "transplant",
    "transplant_into",
]

_ELSEWHERE = {
    "EMBEDDINGS": "proctool.transplantation.treatments",
    "Origin": "proctool.transplantation.origin",
    "TransplantOptions": "proctool.transplantation.options",
    "parse_components": "proctool.models.components",
    "records": "proctool.transplantation.origin",
    "summary": "proctool.transplantation.origin",
}


def __getattr__(name: str) -> Any:
    """Import each name when it is used: `proctool transplant --help` needs only the options."""
    if name in __all__:
        return getattr(importlib.import_module(_ELSEWHERE.get(name, "proctool.transplantation.engine")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
