"""Models as files: proctool's artifacts and Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool import artifact
from proctool.artifact import Artifact
from proctool.corpora.tokenizer_files import NAMES
from proctool.errors import ArtifactError, ModelError, notice, some_of
from proctool.events import FILE
from proctool.hub import CONFIGURATION, INDEX, HubModel, fetch, model_id
from proctool.models.build import build_model, config_of, read_config, with_head
from proctool.models.fit import Fit, fit, load_folder, own_head
from proctool.models.folder import WEIGHTS, FolderWeights, read_folder, require_file
from proctool.untrusted.models import require_finite

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from proctool.corpora.tokenizers import Tokenizer

_NOISE = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype")
_READ = (CONFIGURATION, "generation_config.json", "adapter_config.json", "*.safetensors", INDEX)
"""Files to download of a hub model, in addition to its tokenizer: no code and no pickles."""
_LISTED = 5
"""At most this many names of unused tensors are listed in records and notices."""


@dataclass(frozen=True)
class SavedModel:
    """A model on disk: its configuration and origin. `weights` reads the weights.

    If configuration and weights disagree about the head, the weights decide: `config` is untied if they have a
    separate head.
    """

    path: Path
    config: PretrainedConfig
    metadata: Mapping[str, Any]
    artifact: Artifact | None
    """None for a Hugging Face folder."""
    folder: FolderWeights | None = None
    own_head: str | None = None
    """Name of a separate head tensor that contradicts the configuration, which ties the head to the embeddings."""
    unused: tuple[str, ...] = ()
    """Tensors in the folder that the model has no place for."""
    repository: HubModel | None = None
    """The hub model and its commit; None if it was not read from the hub."""

    @property
    def name(self) -> str:
        """Name for messages: the id on the hub, or the name of the file or folder."""
        return self.repository.repository if self.repository else self.path.name

    def weights(self) -> dict[str, torch.Tensor]:
        """Tensors by name, memory-mapped, with all hashes checked. Raises ArtifactError."""
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

    @property
    def content(self) -> str | None:
        """The content hash of the weights; None for a model that is not on disk."""
        if self.artifact is not None:
            return self.artifact.content
        return self.folder.content if self.folder is not None else None

    def oddities(self) -> dict[str, Any]:
        """Records of unused tensors and of an untied head; empty for most models."""
        found: dict[str, Any] = {}
        if self.own_head:
            found["own_head"] = self.own_head
        if self.unused:
            found |= {"unused_tensors": len(self.unused), "first_unused": list(self.unused[:_LISTED])}
        if self.folder is not None and self.folder.stray:
            found["stray_files"] = list(self.folder.stray[:_LISTED])
        return found

    def tokenizer(self, end_of_text: str | None = None) -> Tokenizer | None:
        """The model's tokenizer; None for models trained on procedural data.

        `end_of_text` is the token that ends a text (default: the tokenizer's own).
        Raises CorpusError or ArtifactError if it cannot be loaded.
        """
        from proctool.corpora.carried import load_record
        from proctool.corpora.subwords import holds_tokenizer, load_subwords

        if self.artifact is not None:
            return load_record(self.metadata, str(self.path), end_of_text)
        if not holds_tokenizer(self.path):
            return None
        found = load_subwords(str(self.path), end_of_text)
        found.spec = self.repository.repository if self.repository else found.spec
        return found

    @property
    def begins_as_tokenizer(self) -> bool:
        """Whether the tokenizer determines how texts begin; for models that proctool trained, end-of-text does."""
        from proctool.corpora.carried import AS_ITS_TOKENIZER, BEGIN

        return self.artifact is None or self.metadata.get(BEGIN) == AS_ITS_TOKENIZER

    def tokenizer_record(self) -> dict[str, Any]:
        """Metadata on the tokenizer, for models with the same vocabulary. Raises CorpusError."""
        from proctool.corpora.carried import AS_ITS_TOKENIZER, BEGIN, DEFINITION, NAME, record

        if self.artifact is not None:
            return {key: self.metadata[key] for key in (NAME, DEFINITION, BEGIN) if key in self.metadata}
        tokenizer = self.tokenizer()
        return {**record(tokenizer), BEGIN: AS_ITS_TOKENIZER} if tokenizer else {}

    @property
    def parent(self) -> Artifact | Mapping[str, Any]:
        """The entry for this model in the lineage of derived models."""
        if self.artifact is not None:
            return self.artifact
        told: dict[str, Any] = {"oddities": oddities} if (oddities := self.oddities()) else {}
        if self.repository is not None:
            told["repository"] = {"id": self.repository.repository, "commit": self.repository.commit}
        return {"name": self.name, "kind": "huggingface", "content": self.content, **told, "parents": []}

    def _from_folder(self) -> PreTrainedModel:
        assert self.folder is not None, "the model is not on disk, so it has no weights to read"
        model = load_folder(Fit(self.config, self.own_head, self.unused), self.folder)
        settings = self.path / "generation_config.json"
        if settings.exists() or settings.is_symlink():
            from transformers import GenerationConfig

            require_file(settings)
            try:
                model.generation_config = GenerationConfig.from_pretrained(self.path, local_files_only=True)
            except Exception as error:  # checks in transformers raise many kinds of errors
                raise ArtifactError(f"{settings}: transformers rejects these settings: {error}") from None
        return model


def save_model(
    path: Path,
    model: PreTrainedModel,
    metadata: Mapping[str, Any],
    parents: Sequence[Artifact | Mapping[str, Any]] = (),
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Artifact:
    """Write a model artifact: weights under their Hugging Face names, tied ones once, the configuration in `about`.

    `weights` replace the model's parameters, for example if those are sharded.
    """
    tensors = tensors_of(model, weights or dict(model.named_parameters()))
    return artifact.write(
        path, tensors, kind="model", metadata={**metadata, "config": config_values(model.config)}, parents=parents
    )


_PATHS = ("corpus", "validation", "tokenizer", "data", "model", "init")


def without_folders(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """An artifact's metadata without folders, so that the same work gives the same bytes."""
    return {
        key: artifact.name_given(value) if key in _PATHS and isinstance(value, str)
        else without_folders(value) if key == "training" else value
        for key, value in metadata.items()
    }  # fmt: skip


def tensors_of(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a model file: `weights`, and the buffers that the model saves."""
    return {**weights, **_persistent_buffers(model)}


def _persistent_buffers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    saved = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def config_values(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration as a model artifact records it: without versions and names."""
    values = json.loads(config.to_json_string(use_diff=False))
    return {key: value for key, value in values.items() if key not in _NOISE}


def open_model(path: Path, strip_prefix: Sequence[str] = ()) -> SavedModel:
    """Open a model artifact, a Hugging Face folder or, if no such path exists, a hub model by its id.

    `strip_prefix` is removed from the names of a folder's tensors. All tensors are matched with the model before any is
    read. A `Notice` names unused tensors, and another the commit of a hub model. Raises ArtifactError, ModelError,
    HubError.
    """
    path, repository = Path(path), None
    if (wanted := model_id(path)) is not None:
        repository = fetch(wanted, (*_READ, *NAMES))
        notice(f"{wanted}: the model of that name on the hub, at commit {repository.commit}")
        path = repository.folder
    saved = _open_folder(path, strip_prefix) if path.is_dir() else _open_artifact(path)
    saved = replace(saved, repository=repository)
    if strip_prefix and saved.artifact is not None:
        raise ArtifactError(
            f"{path}: is an artifact of proctool, whose tensors have no prefix to strip; leave the option out"
        )
    if saved.own_head:
        notice(
            f"{path}: the configuration ties the head to the embeddings, but {saved.own_head} differs from them; "
            "the model keeps its separate head"
        )
    if saved.unused:
        some = f"{len(saved.unused)} tensors are" if len(saved.unused) > 1 else "1 tensor is"
        notice(f"{path}: {some} not part of the model and not used: {some_of(saved.unused, _LISTED)}")
    if saved.folder is not None and saved.folder.stray:
        notice(f"{path}: weight files that are not part of the model are not read: {some_of(saved.folder.stray)}")
    return saved


def _is_configured(path: Path) -> bool:
    """Whether a folder has the configuration of a model, unlike the folder of a run."""
    try:
        read_config(path / "config.json")
    except (ArtifactError, ModelError, OSError):
        return False
    return True


def _open_folder(path: Path, strip_prefix: Sequence[str]) -> SavedModel:
    if (path / FILE).is_file() and not _is_configured(path):
        own = path / WEIGHTS
        where = str(own) if own.is_file() else "the file that its command wrote (--output)"
        raise ArtifactError(f"{path}: is the folder of a run, not a model; give {where}")
    if not (path / "config.json").is_file() and not (path / "config.json").is_symlink():
        raise ArtifactError(f"{path}: is neither a model artifact nor a Hugging Face folder (it has no config.json)")
    weights = read_folder(path, strip_prefix)
    values = read_config(path / "config.json")
    try:
        fitted = fit(config_of(values.pop("model_type"), values), weights)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return SavedModel(path, fitted.config, {}, None, weights, fitted.own_head, fitted.unused)


def _open_artifact(path: Path) -> SavedModel:
    found = artifact.open_artifact(path, "model")
    recorded = found.metadata.get("config")
    if not isinstance(recorded, dict) or not isinstance(recorded.get("model_type"), str):
        raise ArtifactError(f"{path}: the model has no configuration; create the file again")
    values = dict(recorded)
    try:
        config = config_of(values.pop("model_type"), values)
        head = own_head(
            config,
            found.tensors,
            lambda name: found.tensors[name].sha256,
            lambda name: artifact.read_torch(found)[name],
            str(path),
        )
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return SavedModel(path, with_head(config, tied=False) if head else config, found.metadata, found, own_head=head)


def load_weights(model: PreTrainedModel, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `weights` into `model`. Raises ModelError for a missing, unknown or misshapen tensor."""
    import torch

    wanted = {**dict(model.named_parameters()), **_persistent_buffers(model)}
    # Hugging Face files may contain a tied head in addition to the embedding.
    tied = model.state_dict().keys() - wanted.keys()
    if odd := sorted((weights.keys() - tied) ^ wanted.keys()):
        raise ModelError(f"{source}: tensor {odd[0]} is {'missing' if odd[0] in wanted else 'not part of the model'}")
    require_finite({name: weights[name] for name, _ in model.named_parameters()}, source)
    with torch.no_grad():
        for name, tensor in wanted.items():
            if tensor.is_floating_point() and not weights[name].is_floating_point():
                raise ModelError(f"{source}: tensor {name} has type {weights[name].dtype}, not floating-point numbers")
            if weights[name].shape != tensor.shape:
                raise ModelError(
                    f"{source}: tensor {name} has shape {tuple(weights[name].shape)}, "
                    f"but the model needs {tuple(tensor.shape)}"
                )
            tensor.copy_(weights[name])
