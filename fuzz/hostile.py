"""Files made to harm, and the command that each is handed to. Every one must be refused: one line, exit code 1, in
milliseconds, nothing allocated, nothing executed.

    python -m fuzz.hostile          # a table: what each was, how long its refusal took, what memory it grew by
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

MIB = 1 << 20
ROOM_MIB = 400
"""Address space that refusing may take: the larger files alone are read whole into 64 MiB."""
MARK = "PROCTOOL_WAS_BREACHED"
"""A file of this name in the working folder shows that something of a stranger's was executed."""
_RUN_ME = f"open({MARK!r}, 'w').close()\n"

Make = Callable[[Path], list[str]]
CASES: dict[str, Make] = {}


def case(make: Make) -> Make:
    """Register a hostile file under its function's name; it is made in a folder and gives the command's arguments."""
    CASES[make.__name__] = make
    return make


# -- artifacts --


def raw_artifact(path: Path, entries: Any, data: bytes = b"", own: Any = None, length: int | None = None) -> Path:
    """A safetensors file with exactly this header, however wrong; `own` becomes its `proctool` metadata."""
    if own is not None:
        entries = {"__metadata__": {"proctool": own if isinstance(own, str) else json.dumps(own)}, **entries}
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def sealed(
    path: Path, tensors: Mapping[str, tuple[str, list[int], bytes]], kind: Any = "model", about: Any = None, **over: Any
) -> Path:
    """An artifact whose every hash is right, as a stranger can make it; `over` replaces fields of its document."""
    listed, entries, position = {}, {}, 0
    for name, (dtype, shape, data) in tensors.items():
        listed[name] = {"dtype": dtype, "shape": shape, "sha256": hashlib.sha256(data).hexdigest()}
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    document: dict[str, Any] = {
        "format": 1,
        "kind": kind,
        "about": {} if about is None else about,
        "parents": [],
        "versions": {},
        "tensors": listed,
        "content": _digest(listed),
    }
    document |= over
    with contextlib.suppress(ValueError, RecursionError):
        document["seal"] = _digest(document)
    return raw_artifact(path, entries, b"".join(data for _, _, data in tensors.values()), document)


def _digest(value: Any) -> str:
    written = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(written.encode()).hexdigest()


def _inspect(path: Path) -> list[str]:
    return ["inspect", str(path)]


@case
def header_longer_than_the_file(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", {}, length=1 << 60))


@case
def header_length_cuts_the_json(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", {"x": {}}, length=4))


@case
def header_that_is_a_hole_of_a_tebibyte(folder: Path) -> list[str]:
    path = folder / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", (1 << 40) - 8))
        file.truncate(1 << 40)  # sparse: takes no room
    return _inspect(path)


@case
def overlapping_tensors(folder: Path) -> list[str]:
    one = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}
    two = {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]}
    return _inspect(raw_artifact(folder / "a.safetensors", {"x": one, "y": two}, bytes(12), own={}))


@case
def tensors_with_a_gap(folder: Path) -> list[str]:
    one = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    two = {"dtype": "U8", "shape": [4], "data_offsets": [8, 12]}
    return _inspect(raw_artifact(folder / "a.safetensors", {"x": one, "y": two}, bytes(12), own={}))


@case
def tensor_past_the_end(folder: Path) -> list[str]:
    far = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    return _inspect(raw_artifact(folder / "a.safetensors", {"x": far}, bytes(16), own={}))


@case
def negative_offsets(folder: Path) -> list[str]:
    back = {"dtype": "U8", "shape": [8], "data_offsets": [-8, 0]}
    return _inspect(raw_artifact(folder / "a.safetensors", {"x": back}, bytes(8), own={}))


@case
def shape_of_a_million_ones(folder: Path) -> list[str]:
    wide = {"dtype": "U8", "shape": [1] * 1_000_000, "data_offsets": [0, 1]}
    return _inspect(raw_artifact(folder / "a.safetensors", {"x": wide}, bytes(1), own={}))


@case
def shape_of_a_hundred_dimensions(folder: Path) -> list[str]:
    path = sealed(folder / "a.safetensors", {"tokens": ("U16", [1] * 100, bytes(2))}, kind="data")
    return ["warmup", "--data", str(path), "--model", "pico"]


@case
def shape_of_nothing_times_the_universe(folder: Path) -> list[str]:
    nothing = {"tokens": ("U16", [0, 1 << 61], b""), "targets": ("BOOL", [0, 1 << 61], b"")}
    path = sealed(folder / "a.safetensors", nothing, kind="data", about=_DATA)
    return ["warmup", "--data", str(path), "--model", "pico"]


