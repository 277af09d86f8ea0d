from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proctool import artifact
from proctool.errors import ArtifactError

TENSORS = {
    "tokens": np.arange(60, dtype=np.uint16).reshape(6, 10),
    "targets": np.eye(6, 10, dtype=bool),
    "weight": torch.linspace(-1, 1, 12).reshape(3, 4).to(torch.bfloat16),
    "scalar": torch.tensor(2.5),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "a.safetensors"
    artifact.write(path, TENSORS, kind="data", metadata={"task": "set", "seed": 3})
    return path


def opened(path: Path) -> dict[str, torch.Tensor]:
    return artifact.read_torch(artifact.read_header(path))


def test_what_was_written_is_read_back(written: Path) -> None:
    found = artifact.open_artifact(written, "data")
    assert found.metadata == {"task": "set", "seed": 3}
    tensors = artifact.read_torch(found)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], torch.as_tensor(tensor))


def test_other_readers_of_safetensors_read_it(written: Path) -> None:
    from safetensors.torch import load_file

    assert torch.equal(load_file(written)["weight"], TENSORS["weight"])


def test_the_same_contents_give_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = tmp_path / "b.safetensors"
    artifact.write(again, dict(reversed(TENSORS.items())), kind="data", metadata={"seed": 3, "task": "set"})
    assert again.read_bytes() == written.read_bytes()


def test_lineage_travels_with_the_file(written: Path, tmp_path: Path) -> None:
    parent = artifact.read_header(written)
    child = artifact.write(tmp_path / "c.safetensors", {}, kind="model", metadata={"steps": 1}, parents=[parent])
    grandchild = artifact.write(tmp_path / "d.safetensors", {}, kind="model", metadata={}, parents=[child])
    assert grandchild.parents[0]["parents"][0]["content"] == parent.content
    assert grandchild.parents[0]["parents"][0]["about"] == {"task": "set", "seed": 3}


def test_tensors_made_one_at_a_time_give_the_same_file(written: Path, tmp_path: Path) -> None:
    lazy = {name: (lambda tensor=tensor: tensor) for name, tensor in TENSORS.items()}
    shapes = {name: (info.dtype, info.shape) for name, info in artifact.read_header(written).tensors.items()}
    path = tmp_path / "lazy.safetensors"
    artifact.write(path, lazy, kind="data", metadata={"task": "set", "seed": 3}, shapes=shapes)
    assert path.read_bytes() == written.read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_refused_or_harmless(written: Path, data: st.DataObject) -> None:
    raw = bytearray(written.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    damaged = written.with_name("flipped.safetensors")
    damaged.write_bytes(raw)
    try:
        tensors = opened(damaged)
    except ArtifactError:
        return
    # Only what holds no information may change unseen: the header's padding, the `format` remark.
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], torch.as_tensor(tensor))
    assert artifact.read_header(damaged).metadata == {"task": "set", "seed": 3}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_truncation_is_refused(written: Path, data: st.DataObject) -> None:
    raw = written.read_bytes()
    cut = written.with_name("cut.safetensors")
    cut.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(ArtifactError, match=r"cut\.safetensors"):
        artifact.read_header(cut)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(written: Path, raw: bytes) -> None:
    foreign = written.with_name("foreign.safetensors")
    for contents in (raw, struct.pack("<Q", len(raw)) + raw):
        foreign.write_bytes(contents)
        with pytest.raises(ArtifactError):
            artifact.read_header(foreign)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]},
        {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]},
        {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        ["F32"],
        None,
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"__metadata__": {"proctool": "{}"}, "x": entry}).encode()
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ArtifactError, match="lie"):
        artifact.read_header(path)


def test_a_foreign_safetensors_file_is_named_as_such(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ArtifactError, match="not written by proctool"):
        artifact.read_header(tmp_path / "foreign.safetensors")


def test_a_failed_write_leaves_the_old_file_and_no_other(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    path.write_bytes(written.read_bytes())

    def fails() -> np.ndarray:
        raise RuntimeError("no tensor")

    with pytest.raises(RuntimeError, match="no tensor"):
        artifact.write(path, {"x": fails}, kind="data", metadata={}, shapes={"x": ("F32", (2,))})
    assert path.read_bytes() == written.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        artifact.write(tmp_path / "no" / "a.safetensors", {}, kind="data", metadata={})


LARGE = {"a": np.arange(5000, dtype=np.float32), "b": np.zeros(0, np.float32), "c": torch.arange(9001.0)}


@pytest.mark.parametrize("direct_from", [0, 1 << 30])
@pytest.mark.parametrize("block", [4096, 12288, 1 << 20])
def test_blocks_and_direct_writing_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, direct_from: int
) -> None:
    artifact.write(tmp_path / "plain", LARGE, kind="data", metadata={})
    monkeypatch.setattr("proctool.artifact.files._BLOCK", block)
    monkeypatch.setattr("proctool.artifact.files._DIRECT_FROM", direct_from)
    source = artifact.write(tmp_path / "blocks", LARGE, kind="data", metadata={})
    same = {name: artifact.TensorCopy(source, name) for name in LARGE}
    artifact.write(tmp_path / "same", same, kind="data", metadata={})
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "blocks").read_bytes() == (tmp_path / "same").read_bytes()


def test_a_file_system_that_asks_for_another_alignment_gets_ordinary_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctool.artifact.files._BLOCK", 4096)
    monkeypatch.setattr("proctool.artifact.files._DIRECT_FROM", 0)
    write, refused = os.pwrite, []

    def fussy(handle: int, data: memoryview, position: int) -> int:
        if not refused:
            refused.append(position)
            raise OSError(errno.EINVAL, "alignment")
        return write(handle, data[:1000], position)  # and writes less than it was given

    monkeypatch.setattr(os, "pwrite", fussy)
    artifact.write(tmp_path / "a", LARGE, kind="data", metadata={})
    assert refused
    for name, tensor in opened(tmp_path / "a").items():
        assert torch.equal(tensor, torch.as_tensor(LARGE[name]))


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: memoryview, position: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as raised:
        artifact.write(tmp_path / "a", LARGE, kind="data", metadata={})
    assert raised.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_lies_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    source = artifact.write(tmp_path / "source", LARGE, kind="data", metadata={})
    info = source.tensors["c"]
    honest = (tmp_path / "source").read_bytes()
    changed = bytearray(honest)
    changed[info.stop - 1] ^= 1
    for lie in (changed, honest[: info.start + 40]):
        (tmp_path / "source").write_bytes(lie)
        with pytest.raises(ArtifactError, match=r"source: (tensor c is damaged|was cut short)"):
            artifact.write(tmp_path / "out", {"c": artifact.TensorCopy(source, "c")}, kind="data", metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_behind_a_link_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with artifact.staged(tmp_path / "link") as unfinished:
        (unfinished / "file").write_text("all of it")
        assert not (tmp_path / "link" / "file").exists()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "all of it"
