"""Carries a donor's optimiser state over with its tensors (`--load-optimizer-state`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from proctool import artifact
from proctool.artifact import Artifact
from proctool.errors import ArtifactError, OptionError, RunError
from proctool.models.components import hidden_matrices
from proctool.models.saved import SavedModel
from proctool.training.environment import flag
from proctool.training.options import InitOptions
from proctool.training.run_form import read_form
from proctool.training.run_place import run_folder_of
from proctool.transplantation import Origin

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def open_state(options: InitOptions, donor: SavedModel | None) -> Artifact | None:
    """The final training state of the run that wrote `donor`; None if it is not asked for or there is no donor.

    The run folder is next to the donor or, in an experiment, contains it. Raises ArtifactError, OptionError, RunError.
    """
    if options.load_optimizer_state and options.init is None:
        raise OptionError("load_optimizer_state: without --init there is no optimiser state to load; leave it out")
    if donor is None or not options.load_optimizer_state:
        return None
    if flag("ACCELERATE_USE_DEEPSPEED"):
        raise RunError("load_optimizer_state: not supported with DeepSpeed; use DDP or FSDP2")
    if donor.artifact is None:
        raise ArtifactError(
            f"{donor.path}: has no optimiser state, because no run of proctool wrote it; "
            "leave out --load-optimizer-state"
        )
    run = run_folder_of(donor.path)
    folders = [path for each in (run, donor.path.parent) for path in (each, *sorted(each.glob("try-*")))]
    runs = [path for path in folders if read_form(path) is not None]
    if not runs:
        raise RunError(
            f"{run}: this run folder of the donor is missing, and with it the optimiser's state; "
            "put it back, or leave out --load-optimizer-state"
        )
    for path in (state for folder in runs for state in sorted(folder.glob("state-*.safetensors"))):
        found = artifact.open_artifact(path, "checkpoint")
        if found.metadata.get("layout") is None and _has_weights_of(found, donor.artifact):
            return found
    raise RunError(
        f"{runs[0]}: has no training state with the weights of {donor.path}; train the donor with --keep-state and "
        "without --save best, or leave out --load-optimizer-state"
    )


def _has_weights_of(state: Artifact, donor: Artifact) -> bool:
    held = {name.removeprefix("model/"): each for name, each in state.tensors.items() if name.startswith("model/")}
    return bool(held) and all(
        name in donor.tensors and donor.tensors[name].sha256 == each.sha256 for name, each in held.items()
    )


def carried_state(
    state: Artifact, model: PreTrainedModel, origins: Sequence[Origin], optimizer: str
) -> dict[str, Tensor]:
    """The optimiser state of `model`'s trained parameters by PARAMETER/KEY: moments and step counts.

    It contains the parameters that are whole tensors of the donor and that the same optimiser trained there. All others
    start fresh. Raises ArtifactError.
    """
    given = artifact.read_torch(state)
    matrices = hidden_matrices(model) if optimizer == "muon" else frozenset()
    parameters = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    for origin in origins:
        parameter = parameters.get(origin.tensor)
        if parameter is None or not parameter.requires_grad or not origin.is_whole:
            continue
        keys = ("momentum_buffer",) if origin.tensor in matrices else ("exp_avg", "exp_avg_sq", "step")
        theirs = {key: given.get(f"optimiser/{origin.given[0].tensor}/{key}") for key in keys}
        kept = {key: value for key, value in theirs.items() if value is not None}
        if len(kept) == len(keys) and all(each.shape in (parameter.shape, ()) for each in kept.values()):
            found |= {f"{origin.tensor}/{key}": value for key, value in kept.items()}
    return found


def parameters_of(state: Mapping[str, Tensor], model: PreTrainedModel) -> int:
    """The number of parameters in a state from `carried_state`."""
    names = {name.rpartition("/")[0] for name in state}
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in names)