@case
def twenty_megabytes_of_brackets(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", b"[" * (20 * MIB)))


@case
def forty_megabytes_of_empty_lists(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", b'{"x":[' + b"[]," * (13 * MIB) + b"0]}"))


@case
def thirty_megabytes_of_text_in_metadata(folder: Path) -> list[str]:
    return _inspect(sealed(folder / "a.safetensors", {}, about={"note": "x" * (30 * MIB)}))


@case
def metadata_nested_beyond_reason(folder: Path) -> list[str]:
    deep = '{"a":' * 100_000 + "0" + "}" * 100_000
    return _inspect(raw_artifact(folder / "a.safetensors", {}, own=deep))


@case
def lineage_of_five_hundred_generations(folder: Path) -> list[str]:
    line: list[Any] = []
    for _ in range(450):
        line = [{"name": "p", "kind": "data", "content": "0", "about": {}, "parents": line}]
    return ["inspect", "--lineage", str(sealed(folder / "a.safetensors", {}, parents=line))]


@case
def a_number_of_a_million_digits(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", b'{"x":' + b"9" * 1_000_000 + b"}"))


@case
def a_key_given_twice(folder: Path) -> list[str]:
    good = json.loads(sealed(folder / "good.safetensors", {}).read_bytes()[8:])["__metadata__"]["proctool"]
    twice = good[:-1] + ',"kind":"model"}'
    return _inspect(raw_artifact(folder / "a.safetensors", {}, own=twice))


@case
def a_tensor_given_twice(folder: Path) -> list[str]:
    path = sealed(folder / "a.safetensors", {"x": ("U8", [1], b"a")})
    header = path.read_bytes()[8:-1]
    again = header[:-1] + b',"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    return _inspect(raw_artifact(path, again, b"a"))


@case
def nan_in_the_metadata(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", {}, own='{"format":1,"about":{"a":NaN},"seal":""}'))


@case
def metadata_of_other_types(folder: Path) -> list[str]:
    return _inspect(sealed(folder / "a.safetensors", {}, about=[1, 2], kind=["model"], versions=3))


@case
def parents_of_other_types(folder: Path) -> list[str]:
    return _inspect(sealed(folder / "a.safetensors", {}, parents=["x", 3]))


@case
def a_format_that_is_text(folder: Path) -> list[str]:
    return _inspect(sealed(folder / "a.safetensors", {}, format="1"))


@case
def a_named_pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "a.safetensors")
    return _inspect(folder / "a.safetensors")


@case
def a_device_without_end(folder: Path) -> list[str]:
    (folder / "a.safetensors").symlink_to("/dev/zero")
    return _inspect(folder / "a.safetensors")


_DATA = {"task": "set:inputs=2,symbols=4", "seed": 0, "split": "train", "samples": [0, 1]}


def _data(folder: Path, tokens: tuple[str, bytes], targets: tuple[str, bytes], about: Any = None) -> list[str]:
    tensors = {"tokens": (tokens[0], [1, 5], tokens[1]), "targets": (targets[0], [1, 5], targets[1])}
    path = sealed(folder / "a.safetensors", tensors, kind="data", about=_DATA if about is None else about)
    return ["warmup", "--data", str(path), "--model", "pico", "--steps", "1"]


@case
def tokens_that_are_floats(folder: Path) -> list[str]:
    return _data(folder, ("F32", bytes(20)), ("BOOL", b"\1" * 5))


@case
def tokens_in_a_type_numpy_lacks(folder: Path) -> list[str]:
    return _data(folder, ("F8_E4M3", bytes(5)), ("BOOL", b"\1" * 5))


@case
def tokens_that_are_negative(folder: Path) -> list[str]:
    return _data(folder, ("I16", b"\xff" * 10), ("BOOL", b"\1" * 5))


@case
def targets_that_are_numbers(folder: Path) -> list[str]:
    return _data(folder, ("U16", bytes(10)), ("U8", b"\2" * 5))


@case
def targets_that_are_no_booleans(folder: Path) -> list[str]:
    return _data(folder, ("U16", bytes(10)), ("BOOL", b"\7" * 5))


@case
def a_seed_that_is_text(folder: Path) -> list[str]:
    return _data(folder, ("U16", bytes(10)), ("BOOL", b"\1" * 5), {**_DATA, "seed": "ten"})


@case
def a_task_that_is_a_list_of_lists(folder: Path) -> list[str]:
    return _data(folder, ("U16", bytes(10)), ("BOOL", b"\1" * 5), {**_DATA, "task": [[[[1]]]]})


@case
def a_task_nested_ten_thousand_times(folder: Path) -> list[str]:
    task = "shuffle(" * 10_000 + "set" + ")" * 10_000
    return _data(folder, ("U16", bytes(10)), ("BOOL", b"\1" * 5), {**_DATA, "task": task})


# -- models --

TINY = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 4, "vocab_size": 8, "n_positions": 8}


