"""The kind of a file, by its suffix and its first bytes."""

from __future__ import annotations

import re

from proctool.corpora import compression
from proctool.errors import CorpusError

_KINDS = {
    "text": (".txt", ".text", ".tokens", ".raw", ".tex"),
    "source": (
        ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".rs", ".go", ".java", ".js", ".ts", ".rb", ".jl", ".r",
        ".sh", ".sql", ".md", ".rst", ".html", ".css", ".yaml", ".toml",
    ),
    "lines": (".jsonl", ".ndjson", ".json"),
    "table": (".csv", ".tsv"),
    "parquet": (".parquet",),
    "arrow": (".arrow",),
}  # fmt: skip
_KIND_OF = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes}
RECORDS = ("lines", "table", "parquet", "arrow")
"""Kinds of files that have records with fields."""
_MORE_TEXT = (
    ".ada .adb .adoc .ads .agda .asciidoc .asm .awk .bash .bat .bib .cfg .clj .cls .cmake .cmd .conf .cr .cs .cu .cuh "
    ".cxx .d .dart .el .erl .ex .exs .f .f77 .f90 .f95 .fish .for .fs .fsx .gradle .graphql .groovy .hh .hs .htm .hxx "
    ".idr .ini .jsx .kt .kts .lean .less .lisp .lhs .log .lua .m .mak .markdown .mjs .mk .ml .mli .mm .nim .nix "
    ".org .pas .patch .diff .php .pl .pm .po .properties .proto .ps1 .pyx .pxd .rkt .s .sbt .scala .scm .scss .sgml "
    ".srt .sty .sv .svelte .svg .swift .tcl .textile .tf .thrift .thy .tsx .v .vb .vhd .vhdl .vim .vtt .vue .wiki .xml "
    ".xhtml .xsl .yml .zig .zsh"
)
_TEXT_WHERE_NAMED = frozenset(_MORE_TEXT.split())
"""Suffixes of text files that are read if a file or pattern names them, but not from a folder."""
_ENDING = re.compile(r"\.[a-z][a-z0-9_+-]{0,11}$", re.IGNORECASE)
WE_READ = (
    "proctool reads .txt, source code such as .py and .md, .jsonl, .json, .csv, .tsv (these also .gz, .bz2, .xz or "
    ".zst), .parquet and .arrow"
)

_BINARY = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x1f\x8b": "compressed with gzip; rename it to end in .gz",
    b"BZh": "compressed with bzip2; rename it to end in .bz2",
    b"\xfd7zXZ": "compressed with xz; rename it to end in .xz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; rename it to end in .zst",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"PAR1": "a parquet file; rename it to end in .parquet",
    b"ARROW1": "an arrow file; rename it to end in .arrow",
    b"%PDF": "a PDF document; convert it to text",
    b"SQLite format 3": "an SQLite database; export its text",
    b"\x93NUMPY": "a numpy array; give a text file",
}
_HEAD = 1 << 12


def kind_of(name: str) -> str | None:
    """The format by a file's suffix, without any compression suffix; None if proctool does not read it."""
    stem = compression.without_suffix(name)
    dot = stem.rfind(".")
    return _KIND_OF.get(stem[dot:].lower()) if dot > stem.rfind("/") else None


def require_known(path: str) -> None:
    """Raise CorpusError if proctool does not read files with this suffix.

    A file without a suffix, such as enwik8, may be text (see `require_text`).
    """
    if kind_of(path) is None:
        stem = compression.without_suffix(path)
        ending = _ENDING.search(stem[stem.rfind("/") + 2 :])  # a name may begin with a dot
        if ending and ending.group().lower() not in _TEXT_WHERE_NAMED:
            require_text(path)
            raise CorpusError(
                f"{path}: files that end in {ending.group()} are not supported; {WE_READ}; rename a plain "
                "text file to end in .txt"
            )


def require_text(path: str) -> None:
    """Raise CorpusError if the first bytes of a file are not text in UTF-8 or a single-byte encoding."""
    if path.lower().endswith((".py", ".pyi")):
        return  # a source file may declare any encoding (PEP 263)
    try:
        with compression.opened(path) as file:
            head = file.read(_HEAD)
    except compression.broken_file_errors():
        return  # reading the file raises the error
    what = _other_than_text(head)
    if what:
        raise CorpusError(f"{path}: {what}")


def _other_than_text(head: bytes) -> str | None:
    if known := next((what for magic, what in _BINARY.items() if head.startswith(magic)), None):
        return known
    if len(head) > 262 and head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    for marks, code in (((b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "UTF-32"), ((b"\xff\xfe", b"\xfe\xff"), "UTF-16")):
        if head.startswith(marks):
            return f"{code}, not UTF-8; convert it: iconv -f {code} -t UTF-8"
    if head.count(0) * 20 > len(head):
        shares = [head[first::2].count(0) * 2 / len(head) for first in (0, 1)]
        if max(shares) > 0.7 and min(shares) < 0.1:
            code = "UTF-16LE" if shares[1] > shares[0] else "UTF-16BE"
            return f"UTF-16 without a byte order mark, not UTF-8; convert it: iconv -f {code} -t UTF-8"
        return f"binary, not text; {WE_READ}"
    return None
