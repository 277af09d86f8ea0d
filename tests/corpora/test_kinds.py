import bz2
import csv
import gzip
import io
import json
import lzma

import pytest

from proctool.corpora import load_tokenizer, open_corpus, open_store, tables
from proctool.corpora.compression import opened
from proctool.errors import CorpusError

TEXTS = ["one, two", 'a "quoted" text', "two\nlines\n", "ünïcode ∑", "x"]
ROWS = [{"id": number, "text": text, "meta": {"text": text.upper(), "a.b": text}} for number, text in enumerate(TEXTS)]


def read(path, **options):
    return [document.content.decode() for document in open_corpus(str(path), **options).documents()]


def as_table(delimiter):
    out = io.StringIO()
    written = csv.writer(out, delimiter=delimiter)
    written.writerows([("id", "text"), *((row["id"], row["text"]) for row in ROWS)])
    return ("\ufeff" + out.getvalue()).encode()


def as_lines():
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def write_arrow(path, rows, stream):
    import pyarrow

    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as sink:
        new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)


def write(path, name):
    """One corpus in each form that is read."""
    import pyarrow
    import pyarrow.parquet

    path = path / name
    if name.endswith(".arrow"):
        write_arrow(path, ROWS, stream="stream" in name)
    elif name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        stem, _, packed = name.partition(".z.")
        made = {
            "csv": lambda: as_table(","), "tsv": lambda: as_table("\t"), "jsonl": as_lines,
            "json": lambda: json.dumps(ROWS, indent=1).encode(),
        }[stem.rpartition(".")[2]]()  # fmt: skip
        path = path.with_name(name.replace(".z.", "."))
        path.write_bytes({"": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[packed](made))
    return path


FORMS = [
    "a.csv", "a.tsv", "a.json", "a.jsonl", "file.arrow", "stream.arrow", "a.parquet", "a.csv.z.gz", "a.json.z.bz2",
    "a.jsonl.z.bz2", "a.jsonl.z.xz", "a.tsv.z.xz",
]  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("whole", [True, False], ids=["file", "folder"])
def test_every_kind_gives_the_same_documents(tmp_path, name, whole):
    path = write(tmp_path, name)
    assert read(path if whole else tmp_path) == TEXTS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "file.arrow", "stream.arrow", "a.parquet"])
def test_names_with_dots_descend(tmp_path, name):
    path = write(tmp_path, name)
    assert read(path, text_field="meta.text") == [text.upper() for text in TEXTS]
    assert read(path, text_field="meta.a.b") == TEXTS
    with pytest.raises(CorpusError, match=r'no field "meta\.body" \(its fields: id, text, meta\.text, meta\.a\.b\)'):
        read(path, text_field="meta.body")


def test_a_field_with_a_dot_in_its_name_wins(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"meta.text": "whole", "meta": {"text": "within"}}\n{"meta": {"text": "within"}}\n{"meta": null}\n'
    )
    assert read(path, text_field="meta.text") == ["whole", "within"]
    (tmp_path / "b.csv").write_text("meta.text\nwhole\n")
    assert read(tmp_path / "b.csv", text_field="meta.text") == ["whole"]


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_a_json_list_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, chunk, blank):
    monkeypatch.setattr(tables, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(f"{blank}[{blank}" + f"{blank},{blank}".join(json.dumps(row) for row in ROWS) + f"{blank}]{blank}")
    assert read(path) == TEXTS
    path.write_text(f"{blank}[{blank}]{blank}")
    assert read(path) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'[{"text": "a"}', "not a JSON list of records after record 1"),
        ("a.json", b'[{"text": "a"} {"text": "b"}]', "after record 1 .expected , or ]"),
        ("a.json", b'[{"text": "a"}] more', "text follows the list"),
        ("a.json", b'[{"text": "\xff"}]', "not UTF-8 after record 0"),
        ("a.json", b'["a"]', "record 1: a JSON str, expected an object"),
        ("a.csv", b"id,body\n1,x\n", r'line 1: no field "text" \(its fields: id, body\)'),
        ("a.csv", b"text,id\nx,1\ny\n", "line 3: 1 fields, but the first line has 2"),
        ("a.csv", b"text\n" + b"caf\xe9\n", r"line 2: not UTF-8 at byte 8; convert it"),
        ("a.csv", b'text\n"open\n', "line 2: not CSV .*end of data"),
        ("a.arrow", b"nothing of the kind", "not a complete arrow file"),
        ("a.jsonl.bz2", b"BZh91AY&SY nothing", "compressed data is damaged"),
        ("a.jsonl.xz", lzma.compress(b'{"text": "a"}\n' * 99)[:-9], "compressed data is damaged"),
        ("a.txt", "text".encode("utf-16"), "UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8"),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16-le"), "UTF-16 without a byte order mark.*iconv -f UTF-16LE"),
        ("a.csv", "text\na\n".encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("enwik8", "text".encode("utf-16"), "UTF-16, not UTF-8"),
        ("notes", b"PK\x03\x04zip", "a zip archive; unpack it"),
        ("data.bin", b"\0\1\2\3" * 99, "binary, not text; proctool reads .txt"),
        ("data.xyz", b"plain\n", r"files that end in \.xyz are not supported; proctool reads .*to end in \.txt"),
        ("data.txt", b"PAR1....", r"a parquet file; rename it to end in \.parquet"),
    ],
)  # fmt: skip
def test_what_is_not_what_its_name_says_is_named(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=said) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["enwik8", "part.00000-of-00512", ".hidden", "Main.kt", "a.xml", "a.TXT", "a.PY"])
def test_text_under_other_names_is_read_where_it_is_named(tmp_path, name):
    (tmp_path / name).write_text("text")
    assert read(tmp_path / name) == ["text"]


def test_bad_rows_of_a_table_are_left_out_alone(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,id\none,1\n\ncaf\xe9,2\nthree\n"f"our,4\nfive,5\n')
    assert read(path, skip_bad=True) == ["one", "five"]


def test_reading_a_table_is_part_of_the_identity(tmp_path):
    (tmp_path / "a.csv").write_text("text\nx\n")
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    assert open_corpus(str(tmp_path / "a.csv")).parts[0].identity["kinds"] == ["table"]
    assert "kinds" not in open_corpus(str(tmp_path / "a.jsonl")).parts[0].identity


@pytest.mark.parametrize("name", ["a.bz2", "a.xz", "a.gz"])
def test_compressed_text_is_read(tmp_path, name):
    pack = {"a.bz2": bz2.compress, "a.xz": lzma.compress, "a.gz": gzip.compress}[name]
    (tmp_path / name).write_bytes(pack(b"text") + pack(b" and more"))
    with opened(str(tmp_path / name)) as file:
        assert file.read() == b"text and more"


@pytest.mark.parametrize(
    "name",
    ["./nosuch/corpus", "../nosuch", "~/nosuch/corpus", "owner/corpus.jsonl", "owner/corpus.txt.gz", "here/corpus"],
)
def test_a_path_is_never_looked_for_on_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "corpora").mkdir()
    with pytest.raises(CorpusError, match="no such file or folder") as caught:
        open_corpus(name)
    if name.startswith("here"):
        assert "did you mean here/corpora?" in str(caught.value)
        assert "write hub:here/corpus" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"text": ""}\n{"text": null}\n'])
def test_a_corpus_without_text_says_so(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match="all of its documents are empty"):
        open_store(open_corpus(str(path)), load_tokenizer("bytes"), 16)
