"""Move exactly the weights you mean from donors into a model, and say what moved, what did not, and why.

`proctool.transplant` (the function) builds and writes a model; here is the rest: the plan without the act, the
transplant into a model in memory that training starts from, and the words both are told in. (The package is not
itself named `transplant` because that name, in `proctool`, is the function.)
"""

from proctool.models.components import parse_components
from proctool.transplantation.engine import (
    BODY,
    Transplant,
    plan_transplant,
    transplant,
    transplant_into,
)
from proctool.transplantation.options import TransplantOptions
from proctool.transplantation.plan import Origin, summary
from proctool.transplantation.treatments import EMBEDDINGS

__all__ = [
    "BODY",
    "EMBEDDINGS",
    "Origin",
    "Transplant",
    "TransplantOptions",
    "parse_components",
    "plan_transplant",
    "summary",
    "transplant",
    "transplant_into",
]
