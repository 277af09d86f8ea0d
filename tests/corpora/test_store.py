import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctool import artifact
from proctool.corpora import documents, load_tokenizer, open_corpus, open_store, shards
from proctool.corpora.documents import Corpus, Document, Part, split_of
from proctool.corpora.rows import whole_documents
from proctool.errors import CorpusError
from tests.corpora.conftest import math_tree, prose, write_gz

BYTES = load_tokenizer("bytes")


def everything(rows, batch=7):
    """All rows one after another, read out of order and in batches."""
    order = np.random.default_rng(0).permutation(len(rows))
    tokens = np.empty((len(rows), rows.context), np.int64)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        tokens[chosen] = rows.read(chosen).tokens
    return tokens


def joined(corpus, split):
    """Documents end to end as the byte tokenizer has them."""
    return np.concatenate([[*document.content, 256] for document in corpus.documents(split)])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("context", [2, 33, 64, 5000])
def test_rows_are_the_documents_end_to_end(jsonl, context):
    corpus = open_corpus(str(jsonl))
    store = open_store(corpus, BYTES, context)
    assert len(store.shards) > 5
    flat = everything(store.split()).ravel()
    whole = joined(corpus, "train")
    assert len(whole) - len(flat) < context, "only the tail is lost"
    assert np.array_equal(flat, whole[: len(flat)])


def test_counts_are_those_of_the_documents(jsonl):
    corpus = open_corpus(str(jsonl))
    store = open_store(corpus, BYTES, 64)
    for split in ("train", "validation"):
        rows, found = store.split(split), list(corpus.documents(split))
        assert rows.documents == len(found) > 0
        assert rows.bytes == sum(document.size for document in found)
        assert rows.tokens == rows.bytes + rows.documents


def test_targets_are_all_but_the_first(jsonl):
    samples = open_store(open_corpus(str(jsonl)), BYTES, 16).split().read(np.array([3, 0, 3]))
    assert samples.tokens.dtype == np.uint16
    assert samples.targets.shape == (3, 16)
    assert not samples.targets[:, 0].any()
    assert samples.targets[:, 1:].all()
    assert np.array_equal(samples.tokens[0], samples.tokens[2])


def test_no_document_and_no_duplicate_crosses_the_split(tmp_path):
    texts = [prose(seed) for seed in range(300)]
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts + texts[::-1]), encoding="utf-8")
    corpus = open_corpus(str(path))
    train, held = ({document.content for document in corpus.documents(split)} for split in ("train", "validation"))
    assert train
    assert held
    assert not train & held
    assert len(train | held) == 300


def test_the_split_takes_about_the_fraction_it_says():
    digests = [Document(str(seed).encode()).digest for seed in range(20000)]
    held = sum(split_of(digest, 0.05) == "validation" for digest in digests)
    assert 850 < held < 1150
    assert all(split_of(d, 0.05) == "validation" for d in digests if split_of(d, 0.01) == "validation")


@pytest.mark.usefixtures("small_blocks")
def test_a_budget_is_a_prefix_and_builds_no_more(jsonl, tmp_path):
    corpus = open_corpus(str(jsonl))
    some = open_store(corpus, BYTES, 64, budget=3000, cache_dir=tmp_path / "some")
    full = open_store(corpus, BYTES, 64, cache_dir=tmp_path / "full")
    assert len(some.split()) == -(-3000 // 64)
    assert len(list((tmp_path / "some").rglob("*.safetensors"))) < len(list((tmp_path / "full").rglob("*.safetensors")))
    assert np.array_equal(everything(some.split()), everything(full.split())[: len(some.split())])
    held = everything(some.split("validation")) if some.count("validation") >= 64 else np.empty((0, 64))
    assert np.array_equal(held, everything(full.split("validation"))[: len(held)])
    grown = open_store(corpus, BYTES, 64, cache_dir=tmp_path / "some")
    assert grown.content == full.content
    assert open_store(corpus, BYTES, 64, budget=3000, cache_dir=tmp_path / "full").content == some.content


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["many parts", "one part"])
def test_an_interrupted_build_goes_on_to_the_same_contents(jsonl, tmp_path, kind):
    if kind == "one part":  # compressed files cannot be entered in the middle
        jsonl = write_gz(tmp_path / "corpus.jsonl.gz", map(json.loads, jsonl.read_text(encoding="utf-8").splitlines()))
    corpus = open_corpus(str(jsonl))
    assert (len(corpus.parts) == 1) == (kind == "one part")
    whole = open_store(corpus, BYTES, 64, cache_dir=tmp_path / "whole")
    calls = 0

    def interrupt(progress):
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(corpus, BYTES, 64, cache_dir=tmp_path / "broken", progress=interrupt)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken").rglob("*.safetensors")}
    assert 0 < len(kept) < len(whole.shards)
    again = open_store(corpus, BYTES, 64, cache_dir=tmp_path / "broken")
    assert again.content == whole.content
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items()), "nothing is made twice"
    assert not list((tmp_path / "broken").rglob("*.partial"))


