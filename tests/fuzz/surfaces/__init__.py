"""What strangers' bytes reach: one class a surface. `seeds` are good inputs, `check` hands one input to the code as a
command would; whatever it raises but proctool's own errors and the operating system's is a finding.
"""

from __future__ import annotations

from tests.fuzz.surfaces.artifacts import ArtifactBytes, ArtifactDocuments, Configurations
from tests.fuzz.surfaces.base import Finding, Surface, verdict
from tests.fuzz.surfaces.commands import Arguments, Recipes, TaskSpecifications
from tests.fuzz.surfaces.corpora import Gzip, Lines, Parquet, Texts, Tokenizers, Zstandard
from tests.fuzz.surfaces.reports import Experiments, Metrics

SURFACES: dict[str, type[Surface]] = {
    "artifact": ArtifactBytes,
    "documents": ArtifactDocuments,
    "config": Configurations,
    "recipe": Recipes,
    "tasks": TaskSpecifications,
    "arguments": Arguments,
    "text": Texts,
    "jsonl": Lines,
    "gz": Gzip,
    "zst": Zstandard,
    "parquet": Parquet,
    "tokenizer": Tokenizers,
    "metrics": Metrics,
    "experiment": Experiments,
}

__all__ = ["SURFACES", "Finding", "Surface", "verdict"]
