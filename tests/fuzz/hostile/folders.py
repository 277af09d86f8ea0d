"""Folders in the form of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fuzz.hostile.artifacts import raw_artifact
from tests.fuzz.hostile.cases import RUN_ME, case
from tests.fuzz.hostile.tiny import TINY, tiny_weights


def model_folder(folder: Path, config: Any = None, **files: Any) -> list[str]:
    from safetensors.torch import save_file

    model = folder / "hf"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(TINY if config is None else config))
    if not files:
        save_file(tiny_weights(), model / "model.safetensors", metadata={"format": "pt"})
    for name, contents in files.items():
        where = model / name.replace("__", ".").replace("DASH", "-")
        where.write_bytes(contents if isinstance(contents, bytes) else json.dumps(contents).encode())
    return ["eval", "haystack", "--init", str(model), "--model", "1x1x4", "--steps", "1", "--ramp-steps", "0"]


def _index(folder: Path, shard: Any) -> list[str]:
    from safetensors.torch import save_file

    weights = tiny_weights()
    save_file(weights, folder / "outside.safetensors", metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, shard)}
    return model_folder(folder, model__safetensors__index__json=index)


@case
def an_index_that_climbs_out(folder: Path) -> list[str]:
    return _index(folder, "../outside.safetensors")


@case
def an_index_with_an_absolute_path(folder: Path) -> list[str]:
    return _index(folder, str(folder / "outside.safetensors"))


@case
def an_index_of_numbers(folder: Path) -> list[str]:
    return _index(folder, 3)


@case
def an_index_that_names_a_pickle(folder: Path) -> list[str]:
    command = _index(folder, "pytorch_model.bin")
    (folder / "hf" / "pytorch_model.bin").write_bytes(_pickle())
    return command


@case
def an_index_that_is_a_list(folder: Path) -> list[str]:
    return model_folder(folder, model__safetensors__index__json=[1])


@case
def weights_that_are_a_broken_link(folder: Path) -> list[str]:
    command = model_folder(folder, placeholder=b"")
    (folder / "hf" / "model.safetensors").symlink_to(folder / "gone.safetensors")
    return command


@case
def weights_linked_to_a_device(folder: Path) -> list[str]:
    command = model_folder(folder, placeholder=b"")
    (folder / "hf" / "model.safetensors").symlink_to("/dev/zero")
    return command


@case
def a_configuration_linked_to_a_device(folder: Path) -> list[str]:
    command = model_folder(folder)
    inside = folder / "hf" / "config.json"
    inside.unlink()
    inside.symlink_to("/dev/zero")
    return command


@case
def a_model_that_is_its_own_link(folder: Path) -> list[str]:
    command = model_folder(folder, placeholder=b"")
    (folder / "hf" / "model.safetensors").symlink_to("model.safetensors")
    return command


@case
def a_folder_of_pickles(folder: Path) -> list[str]:
    return model_folder(folder, pytorch_model__bin=_pickle())


@case
def an_adapter(folder: Path) -> list[str]:
    command = model_folder(folder)
    (folder / "hf" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/base"}))
    return command


@case
def a_folder_with_a_tensor_missing(folder: Path) -> list[str]:
    from safetensors.torch import save_file

    command = model_folder(folder, placeholder=b"")
    weights = tiny_weights()
    del weights["transformer.h.0.mlp.c_fc.weight"]
    save_file(weights, folder / "hf" / "model.safetensors", metadata={"format": "pt"})
    return command


@case
def a_folder_whose_weights_lie(folder: Path) -> list[str]:
    header = {"transformer.wte.weight": {"dtype": "F32", "shape": [1 << 40, 4], "data_offsets": [0, 1 << 44]}}
    return model_folder(folder, model__safetensors=raw_artifact(folder / "x", header, bytes(16)).read_bytes())


@case
def a_folder_with_a_nan(folder: Path) -> list[str]:
    from safetensors.torch import save_file

    command = model_folder(folder, placeholder=b"")
    save_file(tiny_weights(float("nan")), folder / "hf" / "model.safetensors", metadata={"format": "pt"})
    return command


def _pickle() -> bytes:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (RUN_ME,)

    return pickle.dumps(Evil())