@pytest.mark.usefixtures("small_blocks")
def test_shards_that_went_missing_or_were_cut_off_are_made_again(jsonl):
    corpus = open_corpus(str(jsonl))
    store = open_store(corpus, BYTES, 64)
    (store.folder / store.shards[2].file).unlink()
    again = open_store(corpus, BYTES, 64)
    assert again.content == store.content
    again.verify()
    path = store.folder / store.shards[3].file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorpusError, match="delete it and open the corpus again"):
        everything(open_store(corpus, BYTES, 64).split())
    path.unlink()
    assert open_store(corpus, BYTES, 64).content == store.content


def test_the_second_opening_builds_nothing(jsonl):
    first = open_store(open_corpus(str(jsonl)), BYTES, 64)
    os.utime(jsonl)  # touched, not changed
    second = open_store(open_corpus(str(jsonl)), BYTES, 64, progress=lambda progress: pytest.fail("built again"))
    assert second.content == first.content
    assert open_store(open_corpus(str(jsonl)), BYTES, 32, progress=lambda progress: pytest.fail("built again"))


def test_a_file_that_changes_gives_another_store(jsonl):
    first = open_store(open_corpus(str(jsonl)), BYTES, 64)
    status = jsonl.stat()
    content = jsonl.read_bytes()
    jsonl.write_bytes(content.replace(b"the", b"THE", 1))
    os.utime(jsonl, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time: only the contents differ
    assert open_store(open_corpus(str(jsonl)), BYTES, 64).content != first.content


def test_a_file_that_changes_while_it_is_read_is_an_error(jsonl):
    corpus = open_corpus(str(jsonl))
    with jsonl.open("a") as file:
        file.write("\n")
    with pytest.raises(CorpusError, match=r"corpus\.jsonl: changed while"):
        open_store(corpus, BYTES, 64)


def test_a_part_of_unchanged_files_is_not_tokenised_again(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "SMALLEST_BLOCK", 1000)
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02}.txt").write_text(prose(number, 60), encoding="utf-8")
    before = open_store(open_corpus(str(folder)), BYTES, 32)
    (folder / "07.txt").write_text(prose(99, 60), encoding="utf-8")
    after = open_store(open_corpus(str(folder)), BYTES, 32)
    assert before.content != after.content
    assert 0 < len({s.file for s in after.shards} - {s.file for s in before.shards}) <= 3


