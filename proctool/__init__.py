"""proctool: procedural pretraining, from rules to warmed-up language models.

The names below are the Python API (docs/api.md). Each is imported on first use, so that `import proctool` is fast and
imports neither numpy nor torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    import proctool.hf
    import proctool.torch  # noqa: F401
    from proctool.api.corpus_training import PretrainedModel as PretrainedModel
    from proctool.api.corpus_training import pretrain as pretrain
    from proctool.api.evaluation import EvaluationResult as EvaluationResult
    from proctool.api.evaluation import evaluate as evaluate
    from proctool.api.experiments import report as report
    from proctool.api.experiments import run as run
    from proctool.api.tasks import TaskInfo as TaskInfo
    from proctool.api.tasks import list_tasks as list_tasks
    from proctool.api.tasks import load_task as load_task
    from proctool.api.tasks import to_datasets as to_datasets
    from proctool.api.training import WarmedModel as WarmedModel
    from proctool.api.training import warm_up as warm_up
    from proctool.foreign.into import transplant_into as transplant_into
    from proctool.transplantation import transplant as transplant

_MODULES = {
    "EvaluationResult": "proctool.api.evaluation",
    "PretrainedModel": "proctool.api.corpus_training",
    "TaskInfo": "proctool.api.tasks",
    "WarmedModel": "proctool.api.training",
    "evaluate": "proctool.api.evaluation",
    "list_tasks": "proctool.api.tasks",
    "load_task": "proctool.api.tasks",
    "pretrain": "proctool.api.corpus_training",
    "report": "proctool.api.experiments",
    "run": "proctool.api.experiments",
    "to_datasets": "proctool.api.tasks",
    "transplant": "proctool.transplantation",
    "transplant_into": "proctool.foreign.into",
    "warm_up": "proctool.api.training",
}
_SUBMODULES = ("hf", "torch")


def __getattr__(name: str) -> Any:
    """Import a name of the API on first use."""
    if name in _SUBMODULES:
        return importlib.import_module(f"proctool.{name}")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_SUBMODULES})
