"""Artifacts and data files that lie."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.hostile.cases import MIB, case


def raw_artifact(path: Path, entries: Any, data: bytes = b"", own: Any = None, length: int | None = None) -> Path:
    """A safetensors file with exactly this header, however wrong; `own` becomes its `proctool` metadata."""
    if own is not None:
        entries = {"__metadata__": {"proctool": own if isinstance(own, str) else json.dumps(own)}, **entries}
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def sealed(
    path: Path,
    tensors: Mapping[str, tuple[str, list[int], bytes]],
    kind: Any = "model",
    metadata: Any = None,
    **over: Any,
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
        "about": {} if metadata is None else metadata,
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
    path = sealed(folder / "a.safetensors", nothing, kind="data", metadata=DATA)
    return ["warmup", "--data", str(path), "--model", "pico"]


@case
def twenty_megabytes_of_brackets(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", b"[" * (20 * MIB)))


@case
def forty_megabytes_of_empty_lists(folder: Path) -> list[str]:
    return _inspect(raw_artifact(folder / "a.safetensors", b'{"x":[' + b"[]," * (13 * MIB) + b"0]}"))


@case
def thirty_megabytes_of_text_in_metadata(folder: Path) -> list[str]:
    return _inspect(sealed(folder / "a.safetensors", {}, metadata={"note": "x" * (30 * MIB)}))


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
    return _inspect(sealed(folder / "a.safetensors", {}, metadata=[1, 2], kind=["model"], versions=3))


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


DATA = {"task": "set:inputs=2,symbols=4", "seed": 0, "split": "train", "samples": [0, 1]}


def data_file(folder: Path, tokens: tuple[str, bytes], targets: tuple[str, bytes], metadata: Any = None) -> list[str]:
    tensors = {"tokens": (tokens[0], [1, 5], tokens[1]), "targets": (targets[0], [1, 5], targets[1])}
    path = sealed(folder / "a.safetensors", tensors, kind="data", metadata=DATA if metadata is None else metadata)
    return ["warmup", "--data", str(path), "--model", "pico", "--steps", "1"]


@case
def tokens_that_are_floats(folder: Path) -> list[str]:
    return data_file(folder, ("F32", bytes(20)), ("BOOL", b"\1" * 5))


@case
def tokens_in_a_type_numpy_lacks(folder: Path) -> list[str]:
    return data_file(folder, ("F8_E4M3", bytes(5)), ("BOOL", b"\1" * 5))


@case
def tokens_that_are_negative(folder: Path) -> list[str]:
    return data_file(folder, ("I16", b"\xff" * 10), ("BOOL", b"\1" * 5))


@case
def targets_that_are_numbers(folder: Path) -> list[str]:
    return data_file(folder, ("U16", bytes(10)), ("U8", b"\2" * 5))


@case
def targets_that_are_no_booleans(folder: Path) -> list[str]:
    return data_file(folder, ("U16", bytes(10)), ("BOOL", b"\7" * 5))


@case
def a_seed_that_is_text(folder: Path) -> list[str]:
    return data_file(folder, ("U16", bytes(10)), ("BOOL", b"\1" * 5), {**DATA, "seed": "ten"})


@case
def a_task_that_is_a_list_of_lists(folder: Path) -> list[str]:
    return data_file(folder, ("U16", bytes(10)), ("BOOL", b"\1" * 5), {**DATA, "task": [[[[1]]]]})


@case
def a_task_nested_ten_thousand_times(folder: Path) -> list[str]:
    task = "shuffle(" * 10_000 + "set" + ")" * 10_000
    return data_file(folder, ("U16", bytes(10)), ("BOOL", b"\1" * 5), {**DATA, "task": task})
