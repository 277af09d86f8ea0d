"""Models of other projects: names and layouts of their tensors, and carrying weights into and out of them.

Most users need only `proctool.transplant_into`. A `ModelMapping` describes a model that it does not know; `PROJECTS`
has the built-in mappings.
"""

from proctool.foreign.mapping import ModelMapping, TensorRule
from proctool.foreign.projects import PROJECTS

__all__ = ["PROJECTS", "ModelMapping", "TensorRule"]
