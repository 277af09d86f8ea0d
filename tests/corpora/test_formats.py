import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctool.corpora import documents, formats, open_corpus
from proctool.corpora.files import listed, parts_of
from proctool.errors import CorpusError
from tests.corpora.conftest import prose, write_gz


def contents(corpus):
    return [document.content for document in corpus.documents()]


def read(path, **options):
    return contents(open_corpus(str(path), **options))


def write_as(kind, path, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "jsonl":
        path.write_bytes(lines)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines))
    elif kind == "jsonl.zst":
        zstandard = pytest.importorskip("zstandard")
        half = len(lines) // 2  # two frames, as pzstd and appending make them
        path.write_bytes(zstandard.compress(lines[:half]) + zstandard.compress(lines[half:]))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_every_format_gives_the_same_documents(tmp_path, texts, kind):
    path = tmp_path / f"corpus.{kind}"
    write_as(kind, path, [{"id": number, "body": text} for number, text in enumerate(texts)])
    assert read(path, text_field="body") == [text.encode() for text in texts]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_a_missing_field_is_named_with_those_there_are(tmp_path, kind):
    path = tmp_path / f"corpus.{kind}"
    write_as(kind, path, [{"id": 1, "body": "x"}])
    with pytest.raises(CorpusError, match=rf'corpus\.{kind}.*: no field "text" \(its fields: id, body\); choose one'):
        read(path)


@settings(deadline=None, max_examples=80)
@given(
    # A zero byte may make a short file look like UTF-16.
    lines=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40), max_size=25
    ),
    block=st.integers(1, 200),
    kind=st.sampled_from(["jsonl", "txt"]),
)
def test_stretches_of_a_file_cover_every_document_once(tmp_path_factory, lines, block, kind):
    path = tmp_path_factory.mktemp("stretches") / f"corpus.{kind}"
    body = "".join((json.dumps({"text": line}) if kind == "jsonl" else line) + "\n" for line in lines).encode()
    path.write_bytes(body)
    pieces = formats.stretches(str(path), len(body), block, None)
    found = [d.content for start, stop in pieces for d in formats.read(str(path), start, stop, "text")]
    if kind == "jsonl":
        assert found == [line.encode() for line in lines if line]
    else:
        assert b"".join(found) == body


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["é", "∑", "a", "𝄞"]), min_size=1, max_size=60), st.integers(5, 30))
def test_a_line_without_end_is_cut_between_characters(tmp_path_factory, letters, longest):
    path = tmp_path_factory.mktemp("endless") / "endless.txt"
    path.write_text("".join(letters), encoding="utf-8")
    before = formats.TEXT_DOCUMENT
    formats.TEXT_DOCUMENT = longest
    try:
        found = list(formats.read(str(path), 0, None, "text"))
    finally:
        formats.TEXT_DOCUMENT = before
    assert not any(document.problem for document in found)
    assert b"".join(document.content for document in found).decode() == "".join(letters)
    assert all(document.size <= 3 * longest for document in found)


def test_a_long_text_is_cut_at_blank_lines(tmp_path):
    path = tmp_path / "book.txt"
    paragraph = "word " * 1000 + "\n\n"
    path.write_text(paragraph * 60)
    found = read(path)
    assert len(found) > 3
    assert b"".join(found) == path.read_bytes()
    assert all(piece.endswith(b"\n\n") for piece in found)


def test_a_single_book_has_a_validation_split_and_a_short_text_is_one_document(tmp_path):
    (tmp_path / "book.txt").write_text(
        "".join(prose(seed) + "\n" * (seed % 5 == 0) for seed in range(4000)), encoding="utf-8"
    )
    corpus = open_corpus(str(tmp_path / "book.txt"))
    held = sum(document.size for document in corpus.documents("validation"))
    assert 0.01 < held / corpus.stored_bytes < 0.12
    (tmp_path / "short.txt").write_text((prose(1) + "\n") * 300, encoding="utf-8")
    assert len(read(tmp_path / "short.txt")) == 1


def test_small_files_are_read_together_and_large_ones_in_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "SMALLEST_BLOCK", 1000)
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text("x" * 300 + "\n")
    (tmp_path / "9.jsonl").write_text('{"text": "hello"}\n' * 200)
    parts = parts_of(listed(sorted((path, path.name) for path in tmp_path.iterdir())))
    sizes = [len(part.spans) for part in parts]
    assert sizes == [3, 3, 2, 1, 1, 1, 1]
    assert all(part.size <= 1000 for part in parts)


