"""Private and undocumented parts of lm-evaluation-harness. Tested with 0.4.13."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def task_settings(name: str, manager: Any) -> dict[str, Any]:
    """The settings of a task's file, with its functions."""
    return _settings(manager.task_index[name].yaml_path, functions=True)


def members(name: str, manager: Any) -> list[str] | None:
    """The tasks and groups in a group or a tag; None for a single task."""
    entry = manager.task_index[name]
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    if entry.kind.name == "GROUP":
        listed = _settings(entry.yaml_path, functions=False)["task"]
        return [member for member in listed if isinstance(member, str)]
    return None


def task_of(settings: Mapping[str, Any]) -> Any:
    """A task with these settings."""
    from lm_eval.api.task import ConfigurableTask

    return ConfigurableTask(config=dict(settings))


def side_paths() -> tuple[tuple[Any, str, Any], ...]:
    """What keeps the harness from code of the hub and from git: (module, name, value to set)."""
    import evaluate
    import lm_eval.evaluator

    return (
        (evaluate.config, "HF_EVALUATE_OFFLINE", True),
        # It would record the repository in the user's working folder, or warn if there is none.
        (lm_eval.evaluator, "get_git_commit_hash", lambda: None),
    )


def _settings(path: Path, *, functions: bool) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(path, resolve_func=functions)  # type: ignore[no-any-return]
