"""A causal model with a classification head on its last token (Radford et al. 2018, section 3.2)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from proctool.errors import ModelError
from proctool.evaluation.finetune.glue import GRADES
from proctool.training.loss import TargetLoss

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PretrainedConfig, PreTrainedModel

    from proctool.procedural.samples import Samples


class ClassLoss(TargetLoss):
    """Cross-entropy of the classes: TargetLoss with the class head as its head."""

    def _hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        # A class or a grade is not a token, and may be beyond the vocabulary. No prediction depends on it.
        return super()._hidden(tokens.clamp(max=self.model.config.vocab_size - 1), positions)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.model.score(hidden).float()  # type: ignore[no-any-return]

    def _require_own_logits(self) -> None:
        pass  # the class head has no logit post-processing


class GradeLoss(ClassLoss):
    """Squared error of grades. A grade is correct within 0.5."""

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return functional.mse_loss(self._logits(hidden).squeeze(-1), labels / GRADES, reduction="sum")

    def scores(self, tokens: Tensor, positions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """For each sample its squared error, and whether that is at most a quarter."""
        errors = (self._logits(self._hidden(tokens, positions)).squeeze(-1) - labels / GRADES) ** 2
        return errors, errors <= 0.25


def classifier_config(config: PretrainedConfig, labels: int) -> PretrainedConfig:
    """`config` with `labels` outputs of the class head (1 for grades)."""
    made = copy.deepcopy(config)
    made.num_labels = labels
    return made


def build_classifier(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A fresh model with a class head, initialised from `seed`. Raises ModelError if the family has none."""
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ModelError(f"{config.model_type}: transformers has no classifier of this family: {error}") from None
    if not hasattr(model, "score"):
        raise ModelError(f"{config.model_type}: unsupported classifier: its head does not read the last token")
    return model


def take_body(model: PreTrainedModel, donor: PreTrainedModel) -> None:
    """Copy the body of `donor` (all but its head) into `model`, which has the same body."""
    model.base_model.load_state_dict(donor.base_model.state_dict())


def outputs(module: ClassLoss, samples: Samples, batch_size: int) -> NDArray[np.float64]:
    """The predicted class or grade of each sample: (samples,)."""
    from proctool.procedural.samples import Samples as Part
    from proctool.training.batch import Batch

    module.eval()
    found = []
    for start in range(0, len(samples), batch_size):
        rows = slice(start, start + batch_size)
        batch = Batch.of(Part(samples.tokens[rows], samples.targets[rows]), module.model.device)
        with torch.no_grad():
            logits = module._logits(module._hidden(batch.tokens, batch.positions))
        found.append(logits.squeeze(-1) if isinstance(module, GradeLoss) else logits.argmax(-1))
    return torch.cat(found).double().cpu().numpy()
