"""Models as files: proctool's artifacts, and the Hugging Face folders they are exported to and taken from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import artifact
from proctool.artifact import Artifact
from proctool.errors import ArtifactError, ModelError
from proctool.models import bounds
from proctool.models.build import build_model, config_of, read_config

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from proctool.corpora.tokenizers import Tokenizer

_NOISE = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype")


@dataclass(frozen=True)
class SavedModel:
    """A model on disk: its configuration and where it came from. Weights are read by `weights`."""

    path: Path
    config: PretrainedConfig
    about: Mapping[str, Any]
    artifact: Artifact | None
    """None for a Hugging Face folder."""

    def weights(self) -> dict[str, torch.Tensor]:
        """Tensors by name, memory-mapped; every hash checked. Raises ArtifactError."""
        if self.artifact is not None:
            return artifact.read_torch(self.artifact)
        return dict(self._from_folder().state_dict())

    def model(self) -> PreTrainedModel:
        """The model with its saved weights. Raises ArtifactError, ModelError."""
        if self.artifact is None:
            return self._from_folder()
        model = build_model(self.config, seed=0)
        load_weights(model, self.weights(), str(self.path))
        return model

    def tokenizer(self, end_of_text: str | None = None) -> Tokenizer | None:
        """The tokenizer that gives this model's ids; None for a model of procedural data, which has none.

        `end_of_text` is the token that ends a text (default: the tokenizer's own).
        Raises CorpusError, ArtifactError when it cannot be loaded.
        """
        from proctool.corpora.carried import load_record
        from proctool.corpora.subwords import holds_tokenizer, load_subwords

        if self.artifact is not None:
            return load_record(self.about, str(self.path), end_of_text)
        return load_subwords(str(self.path), end_of_text) if holds_tokenizer(self.path) else None

    @property
    def begins_as_tokenizer(self) -> bool:
        """Whether its texts begin as its tokenizer begins them; a model that proctool trained reads end-of-text."""
        from proctool.corpora.carried import AS_ITS_TOKENIZER, BEGIN

        return self.artifact is None or self.about.get(BEGIN) == AS_ITS_TOKENIZER

    def tokenizer_record(self) -> dict[str, Any]:
        """What the `about` of a model with the same vocabulary says of its tokenizer. Raises CorpusError."""
        from proctool.corpora.carried import AS_ITS_TOKENIZER, BEGIN, DEFINITION, NAME, record

        if self.artifact is not None:
            return {key: self.about[key] for key in (NAME, DEFINITION, BEGIN) if key in self.about}
        tokenizer = self.tokenizer()
        return {**record(tokenizer), BEGIN: AS_ITS_TOKENIZER} if tokenizer else {}

    @property
    def parent(self) -> Artifact | Mapping[str, Any]:
        """How a child's lineage names this model."""
        return self.artifact or {"name": self.path.name, "kind": "huggingface", "content": None, "parents": []}

    def _from_folder(self) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForCausalLM

        bounds.require_memory(self.config)
        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                self.path,
                config=self.config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # transformers has no common error for unreadable folders
            raise ArtifactError(f"{self.path}: cannot be loaded as a Hugging Face model: {error}") from None
        if absent := sorted(loading["missing_keys"]):
            raise ArtifactError(f"{self.path}: tensor {absent[0]} is missing; what transformers makes up is not loaded")
        bounds.require_finite(dict(model.named_parameters()), str(self.path))
        return model


def save_model(
    path: Path,
    model: PreTrainedModel,
    about: Mapping[str, Any],
    parents: Sequence[Artifact | Mapping[str, Any]] = (),
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Artifact:
    """Write a model artifact: weights under their Hugging Face names, tied ones once, the configuration in `about`.

    `weights` stand in for the model's own parameters, as where those are sharded.
    """
    tensors = {**(weights or dict(model.named_parameters())), **_persistent_buffers(model)}
    return artifact.write(
        path, tensors, kind="model", about={**about, "config": config_values(model.config)}, parents=parents
    )


def _persistent_buffers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    saved = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def config_values(config: PretrainedConfig) -> dict[str, Any]:
    """What a model artifact records of a configuration: everything but versions and names."""
    values = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in values.items() if key not in _NOISE}


def open_model(path: Path) -> SavedModel:
    """A model artifact, or a Hugging Face folder. Raises ArtifactError, ModelError."""
    path = Path(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ArtifactError(f"{path}: neither a model artifact nor a Hugging Face folder (no config.json)")
        bounds.require_plain_folder(path)
        values = read_config(path / "config.json")
        return SavedModel(path, config_of(values.pop("model_type"), values), {}, None)
    found = artifact.open_artifact(path, "model")
    recorded = found.about.get("config")
    if not isinstance(recorded, dict) or not isinstance(recorded.get("model_type"), str):
        raise ArtifactError(f"{path}: a model without its configuration; make the file again")
    values = dict(recorded)
    try:
        return SavedModel(path, config_of(values.pop("model_type"), values), found.about, found)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def load_weights(model: PreTrainedModel, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `weights` into `model`, every tensor accounted for. Raises ModelError naming the first that does not fit."""
    import torch

    wanted = {**dict(model.named_parameters()), **_persistent_buffers(model)}
    # Hugging Face files may list a tied head beside the embedding it shares.
    tied = model.state_dict().keys() - wanted.keys()
    if odd := sorted((weights.keys() - tied) ^ wanted.keys()):
        raise ModelError(f"{source}: tensor {odd[0]} is {'missing' if odd[0] in wanted else 'not part of the model'}")
    bounds.require_finite({name: weights[name] for name, _ in model.named_parameters()}, source)
    with torch.no_grad():
        for name, tensor in wanted.items():
            if tensor.is_floating_point() and not weights[name].is_floating_point():
                raise ModelError(f"{source}: tensor {name} holds {weights[name].dtype}, not real numbers")
            if weights[name].shape != tensor.shape:
                raise ModelError(
                    f"{source}: tensor {name} has shape {tuple(weights[name].shape)}, the model {tuple(tensor.shape)}"
                )
            tensor.copy_(weights[name])
