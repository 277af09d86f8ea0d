"""Names of files and folders that are not UTF-8: read and written as they are, shown and recorded as `x\\xff`."""

import json
import os

import pytest

from proctool import artifact
from proctool.corpora import load_tokenizer, open_corpus, open_store
from proctool.errors import in_utf8, reported

ODD = os.fsdecode(b"x\xff\xe9")
SHOWN = r"x\xff\xe9"
SMALL = ("--model", "1x1x8", "--steps", 2, "--batch-size", 2, "--eval-samples", 2, "--eval-every", 2)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / f"d{ODD}"
    made.mkdir()
    lines = [json.dumps({"text": f"document {number}"}) + "\n" for number in range(100)]
    (made / f"{ODD}.jsonl").write_text("".join(lines))
    return made


def write_parquet(path):
    import pyarrow
    import pyarrow.parquet

    with path.open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.table({"text": [f"document {number}" for number in range(100)]}), file)


@pytest.mark.parametrize("what", ["folder", "file", "pattern", "parquet"])
def test_corpora_of_such_names_are_read(folder, what):
    write_parquet(folder / f"{ODD}.parquet")
    named = {"folder": "", "file": f"/{ODD}.jsonl", "pattern": "/*.jsonl", "parquet": f"/{ODD}.parquet"}[what]
    store = open_store(open_corpus(f"{folder}{named}"), load_tokenizer("bytes"), 16)
    assert store.count("train", "documents") + store.count("validation", "documents") == (
        200 if what == "folder" else 100
    )


def test_a_run_with_such_names_is_recorded_resumed_and_used(proctool, folder, tmp_path):
    words = (
        "pretrain",
        "--corpus",
        folder,
        "--context",
        16,
        *SMALL,
        "-o",
        f"m{ODD}.safetensors",
        "--run-dir",
        f"r{ODD}",
    )
    first = proctool(*words)
    assert first.code == 0
    assert f"wrote m{SHOWN}.safetensors" in first.err
    assert "already complete" in proctool(*words).err
    assert artifact.read_header(tmp_path / f"m{ODD}.safetensors").metadata["corpus"] == f"d{SHOWN}"
    assert (tmp_path / f"r{ODD}" / "run.log").read_text(encoding="utf-8")
    scored = proctool("eval", "perplexity", f"m{ODD}.safetensors", "--corpus", folder, "--json")
    assert json.loads(scored.out)["documents"] > 0


def test_what_a_library_cannot_open_is_one_line(proctool, folder):
    proctool("pretrain", "--corpus", folder, "--context", 16, *SMALL, "-o", "m.safetensors")
    said = proctool("export", "m.safetensors", f"hf{ODD}")
    assert said.code == 1
    assert "the name is not UTF-8; rename" in said.line


def test_other_encoding_errors_keep_their_traceback():
    with pytest.raises(UnicodeEncodeError), reported():
        "é".encode("ascii")


@pytest.mark.parametrize(
    ("text", "shown"), [("é∑𝄞", "é∑𝄞"), ("a\udcffb", r"a\xffb"), ("\ud83d", r"\ud83d"), ("plain", "plain")]
)
def test_text_that_utf8_can_hold(text, shown):
    assert in_utf8(text) == shown
    assert json.loads(artifact.canonical(text)) == shown
