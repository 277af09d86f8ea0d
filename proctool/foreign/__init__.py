"""Models of other projects: how their tensors are named and laid out, and carrying weights into and out of them.

`proctool.transplant_into` is the function that most people need. A model that it does not know is described by a
`ModelMapping`; `PROJECTS` holds the ready ones.
"""

from proctool.foreign.mapping import ModelMapping, TensorRule
from proctool.foreign.projects import PROJECTS

__all__ = ["PROJECTS", "ModelMapping", "TensorRule"]
