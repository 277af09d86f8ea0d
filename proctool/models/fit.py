"""Check that a folder's tensors fit the model that its configuration describes, without reading them.

transformers renames, merges and drops tensors while it loads a model. Here it loads placeholders instead of tensors,
and each records whether it was used. So every tensor is read, known to be computed by the model, or reported as unused.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proctool.errors import ArtifactError, some_of
from proctool.models.build import outline, with_head
from proctool.models.folder import FolderWeights, StoredTensor
from proctool.untrusted.models import require_finite, require_memory

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

_REAL = ("F64", "F32", "F16", "BF16")

# Tensors that models compute themselves but that older files store: tables of rotary positions, position ids, and
# causal masks (which differ from biases in shape).
_RECOMPUTED = re.compile(r"(^|\.)(rotary\w*\.(inv_freq|cos_cached|sin_cached)|position_ids)$")
_MASK = re.compile(r"(^|\.)(attn|attention)\.(bias|masked_bias)$")


@dataclass(frozen=True)
class Fit:
    """The result of comparing a folder's tensors with its configuration."""

    config: PretrainedConfig
    """The configuration, untied if the files have a separate head."""
    own_head: str | None
    """The tensor of a head that differs from the embeddings although the configuration ties them."""
    unused: tuple[str, ...]
    """Tensors that do not exist in the model."""


def fit(config: PretrainedConfig, weights: FolderWeights) -> Fit:
    """Compare the tensors of a folder with the model of its configuration. Reads no weights except a tied head's.

    Raises ArtifactError with the names of tensors that are missing, misshapen, or not floating-point numbers.
    """
    require_memory(config)
    where = str(weights.path)
    head = own_head(config, weights.tensors, lambda name: weights.hashes[name], weights.read, where)
    config = with_head(config, tied=False) if head else config
    model = outline(config)
    asked: set[str] = set()
    stand_ins = {name: _StandIn(name, tensor, asked) for name, tensor in weights.tensors.items()}
    _, loading = _load(model, config, stand_ins, weights)
    # More than transformers reports as unexpected, which omits tensors that its families always drop.
    unread = {name: tensor for name, tensor in weights.tensors.items() if name not in asked}
    unread = {name: tensor for name, tensor in unread.items() if not _is_recomputed(name, tensor)}
    if loading["missing_keys"]:
        raise ArtifactError(f"{where}: {_missing(loading['missing_keys'], unread, model)}")
    _require_real(weights, asked, model)
    for name, found, wanted in sorted(loading["mismatched_keys"]):
        raise ArtifactError(f"{where}: {_mismatch(name, tuple(found), tuple(wanted), model)}")
    return Fit(config, head, tuple(sorted(unread)))


def load_folder(fitted: Fit, weights: FolderWeights) -> PreTrainedModel:
    """The model with the folder's weights, in float32. Raises ArtifactError, ModelError."""
    with weights.slices() as slices:
        model, _ = _load(outline(fitted.config), fitted.config, slices, weights)
    require_finite(dict(model.named_parameters()), str(weights.path))
    return model


def own_head(
    config: PretrainedConfig,
    tensors: Mapping[str, Any],
    sha256: Callable[[str], str],
    read: Callable[[str], torch.Tensor],
    where: str,
) -> str | None:
    """The tensor of a head that differs from the embeddings although `config` ties them; None without one.

    `sha256(name)` and `read(name)` give a tensor's hash and its values. Raises ArtifactError if tensors differ that
    the family always shares.
    """
    rows = (getattr(config.get_text_config(), "vocab_size", None),)
    if sum(len(each.shape) == 2 for each in tensors.values() if each.shape[:1] == rows) < 2:
        return None
    found = _differing(outline(config), tensors, sha256, read)
    if found is None:
        return None
    if _differing(outline(with_head(config, tied=False)), tensors, sha256, read):
        raise ArtifactError(
            f"{where}: tensor {found} differs from the tensor that {config.model_type} models share it with; "
            "download or write the folder again"
        )
    return found


def _differing(
    model: PreTrainedModel,
    tensors: Mapping[str, Any],
    sha256: Callable[[str], str],
    read: Callable[[str], torch.Tensor],
) -> str | None:
    import torch

    for target, source in model.all_tied_weights_keys.items():
        one, other = (_stored(name, tensors, model) for name in (target, source))
        if one is None or other is None or one == other:
            continue
        if tensors[one].shape != tensors[other].shape:
            return one
        if tensors[one].dtype == tensors[other].dtype:
            is_same = sha256(one) == sha256(other)
        else:
            is_same = torch.equal(read(one).float(), read(other).float())
        if not is_same:
            return one
    return None


def _stored(name: str, tensors: Mapping[str, Any], model: PreTrainedModel) -> str | None:
    """The name in the files of the model's tensor `name`: with or without the prefix of the body, or renamed."""
    base = f"{model.base_model_prefix}."
    for each in (name, name.removeprefix(base), base + name):
        if each in tensors:
            return each
    ending = "." + ".".join(name.split(".")[-2:])
    alike = [each for each in tensors if f".{each}".endswith(ending)]
    return alike[0] if len(alike) == 1 else None


