"""Starting from a warmed model: what `--init`, `--components`, `--layers` and `--embeddings` do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proctool.errors import ArtifactError
from proctool.models.saved import SavedModel, open_model
from proctool.paths import user_path
from proctool.training.options import InitOptions
from proctool.transplantation import Origin, parse_components, transplant_into

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def open_init(options: InitOptions) -> SavedModel | None:
    """The model that --init names; None for a fresh start. Raises ArtifactError, OptionError."""
    parse_components(options.components)
    if options.init in (None, "none"):
        return None
    path = user_path(str(options.init))
    if not path.exists():
        raise ArtifactError(f"{path}: no such file; --init takes a warmed model, a Hugging Face folder, or none")
    return open_model(path)


def transplant_from(
    donor: SavedModel | None, options: InitOptions, seed: int
) -> Callable[[PreTrainedModel], list[Origin]] | None:
    """The change to make to a fresh model before training."""
    if donor is None:
        return None

    def prepare(model: PreTrainedModel) -> list[Origin]:
        return transplant_into(
            model, donor, options.components, embeddings=options.embeddings, layers=options.layers, seed=seed
        )

    return prepare
