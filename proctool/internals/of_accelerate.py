"""Private and undocumented parts of Accelerate. Tested with 1.15."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def forget_other_precision(autocast: str) -> None:
    """Forget the state of this process's earlier Accelerator if it computed in another precision.

    The processes of the launch stay joined: they are PartialState's.
    """
    from accelerate.state import AcceleratorState

    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != autocast:
        AcceleratorState._reset_state()


def shard_by(module: nn.Module, layers: Any) -> None:
    """Say which classes of layers FSDP wraps one by one, as Accelerate looks for them."""
    module._no_split_modules = layers


def trackers() -> Mapping[str, type[Any]]:
    """The trackers that Accelerate knows, by name."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    return LOGGER_TYPE_TO_CLASS  # type: ignore[no-any-return]
