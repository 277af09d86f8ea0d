"""Every format that `generate` writes, read by the reader that its users have."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proctool import artifact
from proctool.corpora.subwords import load_tokenizer
from proctool.errors import OptionError
from proctool.procedural.dataset import DataFile, generate
from proctool.procedural.formats import FORMATS, format_of
from proctool.procedural.formats.words import words_for
from proctool.procedural.mixture import parse_tasks
from proctool.procedural.samples import Samples
from proctool.procedural.streams import Stream

Run = Callable[..., Any]

SPECS = ["set:inputs=5,symbols=9", "shuffle(set:small)", "set:small*0.5 + dyck:k=4,length=16*2"]
SAMPLES = 1500


def written(path: Path, spec: str, samples: int = SAMPLES, **more: Any) -> tuple[Samples, str]:
    """Write a file. Returns what should be in it, and the content hash."""
    task = parse_tasks(spec)
    content = generate(task, path, samples=samples, seed=7, write=FORMATS[format_of(path)].write, **more)
    return Stream(task, 7).read(0, samples), content


def require_columns(found: Any, wanted: Samples) -> None:
    columns = found[:]
    assert np.array_equal(columns["input_ids"], wanted.tokens)
    assert np.array_equal(columns["labels"], np.where(wanted.targets, wanted.tokens.astype(int), -100))
    assert len(found) == len(wanted)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("reader", "ending"), [("parquet", "parquet"), ("json", "jsonl")])
def test_datasets_loads_tables(spec: str, reader: str, ending: str, tmp_path: Path) -> None:
    import datasets

    wanted, _ = written(tmp_path / f"made.{ending}", spec)
    found = datasets.load_dataset(
        reader, data_files=str(tmp_path / f"made.{ending}"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found.column_names == ["input_ids", "labels"]
    require_columns(found.with_format("numpy"), wanted)


@pytest.mark.parametrize("spec", SPECS)
def test_datasets_maps_arrow(spec: str, tmp_path: Path) -> None:
    import datasets

    wanted, _ = written(tmp_path / "made.arrow", spec)
    require_columns(datasets.Dataset.from_file(str(tmp_path / "made.arrow")).with_format("numpy"), wanted)


@pytest.mark.parametrize("spec", SPECS)
def test_numpy_maps_nanogpts_tokens(spec: str, tmp_path: Path) -> None:
    wanted, content = written(tmp_path / "train.bin", spec)
    assert np.array_equal(np.memmap(tmp_path / "train.bin", np.uint16, "r"), wanted.tokens.reshape(-1))
    described = json.loads((tmp_path / "train.bin.json").read_text())
    assert described["about"] | {"vocab_size": parse_tasks(spec).vocab_size, "dtype": "uint16"} == described["about"]
    assert (described["about"]["length"], described["content"]) == (wanted.tokens.shape[1], content)


def megatron_documents(prefix: Path) -> Iterator[np.ndarray[Any, Any]]:
    """The documents of an indexed dataset, as Megatron-LM's `_IndexReader` finds them."""
    index = prefix.with_suffix(".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    dtype = {4: np.int32, 8: np.uint16}[code]
    at = 9 + 25
    lengths = np.frombuffer(index, np.int32, sequences, at)
    at += lengths.nbytes
    pointers = np.frombuffer(index, np.int64, sequences, at)
    at += pointers.nbytes
    bounds = np.frombuffer(index, np.int64, documents, at)
    assert len(index) == at + bounds.nbytes
    assert (bounds[0], bounds[-1]) == (0, sequences)
    data = np.memmap(prefix.with_suffix(".bin"), np.uint8, "r")
    for first, last in itertools.pairwise(bounds):
        ends = pointers[first:last] + lengths[first:last] * np.dtype(dtype).itemsize
        parts = [data[start:end].view(dtype) for start, end in zip(pointers[first:last], ends, strict=True)]
        yield np.concatenate(parts)


@pytest.mark.parametrize("spec", SPECS)
def test_megatrons_index_gives_a_document_for_each_sample(spec: str, tmp_path: Path) -> None:
    wanted, _ = written(tmp_path / "made.idx", spec, samples=40)
    found = list(megatron_documents(tmp_path / "made"))
    assert np.array_equal(found, wanted.tokens)


def test_every_format_names_the_same_contents(tmp_path: Path) -> None:
    contents = {ending: written(tmp_path / f"made{each.ending}", SPECS[2])[1] for ending, each in FORMATS.items()}
    assert set(contents.values()) == {DataFile.open(tmp_path / "made.safetensors").artifact.content}


@pytest.mark.parametrize("name", FORMATS)
def test_shards_are_the_single_file_in_parts(name: str, proctool: Run) -> None:
    ending = FORMATS[name].ending
    for shard in ("1/2", "2/2"):
        said = proctool(
            *("generate", "shuffle(set:inputs=5,symbols=9)", "--samples", 1501, "--shard", shard, "--json"),
            *("-o", f"{shard[0]}{ending}"),
        )
        assert said.code == 0, said
        result = json.loads(said.out)
        assert all(Path(each).is_file() for each in result["files"])
    stream = Stream(parse_tasks("shuffle(set:inputs=5,symbols=9)"))
    whole = generate(stream.task, Path(f"w{ending}"), samples=751, write=FORMATS[name].write)
    assert result["content"] != whole
    if name == "nanogpt":
        tokens = np.concatenate([np.fromfile(f"{n}{ending}", np.uint16) for n in (1, 2)])
        assert np.array_equal(tokens, stream.read(0, 1501).tokens.reshape(-1))


def test_wide_vocabularies_fit_every_format_but_nanogpts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = parse_tasks("sorting:items=2,symbols=60000")
    wide = {"number": range(70_000)}
    monkeypatch.setattr(type(task), "layout", property(lambda self: wide))
    monkeypatch.setattr(
        type(task),
        "sample",
        lambda self, rng, n: Samples(rng.integers(0, 70_000, (n, 5), np.uint32), np.arange(5) >= np.full((n, 1), 2)),
    )
    wanted = Stream(task).read(0, 30)
    generate(task, tmp_path / "made.idx", samples=30, write=FORMATS["megatron"].write)
    assert np.array_equal(list(megatron_documents(tmp_path / "made")), wanted.tokens)
    for name in ("parquet", "arrow", "safetensors"):
        path = tmp_path / f"made{FORMATS[name].ending}"
        generate(task, path, samples=30, write=FORMATS[name].write)
    with pytest.raises(OptionError, match="do not fit nanoGPT's 16 bits"):
        generate(task, tmp_path / "other.bin", samples=30, write=FORMATS["nanogpt"].write)
    assert not list(tmp_path.glob("*other*"))


# -- the command --


def test_a_specification_and_flags_write_the_same_bytes(proctool: Run) -> None:
    assert proctool("generate", "set:inputs=5,symbols=9", "--samples", 9, "-o", "a.safetensors").code == 0
    flags = ("--inputs", 5, "--symbols", 9, "--samples", 9)
    assert proctool("generate", "set", *flags, "-o", "b.safetensors").code == 0
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()
    assert proctool("generate", "shuffle(set:inputs=5,symbols=9)", "--samples", 9, "-o", "a.safetensors").code == 0
    assert proctool("generate", "set", *flags, "--control", "shuffle", "-o", "b.safetensors").code == 0
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


@pytest.mark.parametrize("given", [("-o", "x.csv"), ("-o", "x.JSONL"), ("-o", "x.pkl")])
def test_an_unknown_ending_is_one_line_that_lists_the_known(proctool: Run, given: tuple[str, ...]) -> None:
    said = proctool("generate", "set", "--samples", 5, *given)
    assert said.code == 1
    assert all(f"{each.ending} ({name})" in said.line for name, each in FORMATS.items())
    assert not list(Path().iterdir())
    assert proctool("generate", "set", "--samples", 5, *given, "--format", "jsonl").code == 0


BAD = {
    "no task": (("set:inputz=3",), "inputz"),
    "no control": (("shufle(set)",), "shufle"),
    "text without a tokenizer": (("set:small", "--as-text"), "needs --tokenizer"),
    "a tokenizer without text": (("set:small", "--tokenizer", "bytes"), "only with --as-text"),
    "text in a table": (("set:small", "--as-text", "--tokenizer", "bytes", "-o", "x.parquet"), "JSON Lines"),
    "too few words": (("set", "--as-text", "--tokenizer", "bytes"), "bytes: has 62 usable words"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_written_is_one_line(proctool: Run, case: str) -> None:
    words, reason = BAD[case]
    said = proctool("generate", *words)
    assert said.code == 1
    assert reason in said.line
    assert not list(Path().iterdir())


def test_a_dry_run_writes_nothing(proctool: Run) -> None:
    for name, each in FORMATS.items():
        said = proctool("generate", "set:small", "--format", name, "--dry-run", "--json")
        planned = json.loads(said.out)
        assert (planned["bytes"] is None) == (each.bytes_per_token is None)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_only_what_proctool_wrote_is_replaced(proctool: Run, name: str) -> None:
    path = f"made{FORMATS[name].ending}"
    command = ("generate", "set:inputs=5,symbols=9", "--format", name, "-o", path)
    for samples in (20, 30):
        assert proctool(*command, "--samples", samples).code == 0
    for file in sorted(Path().glob("made*")):
        kept = file.read_bytes()
        file.write_bytes(b"something of the user's")
        said = proctool(*command, "--samples", 10)
        assert said.code == 1, file
        assert said.line.startswith("proctool: made.")
        assert ": exists, and proctool did not write it as " in said.line
        assert file.read_bytes() == b"something of the user's"
        file.write_bytes(kept)
    assert proctool(*command, "--samples", 10).code == 0


@pytest.mark.parametrize("name", ["parquet", "arrow", "jsonl", "nanogpt"])
def test_a_file_that_was_edited_is_not_replaced(proctool: Run, name: str) -> None:
    """A table that pyarrow has written again keeps our metadata, but not our samples."""
    path = f"made{FORMATS[name].ending}"
    command = ("generate", "set:inputs=5,symbols=9", "--samples", 20, "-o", path)
    assert proctool(*command).code == 0
    if name == "parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 19), path)
    elif name == "arrow":
        import pyarrow

        table = pyarrow.ipc.open_stream(Path(path).read_bytes()).read_all().slice(0, 19)
        with pyarrow.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    else:
        content = bytearray(Path(path).read_bytes())
        content[-2] ^= 1
        Path(path).write_bytes(content)
    before = Path(path).read_bytes()
    said = proctool(*command)
    assert said.code == 1
    assert "proctool did not write it" in said.line
    assert Path(path).read_bytes() == before


def test_tokens_of_another_format_are_not_replaced(proctool: Run) -> None:
    """nanoGPT's file would leave Megatron's index without its tokens."""
    assert proctool("generate", "set:small", "--samples", 20, "-o", "made.idx").code == 0
    said = proctool("generate", "set:small", "--samples", 20, "-o", "made.bin")
    assert said.code == 1
    assert "did not write it as nanogpt" in said.line


@pytest.mark.parametrize("name", FORMATS)
def test_a_writer_that_fails_leaves_what_was_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"made{FORMATS[name].ending}"
    written(path, SPECS[0])
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    read = Stream.read

    def fails(stream: Stream, start: int, stop: int) -> Samples:
        if start:
            raise OSError(28, "No space left on device")
        return read(stream, start, stop)

    monkeypatch.setattr(Stream, "read", fails)
    with pytest.raises(OSError, match="No space"):
        written(path, SPECS[0], samples=20_000)
    assert {each: each.read_bytes() for each in tmp_path.iterdir() if not each.name.endswith(".lock")} == before


def test_a_kill_between_two_names_leaves_nothing_that_is_refused(tmp_path: Path) -> None:
    """The description takes its name first, when the old file is gone."""
    path = tmp_path / "made.jsonl"
    written(path, SPECS[0])
    path.unlink()
    assert artifact.is_sidecar(artifact.sidecar_of(path))
    written(path, SPECS[1])
    assert artifact.is_described(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from proctool.procedural.dataset import generate\n"
        "from proctool.procedural.formats import FORMATS; from proctool.procedural.mixture import parse_tasks\n"
        "form = FORMATS[sys.argv[1]]\n"
        "generate(parse_tasks('set:small'), Path('made' + form.ending), samples=int(sys.argv[2]), write=form.write)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for samples in (150_000, 600_000):
        done = subprocess.run(
            [sys.executable, "-c", program, name, str(samples)],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout) << 10)
    assert peaks[1] - peaks[0] < 450_000 * 41, "less than a byte for each token more"


# -- text --


def tokenizer_json(kind: str) -> str:
    """A little tokenizer of a family, with the words waa..wfe and some pieces."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    words = [f"w{one}{two}" for one in "abcdef" for two in "abcde"]
    if kind == "wordpiece":
        vocab = {word: place for place, word in enumerate(["[UNK]", "[SEP]", "##a", *words, "!"])}
        built = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        built.pre_tokenizer, built.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        end = "[SEP]"
    else:
        mark = "▁" if kind == "sentencepiece" else "Ġ"
        pieces = ["<unk>", "</s>", *(mark + word for word in words), "w", *words[:5], mark + "é"]
        vocab = {piece: place for place, piece in enumerate(pieces)}
        built = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
        if kind == "sentencepiece":
            built.pre_tokenizer, built.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        else:
            built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            built.decoder = decoders.ByteLevel()
        end = "</s>"
    built.add_special_tokens([tokenizers.AddedToken(end, special=True, normalized=False)])
    return str(built.to_str())


@pytest.fixture(params=["bytes", "characters", "wordpiece", "sentencepiece", "byte-level"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in ("bytes", "characters"):
        return str(request.param)
    path = tmp_path / "tokenizers"
    path.mkdir()
    (path / "tokenizer.json").write_text(tokenizer_json(request.param))
    return str(path / "tokenizer.json")


def test_text_encodes_to_one_token_for_each_symbol(proctool: Run, tokenizer: str) -> None:
    import datasets

    said = proctool(
        *("generate", "sorting:items=6,symbols=20", "--samples", 200, "--as-text", "--tokenizer", tokenizer),
        *("-o", "made.jsonl"),
    )
    assert said.code == 0, said
    found = datasets.load_dataset("json", data_files="made.jsonl", split="train", cache_dir="cache")
    encoded = np.array(load_tokenizer(tokenizer).encode_batch(list(found["text"])))
    described = json.loads(Path("made.jsonl.json").read_text())["about"]["text"]
    ids = described["token_ids"]
    assert len(set(ids)) == len(set(described["words"])) == 22
    tokens = np.searchsorted(ids, encoded)
    assert ids == sorted(ids)
    assert np.array_equal(np.array(ids)[tokens], encoded)
    assert np.array_equal(tokens, Stream(parse_tasks("sorting:items=6,symbols=20")).read(0, 200).tokens)


def test_text_that_would_be_read_otherwise_is_refused(tmp_path: Path) -> None:
    """Words are checked one by one; what they do together is seen when a text is written."""
    words = words_for(load_tokenizer("characters"), 22)
    merging = words_for(load_tokenizer("bytes"), 22)
    mixed = type(words)(words.tokenizer, merging.ids, words.texts_of_ids, words.before, words.between)
    with pytest.raises(OptionError, match="encodes a text of its own words as other tokens"):
        mixed.texts(np.arange(22)[None])
