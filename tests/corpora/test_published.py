"""TinyStories and JavaCorpus by name: text files and records of the hub's schema give the same documents."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from proctool.corpora import hub, load_tokenizer, open_corpus, open_store
from proctool.errors import CorpusError
from tests.corpora.conftest import prose

STORIES = [f"Once there was a dog.\n\nIt ran. {prose(n)}".strip() for n in range(12)]
PROGRAMS = [["package", "a", ";", "<EOL>", "class", f"B{n}", "{", "}"] for n in range(12)]
JAVA = [f"package a ;\nclass B{n} {{ }}" for n in range(12)]
SPLITS = {"train": slice(0, 8), "validation": slice(8, 10), "test": slice(10, 12)}
FILES = {"train": "train", "validation": "valid", "test": "test"}


def texts(corpus, split):
    return [document.content.decode() for document in corpus.documents(split)]


def stories_as_text(folder):
    for split, part in SPLITS.items():
        (folder / f"TinyStories-{FILES[split]}.txt").write_text("\n<|endoftext|>\n".join(STORIES[part]))


def stories_as_parquet(folder):
    for split, part in SPLITS.items():
        pyarrow.parquet.write_table(pyarrow.table({"text": STORIES[part]}), folder / f"{split}-00000-of-00001.parquet")


def java_as_text(folder):
    for split, part in SPLITS.items():
        lines = (f"<s> {' '.join(tokens)} </s>\n" for tokens in PROGRAMS[part])
        (folder / f"{ {'validation': 'dev'}.get(split, split) }.txt").write_text("".join(lines))


def java_as_parquet(folder):
    for split, part in SPLITS.items():
        table = pyarrow.table({"id": list(range(len(PROGRAMS[part]))), "code": PROGRAMS[part]})
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def java_as_lines(folder):
    for split, part in SPLITS.items():
        rows = (json.dumps({"id": 0, "code": ["<s>", *tokens, "</s>"]}) + "\n" for tokens in PROGRAMS[part])
        (folder / f"{split}.jsonl").write_text("".join(rows))


@pytest.mark.parametrize(
    ("name", "write", "wanted"),
    [
        ("tinystories", stories_as_text, STORIES),
        ("tinystories", stories_as_parquet, STORIES),
        ("javacorpus", java_as_text, JAVA),
        ("javacorpus", java_as_parquet, JAVA),
        ("javacorpus", java_as_lines, JAVA),
    ],
)
def test_a_corpus_is_read_from_local_files(name, write, wanted, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder)
    corpus = open_corpus(f"{name}:{folder}")
    assert set(corpus.splits) == set(SPLITS)
    for split, part in SPLITS.items():
        assert texts(corpus, split) == wanted[part]
    store = open_store(corpus, load_tokenizer("bytes"), 16)
    assert store.count("train", "documents") == 8


def test_the_hubs_repositories_are_asked_by_name(monkeypatch, tmp_path):
    asked = []

    def ask(name, sources):
        asked.append([(split, source.path, source.configuration) for split, source in sources])
        return {split: {"revision": "one", "files": 2} for split, _ in sources}

    monkeypatch.setattr(hub, "_ask_the_hub", ask)
    java = open_corpus("javacorpus", cache_dir=tmp_path)
    stories = open_corpus("tinystories", cache_dir=tmp_path)
    assert [sources[0] for sources in asked] == [
        ("train", "google/code_x_glue_cc_code_completion_token", "java"), ("train", "roneneldan/TinyStories", None),
    ]  # fmt: skip
    assert [part.is_tokens for part in (*java.parts, *stories.parts)] == [True] * 4 + [False] * 4
    assert "tokens" not in stories.parts[0].identity, "stores of other corpora keep their keys"


def test_a_wrong_record_is_named(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"code": ["a", 1]}) + "\n")
    with pytest.raises(CorpusError, match=r'record 1: field "code" holds list, not text'):
        texts(open_corpus(f"javacorpus:{tmp_path}"), None)