def test_too_little_text_is_said_on_opening(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("a few words\n")
    corpus = open_corpus(str(path))
    with pytest.raises(CorpusError, match=r"short\.txt: its train split has 1 document with 13 tokens, too few"):
        open_store(corpus, BYTES, 512)
    with pytest.raises(CorpusError, match=r"validation split is empty \(its only document is in train\); give .*--val"):
        open_store(corpus, BYTES, 4).split("validation")
    with pytest.raises(CorpusError, match='no split "test"; it has train, validation'):
        open_store(corpus, BYTES, 4).split("test")


def test_rows_beyond_the_last_are_an_error(jsonl):
    rows = open_store(open_corpus(str(jsonl)), BYTES, 64).split()
    with pytest.raises(IndexError):
        rows.read(np.array([len(rows)]))
    with pytest.raises(IndexError):
        rows.read(np.array([-1]))
    assert len(rows.read(np.array([], np.int64))) == 0


@pytest.mark.parametrize("shape", [{"context": 1}, {"context": 64, "budget": 0}])
def test_impossible_stores(jsonl, shape):
    with pytest.raises(CorpusError, match="at least"):
        open_store(open_corpus(str(jsonl)), BYTES, **shape)


@pytest.mark.usefixtures("small_blocks")
def test_bad_documents_stop_the_build_or_are_counted(tmp_path, texts):
    path = tmp_path / "bad.jsonl"
    lines = [json.dumps({"text": text}) for text in texts]
    lines[60] = '{"text": "cut off'
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = open_corpus(str(path))
    with pytest.raises(CorpusError, match=r"bad\.jsonl: the line at byte \d+: not a JSON object on one line"):
        open_store(corpus, BYTES, 64)
    assert list(tmp_path.rglob("*.safetensors")), "what was built is kept"
    store = open_store(open_corpus(str(path), skip_bad=True), BYTES, 64)
    assert store.skipped == 1
    assert store.count("train", "documents") + store.count("validation", "documents") == len(texts) - 1


class _Wide(type(BYTES)):
    """Bytes, with ids beyond 16 bits."""

    spec, vocab_size, eos_id = "wide", 70_000, 69_999
    definition = "{}"

    def encode_batch(self, texts):
        return [np.frombuffer(text, np.uint8).astype(np.uint32) + 69_000 for text in texts]


def test_large_vocabularies_take_32_bits(jsonl):
    samples = open_store(open_corpus(str(jsonl)), _Wide(), 64).split().read(np.arange(3))
    assert samples.tokens.dtype == np.uint32
    assert samples.tokens.min() >= 69_000


def test_questions_are_packed_whole_and_only_answers_are_targets(tmp_path):
    tokenizer = load_tokenizer("characters")
    store = open_store(open_corpus(f"mathematics:{math_tree(tmp_path / 'tree')}"), tokenizer, 64)
    rows = store.split()
    samples = rows.read(np.arange(len(rows)))
    answers = 0
    for tokens, targets in zip(samples.tokens, samples.targets, strict=True):
        text = tokenizer.decode(np.where(tokens == tokenizer.eos_id, 95, tokens)).rstrip("\n")
        lines = text.split("\n")
        questions, given = lines[::2], lines[1::2]
        assert len(questions) == len(given), "no question is cut from its answer"
        for question, answer in zip(questions, given, strict=True):
            left, right = question.removeprefix("What is ").removesuffix("?").split(" + ")
            assert int(left) + int(right) == int(answer)
        wanted = "".join(answer + "\n" for answer in given)
        assert tokenizer.decode(np.where(tokens == tokenizer.eos_id, 95, tokens)[targets]) == wanted
        answers += len(given)
    assert answers == rows.documents


def test_training_questions_that_stand_in_the_validation_split_are_left_out(tmp_path):
    corpus = open_corpus(f"mathematics:{math_tree(tmp_path / 'tree', modules=2, each=10)}")
    store = open_store(corpus, load_tokenizer("characters"), 64)
    # train-easy repeats interpolate, and train-hard and train-medium are questions of their own.
    assert store.count("validation", "documents") == 20
    assert store.count("train", "documents") == 40


@settings(deadline=None)
@given(
    shards=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=20), min_size=1, max_size=4),
    context=st.integers(2, 12),
)
def test_rows_of_whole_documents_are_full(shards, context):
    ends = [np.cumsum(lengths).astype(np.uint32) for lengths in shards]
    placed = whole_documents(ends, context)
    rows = np.arange(placed.rows)
    found = list(zip(placed.starts(rows).tolist(), placed.lengths(rows).tolist(), strict=True))
    wanted, base = [], 0
    for lengths in shards:  # the same by filling one row after another
        row: list[int] = []
        position = base
        for length in [*lengths, context + 1]:
            if row and sum(row) + length > context:
                wanted.append((position - sum(row), sum(row)))
                row = []
            if length <= context:
                row.append(length)
            position += length
        base += sum(lengths)
    assert found == wanted


def test_a_question_longer_than_a_row_is_left_out(tmp_path):
    root = math_tree(tmp_path / "tree", modules=1, each=5)
    with (root / "train-hard" / "arithmetic__m0.txt").open("a") as file:
        file.write("What is " + "1 + " * 100 + "1?\n101\n")
    rows = open_store(open_corpus(f"mathematics:{root}"), load_tokenizer("characters"), 64).split()
    answers = load_tokenizer("characters").decode(rows.read(np.arange(len(rows))).tokens.ravel())
    assert "1 + 1 + 1" not in answers


class _Numbered(Part):
    split = None
    label, identity, size = "numbered", {"numbered": 1}, 1000

    def documents(self):
        return (Document(prose(seed).encode()) for seed in range(40))


def test_any_part_will_do_and_the_name_is_no_part_of_the_contents(tmp_path):
    stores = [
        open_store(Corpus(name, (_Numbered(),), stored_bytes=1000), BYTES, 32, cache_dir=tmp_path / name)
        for name in ("one", "two")
    ]
    assert stores[0].content == stores[1].content


def test_shards_are_artifacts_that_say_what_they_are(jsonl):
    store = open_store(open_corpus(str(jsonl)), BYTES, 64)
    header = artifact.open_artifact(store.folder / store.shards[0].file, shards.KIND)
    assert header.metadata["tokenizer"] == "bytes"
    assert header.metadata["splits"]["train"]["documents"] == store.count("train", "documents")
