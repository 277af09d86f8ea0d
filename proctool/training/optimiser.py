"""The optimisers: AdamW, or Muon for the matrices of attention and MLPs with AdamW for all other parameters.

Weight decay applies only to matrices. Sources of Muon: https://kellerjordan.github.io/posts/muon/, arXiv 2502.16982.
The latter scales Muon's update to the size of AdamW's (section 2.2), so that one learning rate and one weight decay
suit both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from proctool.errors import OptionError, RunError
from proctool.models.components import components, hidden_matrices, train_only
from proctool.training.environment import flag
from proctool.training.options import TrainingOptions
from proctool.training.schedule import lr_factors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OF_MUON = "ns_steps"
"""Key that only the parameter groups of Muon have."""
_FACTOR = "lr_factor"


def make_optimiser(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    beta2: float,
    optimizer: str = "adamw",
    lr_of: Sequence[str] = (),
) -> torch.optim.Optimizer:
    """The optimiser of the trainable parameters. Norms, biases and embeddings have no weight decay.

    Muon and `lr_of` (learning rate factors by component, such as `attention=0.5`) need a PreTrainedModel. Raises
    ModelError if its components are not known.
    """
    is_muon, factors = optimizer == "muon", lr_factors(lr_of)
    known = cast("PreTrainedModel", model)
    matrices = hidden_matrices(known) if is_muon else frozenset()
    places = components(known) if factors else {}
    embedded = {
        weight for module in model.modules() if isinstance(module, nn.Embedding) for weight in module.parameters()
    }
    found: dict[tuple[bool, bool, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.dim() < 2 or parameter in embedded
            factor = factors.get(places[name].component, 1.0) if places else 1.0
            found.setdefault((name in matrices, is_plain, factor), []).append(parameter)

    def groups(of_muon: bool) -> list[dict[str, Any]]:
        return [
            {"params": found[key], "weight_decay": 0.0 if key[1] else weight_decay, _FACTOR: key[2]}
            for key in sorted(found)
            if key[0] == of_muon
        ]

    if is_muon:
        return MuonAndAdamW(groups(True), groups(False), lr=lr, beta2=beta2)
    return torch.optim.AdamW(groups(False), lr=lr, betas=(0.9, beta2), fused=True)


def optimiser_of(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """The optimiser that a run's options ask for. Raises ModelError."""
    return make_optimiser(
        model, lr=options.lr, weight_decay=options.weight_decay, beta2=options.beta2, optimizer=options.optimizer,
        lr_of=options.lr_of or (),
    )  # fmt: skip


def set_rate(groups: Iterable[dict[str, Any]], rate: float) -> None:
    """Set the learning rate of each parameter group: `rate` times the factor of its component."""
    for group in groups:
        own = rate * group.get(_FACTOR, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for some parameter groups and AdamW for the others, as one optimiser with one state.

    It ignores `found_inf`. To skip a bad step, do not call `step`.
    """

    def __init__(
        self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], *, lr: float, beta2: float
    ) -> None:
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, betas=(0.9, beta2), fused=True))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the weights."""
        assert closure is None, "a closure is not supported"
        for part in self._parts:
            # Accelerate calls `load_state_dict`, which replaces the state and the groups of this optimiser.
            of_muon = isinstance(part, torch.optim.Muon)
            part.param_groups = [group for group in self.param_groups if (_OF_MUON in group) == of_muon]
            part.state = self.state
            part.step()


def require_optimiser(options: TrainingOptions, outlined: Callable[[], PreTrainedModel]) -> None:
    """Check, before anything is written, that the run supports its optimiser. Raises OptionError, RunError.

    `outlined` makes the run's model on the meta device.
    """
    is_muon, factors = options.optimizer == "muon", lr_factors(options.lr_of or ())
    if not (is_muon or factors):
        return
    option = "optimizer = muon" if is_muon else "lr_of"
    if flag("ACCELERATE_USE_DEEPSPEED"):
        raise RunError(f"{option}: not supported with DeepSpeed; use DDP{'' if is_muon else ' or FSDP2'}")
    if is_muon and flag("ACCELERATE_USE_FSDP"):
        raise RunError("optimizer = muon: not supported with sharded models (FSDP2); use DDP")
    model = outlined()
    if options.train is not None:
        train_only(model, options.train)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = {place.component for name, place in components(model).items() if name in trained}
    for name in factors:
        if name not in found:
            raise OptionError(f"lr_of: this run trains no {name}; choose from {', '.join(sorted(found))}")
    if is_muon and not trained & hidden_matrices(model):
        raise OptionError("optimizer = muon: this run trains no matrix of attention or an MLP; use adamw")