class _StandIn:
    """A placeholder for a tensor while transformers loads a model; it records that it was used."""

    def __init__(self, name: str, stored: StoredTensor, asked: set[str]) -> None:
        self._name, self._asked = name, asked
        self.shape = stored.shape

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def __getitem__(self, _: Any) -> _StandIn:
        self._asked.add(self._name)
        return self

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        import torch

        return torch.empty(self.shape, dtype=dtype, device="meta")


def _load(
    model: PreTrainedModel, config: PretrainedConfig, tensors: Mapping[str, Any], weights: FolderWeights
) -> tuple[PreTrainedModel, dict[str, Any]]:
    import torch

    try:
        with _quiet():
            loaded: tuple[PreTrainedModel, dict[str, Any]] = type(model).from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            return loaded
    except Exception as error:  # transformers has no common error for weights that it cannot convert
        if odd := _of_odd_shape(weights.tensors):
            raise ArtifactError(f"{weights.path}: {odd}") from None
        why = "they cannot be merged or split" if "above report" in str(error) else str(error)
        raise ArtifactError(
            f"{weights.path}: transformers cannot build a {config.model_type} model from its tensors "
            f"({some_of(sorted(weights.tensors))}): {why}"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Capture the loading report of transformers, which becomes one line or an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _is_recomputed(name: str, tensor: StoredTensor) -> bool:
    if _RECOMPUTED.search(name):
        return True
    return bool(_MASK.search(name)) and (len(tensor.shape) == 4 or tensor.shape in ((), (1,)))


def _require_real(weights: FolderWeights, asked: set[str], model: PreTrainedModel) -> None:
    whole = {name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()}
    kept = {_stored(name, weights.tensors, model) for name in whole}
    odd = [name for name in sorted(asked - kept) if weights.tensors[name].dtype not in _REAL]
    if odd:
        raise ArtifactError(f"{weights.path}: {_quantised(odd, weights.tensors)}")


def _quantised(names: Sequence[str], tensors: Mapping[str, StoredTensor]) -> str:
    kinds = ", ".join(sorted({tensors[name].dtype for name in names}))
    return (
        f"{_tensors(names)} {'has' if len(names) == 1 else 'have'} {kinds} values, so the weights are quantised; "
        "dequantise the model first (proctool reads F32, F16, BF16 and F64)"
    )


def _missing(missing: set[str], unread: Mapping[str, StoredTensor], model: PreTrainedModel) -> str:
    packed = [name for name in sorted(unread) if unread[name].dtype not in _REAL]
    if packed:
        return _quantised(packed, unread)
    prefix = _prefix(missing, unread, model)
    if prefix:
        return (
            f"its tensor names start with {prefix} ({some_of(sorted(unread), 1)}); remove the prefix with "
            f"`proctool export FOLDER NEW --strip-prefix {prefix}`"
        )
    said = f"{_tensors(sorted(missing))} {'is' if len(missing) == 1 else 'are'} missing"
    head = model.get_output_embeddings()
    names = {name for name, tensor in model.state_dict(keep_vars=True).items() if head and tensor is head.weight}
    if missing <= names:
        said += "; if the head is the embeddings, set tie_word_embeddings to true in config.json"
    elif unread:
        said += f"; the files have {some_of(sorted(unread))} instead"
    return said


def _prefix(missing: set[str], unread: Mapping[str, StoredTensor], model: PreTrainedModel) -> str | None:
    """The prefix that a wrapper added to the names of most missing tensors."""
    wanted = missing | {name.removeprefix(f"{model.base_model_prefix}.") for name in missing}
    counted: Counter[str] = Counter()
    for name in unread:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                counted[".".join(parts[:cut]) + "."] += 1
                break
    found, count = counted.most_common(1)[0] if counted else ("", 0)
    return found if 2 * count >= len(missing) else None


def _mismatch(name: str, found: tuple[int, ...], wanted: tuple[int, ...], model: PreTrainedModel) -> str:
    said = f"tensor {name} has shape {found}, but config.json needs {wanted}"
    embedding = model.get_input_embeddings().weight
    if wanted == tuple(embedding.shape) and found[1:] == wanted[1:]:
        said += f"; set vocab_size to {found[0]}"
    return said


def _of_odd_shape(tensors: Mapping[str, StoredTensor]) -> str | None:
    """Among tensors whose names differ only in numbers, one whose shape differs from the others'."""
    groups: dict[str, Counter[tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "0", name), Counter())[tensor.shape] += 1
    for name, tensor in tensors.items():
        shapes = groups[re.sub(r"(?<=\.)\d+(?=\.)", "0", name)]
        usual = shapes.most_common(1)[0][0]
        if tensor.shape != usual:
            return f"tensor {name} has shape {tensor.shape}, but similar tensors have {usual}"
    return None


def _tensors(names: Sequence[str]) -> str:
    return f"tensor {names[0]}" if len(names) == 1 else f"{len(names)} tensors ({some_of(names)})"
