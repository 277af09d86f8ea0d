"""Artifacts and model configurations."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from random import Random

from tests.fuzz import hostile
from tests.fuzz.surfaces.base import Finding, Surface, Values, refusals


class ArtifactBytes(Surface):
    """Artifacts as bytes: header lengths, headers, metadata, tensors."""

    words = (
        "F32",
        "BF16",
        "F8_E4M3",
        '"shape":[',
        '"data_offsets":[',
        "__metadata__",
        "proctool",
        "18446744073709551615",
    )

    def make_seeds(self) -> list[bytes]:
        import numpy as np

        from proctool import artifact

        seeds = []
        for tensors, metadata in (
            ({}, {}),
            ({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"config": hostile.TINY}),
            ({"tokens": np.zeros((2, 5), np.uint16), "targets": np.ones((2, 5), bool)}, hostile.DATA),
        ):
            artifact.write(self.folder / "seed.safetensors", tensors, kind="data", metadata=metadata)
            seeds.append((self.folder / "seed.safetensors").read_bytes())
        self.truth = {bytes(seed) for seed in seeds}
        return seeds

    def draw(self, random: Random) -> bytes:
        data = super().draw(random)
        if random.random() < 0.5 and len(data) > 8:  # a length that fits, so that what follows is looked at
            at = data.rfind(b"}") + 1
            data = struct.pack("<Q", max(0, at - 8)) + data[8:]
        return data

    def check(self, data: bytes) -> None:
        from proctool import artifact

        found = artifact.read_header(self.written("a.safetensors", data))
        artifact.read_numpy(found)
        artifact.read_torch(found)
        length = struct.unpack("<Q", data[:8])[0]
        if found.content not in self._contents():
            raise Finding("a damaged artifact was accepted with contents of its own")
        if data not in self.truth and len(data) < length:
            raise Finding("longer than it is")

    def _contents(self) -> set[str]:
        if not hasattr(self, "contents"):
            from proctool import artifact

            self.contents = set()
            for seed in self.seeds:
                path = self.folder / "truth.safetensors"
                path.write_bytes(seed)
                self.contents.add(artifact.read_header(path).content)
        return self.contents


class ArtifactDocuments(Values):
    """Metadata damaged and sealed again, as a stranger can: every reader of artifacts takes it."""

    def make_seeds(self) -> list[bytes]:
        parent = {
            "name": "set.safetensors",
            "kind": "data",
            "content": "0" * 64,
            "about": {"task": "set"},
            "parents": [],
        }
        return [
            json.dumps(
                {"kind": kind, "about": metadata, "parents": parents, "versions": {"numpy": "2"}, "format": 1}
            ).encode()
            for kind, metadata, parents in (
                ("data", hostile.DATA, []),
                (
                    "model",
                    {"config": hostile.TINY, "tokenizer": "bytes", "origins": {"tokens": {"source": "x", "how": "y"}}},
                    [parent, {**parent, "parents": [parent]}],
                ),
                ("model", {"config": {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1}}, [parent]),
                (
                    "tokens",
                    {
                        "last": True,
                        "read": 2,
                        "skipped": 0,
                        "splits": {"train": {"documents": 1, "bytes": 2, "tokens": 3}},
                        "corpus": "x",
                        "tokenizer": "bytes",
                    },
                    [],
                ),
            )
        ]

    def check(self, data: bytes) -> None:
        from proctool import artifact
        from proctool.cli.inspect import inspect
        from proctool.corpora.shards import existing
        from proctool.models.saved import open_model
        from proctool.procedural.dataset import DataFile

        with contextlib.suppress(ValueError, RecursionError, OverflowError):
            document = json.loads(data)
            over = document if isinstance(document, dict) else {"about": document}
            tensors = {"tokens": ("U16", [1, 5], bytes(10)), "targets": ("BOOL", [1, 5], bytes(5))}
            hostile.sealed(self.folder / "k-00000.safetensors", tensors, **over)
        path = self.folder / "k-00000.safetensors"
        if not path.exists():
            return
        existing(self.folder, "k")
        found = artifact.read_header(path)
        if len(data) % 8 == 0:  # showing takes longer than all the rest
            with contextlib.redirect_stdout(io.StringIO()) as out:
                inspect(path, tensors=True, lineage=False, json=False)
                inspect(path, tensors=False, lineage=True, json=False)
                inspect(path, tensors=False, lineage=False, json=True)
            if "\x1b" in out.getvalue() or "\x9b" in out.getvalue():
                raise Finding("control codes of a stranger reach the terminal")
        for read in (DataFile.open, lambda path: open_model(path).tokenizer()):
            with contextlib.suppress(*refusals()):
                read(path)
        json.dumps(found.as_parent)


class Configurations(Values):
    """config.json of a model."""

    def make_seeds(self) -> list[bytes]:
        from transformers import AutoConfig

        from proctool.models.saved import config_values

        made = [hostile.TINY]
        families = ("gpt2", "llama", "qwen3", "mixtral", "gpt_neox", "mamba", "gemma2")
        made += [config_values(AutoConfig.for_model(family)) for family in families]
        return [json.dumps(values).encode() for values in made]

    def check(self, data: bytes) -> None:
        from proctool.models.build import config_of, read_config

        values = read_config(self.written("config.json", data))
        made = config_of(values.pop("model_type"), values)
        if getattr(made, "num_hidden_layers", 0) > 1000:
            raise Finding("absurd sizes were taken")
