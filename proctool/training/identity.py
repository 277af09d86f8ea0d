"""What identifies a training run: its settings, what its model file says of it, and whether it wrote a given file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proctool.artifact import Artifact
from proctool.events import EndEvent, read_events
from proctool.models.saved import without_folders
from proctool.models.shapes import start_of, written_digest
from proctool.outputs import require_own_model
from proctool.training.options import TrainingOptions, recorded
from proctool.training.run_place import outputs_of


@dataclass(frozen=True)
class Identity:
    """The command, its options and its inputs."""

    command: str
    options: TrainingOptions
    source: Mapping[str, Any]
    """Metadata of the training samples."""
    parents: Sequence[Artifact | Mapping[str, Any]]
    """The artifacts that it reads, or their entries in its lineage."""

    def settings(self) -> dict[str, Any]:
        """Everything that the run's result depends on, as JSON values."""
        model = self.options.model
        settings = {
            "command": self.command,
            **recorded(self.options),
            **{f"source.{key}": value for key, value in self.source.items()},
            "parents": [
                parent.content if isinstance(parent, Artifact) else parent["content"] or parent["name"]
                for parent in self.parents
            ],
        }
        if (configuration := written_digest(model)) is not None:
            settings["model.content"] = configuration
        if (start := start_of(model)) is not None:  # also defaults: a changed one makes another run
            settings["init_std"] = start.init_std if self.options.init_std is None else self.options.init_std
            settings["tie"] = start.tied if self.options.tie is None else self.options.tie
        as_json: dict[str, Any] = json.loads(json.dumps(settings))
        return as_json

    def described(self) -> dict[str, Any]:
        """The part of its model file's metadata that is known before the run."""
        training = {name: value for name, value in recorded(self.options).items() if name != "init"}
        return {"command": self.command, "seed": self.options.seed, "training": training, **self.source}

    def require_own_outputs(self, output: Path | None, run_path: Path) -> None:
        """Raise ArtifactError if an output is a model of another run, unless --force replaces it."""
        for _, path, _ in outputs_of(self.options, output):
            require_own_model(
                path, "--output", lambda found: self._has_written(found, run_path), force=self.options.force
            )

    def _has_written(self, found: Artifact, run_path: Path) -> bool:
        """Whether the run in `run_path` wrote the artifact, or the same command did with another run folder."""
        ends = [event for event in read_events(run_path) if isinstance(event, EndEvent)]
        if any(found.content in (end.content, end.best_content) for end in ends):
            return True
        mine = json.loads(json.dumps(without_folders(self.described())))
        parents = [each.content if isinstance(each, Artifact) else each.get("content") for each in self.parents]
        same = all(found.metadata.get(name) == value for name, value in mine.items())
        return same and parents == [each.get("content") for each in found.parents]
