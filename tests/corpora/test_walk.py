import os

import pytest

from proctool.corpora import open_corpus
from proctool.errors import CorpusError


def read(path, **options):
    return [document.content for document in open_corpus(str(path), **options).documents()]


@pytest.fixture
def linked(tmp_path):
    """data/ holds a.txt, and by links: a folder beside it, a file, itself and its parent."""
    data, far = tmp_path / "data", tmp_path / "far" / "deep"
    for folder in (data / "sub", far):
        folder.mkdir(parents=True)
    (data / "a.txt").write_text("a")
    (data / "sub" / "s.txt").write_text("s")
    (far / "f.txt").write_text("f")
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "one.txt").write_text("one")
    (data / "z").symlink_to("../far")
    (data / "one.txt").symlink_to("../single/one.txt")
    (data / "sub" / "loop").symlink_to("..")
    return data


@pytest.mark.parametrize("pattern", ["", "/**/*.txt"])
def test_links_to_files_and_folders_are_followed_and_cycles_end(linked, pattern):
    corpus = open_corpus(f"{linked}{pattern}")
    assert [document.content for document in corpus.documents()] == [b"a", b"one", b"s", b"f"]
    names = [span.file.name for part in corpus.parts for span in part.spans]
    assert names == ["a.txt", "one.txt", "sub/s.txt", "z/deep/f.txt"]


def test_a_folder_of_links_to_folders_is_a_corpus(linked, tmp_path):
    views = tmp_path / "views"
    views.mkdir()
    (views / "x").symlink_to(linked / "sub")
    (views / "y").symlink_to(tmp_path / "single")
    assert sorted(read(views)) == sorted([b"s", b"a", b"f", b"one"])
    (tmp_path / "itself").symlink_to(views)
    assert sorted(read(tmp_path / "itself")) == sorted(read(views))


def test_a_file_that_links_reach_again_is_read_once_under_its_own_name(linked, tmp_path):
    (linked / "0.txt").symlink_to("a.txt")
    (linked / "00").symlink_to("sub")
    corpus = open_corpus(str(linked))
    names = [span.file.name for part in corpus.parts for span in part.spans]
    assert names == ["a.txt", "one.txt", "sub/s.txt", "z/deep/f.txt"]
    assert corpus.notes == ("1 file reached twice through links; read once",)


def test_equal_files_without_links_are_all_read(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("same")
    os.link(tmp_path / "a.txt", tmp_path / "c.txt")
    assert read(tmp_path) == [b"same"] * 3
    assert open_corpus(str(tmp_path)).notes == ()


def test_links_that_lead_nowhere_are_named(linked):
    (linked / "gone").symlink_to("/nowhere/at/all")
    assert open_corpus(str(linked)).notes[0].endswith("gone: a link to /nowhere/at/all, which does not exist; skipped")
    (linked / "gone.jsonl").symlink_to("missing.jsonl")
    with pytest.raises(CorpusError, match=r"gone\.jsonl: a link to missing\.jsonl, which does not exist; restore"):
        open_corpus(str(linked))
    with pytest.raises(CorpusError, match=r"gone\.jsonl: a link to missing\.jsonl, which does not exist"):
        open_corpus(str(linked / "gone.jsonl"))


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(linked):
    (linked / "sub").chmod(0)
    try:
        with pytest.raises(CorpusError, match="sub: Permission denied"):
            open_corpus(str(linked))
    finally:
        (linked / "sub").chmod(0o700)