def tiny_weights(extra: float = 0.0) -> dict[str, Any]:
    """The weights of the TINY configuration under their Hugging Face names."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(TINY)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    with torch.no_grad():
        model.transformer.wte.weight[3, 1] += extra
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


def _model(folder: Path, config: Any, weights: Mapping[str, Any] | None = None) -> list[str]:
    import torch

    kinds = {"torch.float32": "F32", "torch.int8": "I8", "torch.float8_e4m3fn": "F8_E4M3"}
    tensors = {
        name: (kinds[str(tensor.dtype)], list(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes())
        for name, tensor in (weights or {}).items()
    }
    path = sealed(folder / "a.safetensors", tensors, about={"config": config})
    return ["export", str(path), str(folder / "out")]


@case
def a_configuration_that_is_a_list(folder: Path) -> list[str]:
    return _model(folder, [1, 2])


@case
def a_family_that_is_a_number(folder: Path) -> list[str]:
    return _model(folder, {"model_type": 3})


@case
def weights_with_a_nan(folder: Path) -> list[str]:
    return _model(folder, TINY, tiny_weights(float("nan")))


@case
def weights_with_an_infinity(folder: Path) -> list[str]:
    return _model(folder, TINY, tiny_weights(float("inf")))


@case
def weights_that_are_whole_numbers(folder: Path) -> list[str]:
    import torch

    weights = tiny_weights()
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"].to(torch.int8)
    return _model(folder, TINY, weights)


@case
def weights_in_eight_bit_floats(folder: Path) -> list[str]:
    import torch

    weights = tiny_weights()
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"].to(torch.float8_e4m3fn)
    return _model(folder, TINY, weights)


_ABSURD: dict[str, dict[str, Any]] = {
    "a_trillion_layers": {**TINY, "n_layer": 10**12},
    "a_trillion_layers_of_llama": {"model_type": "llama", "num_hidden_layers": 10**12},
    "a_trillion_layers_of_qwen": {"model_type": "qwen2", "num_hidden_layers": 10**12},
    "layers_in_floating_point": {**TINY, "n_layer": 1e300},
    "fewer_than_no_layers": {**TINY, "n_layer": -4},
    "a_vocabulary_of_a_trillion": {**TINY, "vocab_size": 10**12},
    "a_width_of_a_billion": {**TINY, "n_embd": 10**9},
    "positions_beyond_counting": {**TINY, "n_positions": 10**15},
    "a_thousand_layers_of_a_hundred_thousand": {**TINY, "n_layer": 1000, "n_embd": 100_000, "n_head": 1000},
    "a_million_experts": {"model_type": "mixtral", "num_local_experts": 10**9},
    "layers_that_are_text": {**TINY, "n_layer": "many"},
    "code_of_its_own": {**TINY, "auto_map": {"AutoModelForCausalLM": "evil.Evil"}},
    "code_of_its_own_below": {**TINY, "text_config": {"auto_map": {"AutoConfig": "evil.Evil"}}},
    "attention_from_the_hub": {**TINY, "attn_implementation": "evil/kernel"},
    "attention_from_the_hub_in_private": {**TINY, "_attn_implementation": "evil/kernel"},
    "quantised_by_something": {**TINY, "quantization_config": {"quant_method": "gptq", "bits": 4}},
}


def _absurd_artifact(values: dict[str, Any]) -> Make:
    return lambda folder: _model(folder, values)


def _absurd_folder(values: dict[str, Any]) -> Make:
    return lambda folder: _folder(folder, values)


def _absurd_shape(values: dict[str, Any]) -> Make:
    def make(folder: Path) -> list[str]:
        (folder / "config.json").write_text(json.dumps(values))
        return ["warmup", "--task", "set:inputs=2", "--model", str(folder / "config.json"), "--steps", "1"]

    return make


for _name, _values in _ABSURD.items():
    CASES[_name] = _absurd_artifact(_values)
    CASES[f"{_name}_in_a_folder"] = _absurd_folder(_values)
    # A configuration as --model takes its vocabulary and context from the command.
    if not {"vocab_size", "n_positions"} & {key for key, value in _values.items() if TINY.get(key, value) != value}:
        CASES[f"{_name}_as_a_shape"] = _absurd_shape(_values)


# -- Hugging Face folders --


def _folder(folder: Path, config: Any = None, **files: Any) -> list[str]:
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
    return _folder(folder, model__safetensors__index__json=index)


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
    return _folder(folder, model__safetensors__index__json=[1])


@case
def weights_linked_out_of_the_folder(folder: Path) -> list[str]:
    from safetensors.torch import save_file

    save_file(tiny_weights(), folder / "outside.safetensors", metadata={"format": "pt"})
    command = _folder(folder, placeholder=b"")
    (folder / "hf" / "model.safetensors").symlink_to(folder / "outside.safetensors")
    return command


@case
def a_configuration_linked_out_of_the_folder(folder: Path) -> list[str]:
    command = _folder(folder)
    inside = folder / "hf" / "config.json"
    inside.rename(folder / "outside.json")
    inside.symlink_to(folder / "outside.json")
    return command


@case
def a_folder_of_pickles(folder: Path) -> list[str]:
    return _folder(folder, pytorch_model__bin=_pickle())


@case
def an_adapter(folder: Path) -> list[str]:
    command = _folder(folder)
    (folder / "hf" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/base"}))
    return command


@case
def a_folder_with_a_tensor_missing(folder: Path) -> list[str]:
    from safetensors.torch import save_file

    command = _folder(folder, placeholder=b"")
    weights = tiny_weights()
    del weights["transformer.h.0.mlp.c_fc.weight"]
    save_file(weights, folder / "hf" / "model.safetensors", metadata={"format": "pt"})
    return command


@case
def a_folder_whose_weights_lie(folder: Path) -> list[str]:
    header = {"transformer.wte.weight": {"dtype": "F32", "shape": [1 << 40, 4], "data_offsets": [0, 1 << 44]}}
    return _folder(folder, model__safetensors=raw_artifact(folder / "x", header, bytes(16)).read_bytes())


@case
def a_folder_with_a_nan(folder: Path) -> list[str]:
    from safetensors.torch import save_file

    command = _folder(folder, placeholder=b"")
    save_file(tiny_weights(float("nan")), folder / "hf" / "model.safetensors", metadata={"format": "pt"})
    return command


def _pickle() -> bytes:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (_RUN_ME,)

    return pickle.dumps(Evil())


# -- tokenizers --


def _tokenizer(folder: Path, **files: Any) -> list[str]:
    where = folder / "tokenizer"
    where.mkdir()
    for name, contents in files.items():
        written = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
        (where / name.replace("__", ".")).write_bytes(written)
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("some text\n" * 50)
    return [
        *("corpus", "build", "--corpus", str(folder / "text"), "--tokenizer", str(where), "--context", "8"),
        *("--cache-dir", str(folder / "cache")),
    ]


def _bpe(vocab: Any) -> dict[str, Any]:
    return {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": []}}


@case
def a_tokenizer_with_code_of_its_own(folder: Path) -> list[str]:
    asked = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    return _tokenizer(folder, tokenizer_config__json=asked, evil__py=_RUN_ME.encode(), config__json=TINY)


@case
def a_tokenizer_of_an_odd_class(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer_config__json={"tokenizer_class": "os.system"}, config__json=TINY)


@case
def a_tokenizer_of_four_billion_ids(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer__json=_bpe({"a": 0, "<|endoftext|>": 4_294_967_295}))


@case
def a_tokenizer_without_a_vocabulary(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer__json=_bpe({}))


@case
def a_tokenizer_of_nested_lists(folder: Path) -> list[str]:
    return _tokenizer(folder, tokenizer__json=b"[" * 200_000)


@case
def a_tokenizer_whose_end_is_a_list(folder: Path) -> list[str]:
    asked = {"eos_token": ["x"]}
    return _tokenizer(folder, tokenizer__json=_bpe({"a": 0, "</s": 1}), tokenizer_config__json=asked)


@case
def tokenizer_settings_nested_beyond_reason(folder: Path) -> list[str]:
    vocab = _bpe({"a": 0, "<|endoftext|>": 1})
    return _tokenizer(folder, tokenizer__json=vocab, tokenizer_config__json=b"[" * 200_000)


# -- YAML --


def _recipe(folder: Path, text: str | bytes) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ["run", str(path), "--dry-run"]


@case
def a_billion_laughs(folder: Path) -> list[str]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return _recipe(folder, "\n".join([*lines, "name: *a11"]))


@case
def an_alias_of_itself(folder: Path) -> list[str]:
    return _recipe(folder, "name: &a [*a]\n")


@case
def merges_of_merges(folder: Path) -> list[str]:
    lines = ["a0: &a0 {k0: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], k{n}: 1}}" for n in range(1, 9)]
    return _recipe(folder, "\n".join(lines))


@case
def yaml_nested_beyond_reason(folder: Path) -> list[str]:
    return _recipe(folder, "name: " + "[" * 100_000)


@case
def yaml_blocks_nested_beyond_reason(folder: Path) -> list[str]:
    return _recipe(folder, "\n".join(" " * n + f"k{n}:" for n in range(1500)))


@case
def yaml_of_twenty_megabytes(folder: Path) -> list[str]:
    return _recipe(folder, "name: " + "x" * (20 * MIB))


@case
def yaml_that_builds_an_object(folder: Path) -> list[str]:
    return _recipe(folder, f'name: !!python/object/apply:builtins.exec ["{_RUN_ME.strip()}"]\n')


@case
def yaml_with_a_day_that_is_none(folder: Path) -> list[str]:
    return _recipe(folder, "name: 2024-13-45\n")


@case
def yaml_with_a_number_of_a_million_digits(folder: Path) -> list[str]:
    return _recipe(folder, "context: " + "9" * 1_000_000)


@case
def yaml_with_a_zero_byte_in_a_path(folder: Path) -> list[str]:
    arms = 'arms: {cold: {}, warm: {init: "a\\0b"}}'
    return _recipe(folder, f'name: x\nmodel: pico\ncorpus: "a\\0b"\n{arms}\n')


@case
def a_recipe_with_numbers_beyond_counting(folder: Path) -> list[str]:
    return _recipe(folder, "name: x\nmodel: pico\ncorpus: python\npretrain: {steps: 1e308k}\narms: {cold: {}}\n")


# -- measuring --

NO_FILE_TO_BLAME = {
    "yaml_with_a_zero_byte_in_a_path",
    "a_thousand_layers_of_a_hundred_thousand",
    "a_thousand_layers_of_a_hundred_thousand_as_a_shape",
}
"""Cases whose line names an option or a size, not the file."""


def outcome(command: list[str]) -> tuple[int, str, str]:
    """The exit code of a command line run in this process, and what it said on its two outputs."""
    from proctool.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["proctool", *command]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def peak_mib() -> float:
    """The most memory this process has held since `forget_peak` (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def forget_peak() -> None:
    """Start counting the peak anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in `folder`."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def judged(name: str) -> tuple[str, float, float, str]:
    """What is wrong with how a case was refused ("" when nothing), seconds, MiB of growth, and the line."""
    with tempfile.TemporaryDirectory() as made, within(Path(made)):
        command = CASES[name](Path(made))
        forget_peak()
        before, began = peak_mib(), time.perf_counter()
        try:
            code, _, said = outcome(command)
        except BaseException as error:  # whatever comes here is a finding
            return f"{type(error).__name__}: {error}"[:200], time.perf_counter() - began, peak_mib() - before, ""
        seconds, grown = time.perf_counter() - began, peak_mib() - before
        lines = said.strip().splitlines()
        if (Path(made) / MARK).exists():
            return "EXECUTED", seconds, grown, said
        if code != 1 or len(lines) != 1:
            return f"exit {code} with {len(lines)} lines", seconds, grown, said[:300]
        if made not in lines[0] and name not in NO_FILE_TO_BLAME:
            return "another reason than the file", seconds, grown, lines[0]
        if len(lines[0]) > 1000 or not lines[0].isprintable():
            return f"a line of {len(lines[0])} characters, printable: {lines[0].isprintable()}", seconds, grown, ""
        return "", seconds, grown, lines[0]


def main() -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["PROCTOOL_CACHE"] = os.path.join(tempfile.gettempdir(), "proctool-hostile")
    names = [name for name in CASES if not sys.argv[1:] or any(part in name for part in sys.argv[1:])]
    for warm in ("a_folder_with_a_nan", "an_adapter", "yaml_that_builds_an_object", "tokens_that_are_floats"):
        judged(warm)  # libraries are imported once, outside what is measured
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_MIB * MIB,) * 2)  # an allocation beyond fails, and is seen
    bad, slowest, largest = 0, 0.0, 0.0
    for name in names:
        wrong, seconds, grown, line = judged(name)
        bad += bool(wrong)
        slowest, largest = max(slowest, seconds), max(largest, grown)
        print(
            f"{'BAD' if wrong else 'ok ':<4}{1e3 * seconds:8.1f} ms {grown:8.1f} MiB  {name}: {wrong} {line}",
            flush=True,
        )
    print(
        f"{len(names)} hostile files, {bad} not refused as they should be; slowest {1e3 * slowest:.0f} ms, "
        f"most memory {largest:.0f} MiB"
    )
    return bad and 1


if __name__ == "__main__":
    raise SystemExit(main())