def test_folders_take_files_with_known_suffixes_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("z.txt", "b/a.py", "a.txt", "image.png", ".hidden/c.txt", "b/.c.txt"):
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == [b"a.txt", b"b/a.py", b"z.txt"]
    assert read(f"{tmp_path}/*.txt") == [b"a.txt", b"z.txt"]
    assert read(f"{tmp_path}/**/*.py") == [b"b/a.py"]


def test_source_is_kept_byte_for_byte(tmp_path):
    path = tmp_path / "latin.py"
    path.write_bytes(b"# coding: latin-1\ns = '\xe9'\r\n")
    assert read(path) == [path.read_bytes()]


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text('{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    assert read(path)[0].decode() == "a\N{REPLACEMENT CHARACTER}b \N{GRINNING FACE}"


def test_empty_and_null_texts_are_no_documents(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": ""}\n\n{"text": null}\n{"text": "x"}\n')
    assert read(path) == [b"x"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\n{"text": \n', r"line 2: not a JSON object on one line"),
        (b'[{"text": "a"}]\n', r"line 1: a JSON list, expected an object"),
        (b'{"text": 5}\n', r'line 1: field "text" holds int, not text'),
        (b'{"text": "a"}\n{"text": "\xff"}\n', r"line 2: not UTF-8 at byte 24; convert it"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, said):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"bad\.jsonl: {said}"):
        read(path)


def test_text_that_is_not_utf8_is_named_with_the_place(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 au lait\n")
    with pytest.raises(CorpusError, match=r"latin\.txt: not UTF-8 at byte 3 \(0xe9\); convert it \(iconv"):
        read(path)


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_compressed_files_broken_in_the_middle_give_what_comes_before(tmp_path, kind, damage):
    # Text that compresses badly, so that the break lies far into the documents.
    import random

    rng = random.Random(0)
    rows = [{"text": f"{number} {rng.getrandbits(4000):x}"} for number in range(2000)]
    path = tmp_path / f"broken.{kind}"
    write_as(kind, path, rows)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] if damage == "cut" else whole[:middle] + b"\0" * 64 + whole[middle + 64 :])
    found = []
    with pytest.raises(CorpusError) as caught:
        found.extend(d.content.decode() for d in open_corpus(str(path)).documents())
    told = str(caught.value)
    assert told.startswith(str(path))
    # Garbled data may still decompress, to something that is no JSON.
    broken = "its compressed data is damaged or cut off" in told
    assert broken or (damage == "garbled" and ("not a JSON object" in told or "not UTF-8" in told))


def test_a_cut_off_gzip_keeps_the_documents_before_the_cut(tmp_path, texts):
    path = write_gz(tmp_path / "cut.jsonl.gz", [{"text": text * 30} for text in texts])
    path.write_bytes(path.read_bytes()[:-20])
    found = []
    with pytest.raises(CorpusError, match=r"cut\.jsonl\.gz: its compressed data is damaged or cut off"):
        found.extend(document.content for document in open_corpus(str(path)).documents())
    assert found
    assert found == [(text * 30).encode() for text in texts][: len(found)]


def test_damaged_parquet_is_named(tmp_path):
    path = tmp_path / "broken.parquet"
    write_as("parquet", path, [{"text": "x" * 1000}] * 100)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorpusError, match=r"broken\.parquet: not a complete parquet file"):
        read(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pyhton", r'no corpus, file or folder "pyhton" \(did you mean "python"\?\)'),
        ("/nowhere/at/all", "no such file or folder"),
        ("/nowhere/*.txt", "no file matches this pattern"),
        ("mathematics:/nowhere", "no train-easy/MODULE.txt"),
        ("mathematics:7", "at least 60 questions"),
    ],
)
def test_unknown_names_are_explained(name, said):
    with pytest.raises(CorpusError, match=said):
        open_corpus(name)


def test_a_folder_of_other_files_says_what_it_holds(tmp_path):
    (tmp_path / "image.png").write_text("x")
    with pytest.raises(CorpusError, match=r"it has \.png"):
        open_corpus(str(tmp_path))


def test_the_standard_library_is_read_whole_with_its_odd_encodings():
    corpus = open_corpus("python")
    labels = [span.file.name for part in corpus.parts for span in part.spans]
    assert labels == sorted(labels)
    assert "ast.py" in labels
    assert not any("site-packages" in name for name in labels)
    assert corpus.held_out == 0.05
