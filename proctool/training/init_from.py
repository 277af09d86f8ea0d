"""Starting from a warmed model: what `--init`, `--components`, `--layers` and `--embeddings` do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proctool.errors import ArtifactError, OptionError, notice
from proctool.hub import model_id
from proctool.models.saved import SavedModel, open_model
from proctool.paths import user_path
from proctool.training.options import InitOptions
from proctool.transplantation import Origin, parse_components, transplant_into
from proctool.transplantation.head_choice import read_heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from proctool.corpora.tokenizers import Tokenizer


def open_init(options: InitOptions) -> SavedModel | None:
    """The model that --init names; None for a fresh start. Raises ArtifactError, OptionError."""
    parse_components(options.components)
    if options.heads is not None:
        read_heads(options.heads)
    if options.init in (None, "none"):
        return None
    path = user_path(str(options.init))
    if not path.exists() and model_id(path) is None:
        raise ArtifactError(
            f"{path}: no such file; give --init a warmed model, a Hugging Face folder, OWNER/NAME on the hub, or none"
        )
    return open_model(path)


def rows_for(donor: SavedModel | None, options: InitOptions, tokenizer: Tokenizer) -> int:
    """The number of embedding rows: one per token of the tokenizer, or all rows of the donor if they are copied.

    Each row belongs to a token. Raises OptionError if the donor's tokenizer has other tokens for these ids; for special
    tokens, a `Notice` says so. Donors trained on procedural data have no tokenizer to compare.
    """
    from proctool.corpora.carried import other_tokens

    theirs = donor.tokenizer() if donor is not None and options.embeddings == "copy" else None
    if donor is None or theirs is None:
        return tokenizer.vocab_size
    others = other_tokens(tokenizer, theirs)
    if others.ordinary:
        raise OptionError(
            f"embeddings: {others.ordinary} of the {tokenizer.vocab_size} tokens of {tokenizer.spec} differ in the "
            f"tokenizer of {donor.path}, so its rows cannot be copied; use its tokenizer, or --embeddings mean"
        )
    if others.special:
        notice(f"{donor.path}: {others.special} special tokens differ in its tokenizer; their rows are copied too")
    return max(tokenizer.vocab_size, int(donor.config.vocab_size))


def transplant_from(
    donor: SavedModel | None, options: InitOptions, seed: int
) -> Callable[[PreTrainedModel], list[Origin]] | None:
    """A function that carries the donor's weights into a fresh model before training."""
    if donor is None:
        return None

    def prepare(model: PreTrainedModel) -> list[Origin]:
        return transplant_into(
            model,
            donor,
            options.components,
            embeddings=options.embeddings,
            layers=options.layers,
            heads=options.heads,
            seed=seed,
        )

    return prepare
