"""The text of a record: a field by its name, or a nested field by a name with dots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from proctool.corpora.documents import Document

SKIP_HINT = "fix it, or skip such documents with --skip-bad"
RECODE_HINT = "convert it (iconv -f LATIN1 -t UTF-8), or skip such documents with --skip-bad"
MISSING = object()


def field_of(record: Mapping[str, Any], name: str) -> Any:
    """The value of field `name`; `meta.text` is field `text` of `meta` unless a field has that full name.

    MISSING if there is no such field; None if a field on the way is null.
    """
    if name in record:
        return record[name]
    for dot in reversed([place for place, letter in enumerate(name) if letter == "."]):
        within = record.get(name[:dot], MISSING)
        if within is None:
            return None
        if isinstance(within, Mapping):
            found = field_of(within, name[dot + 1 :])
            if found is not MISSING:
                return found
    return MISSING


def names_of(record: Mapping[str, Any]) -> list[str]:
    """The names of its fields, and of the fields one level down: id, meta.text, ..."""
    names = []
    for name, value in record.items():
        within = [f"{name}.{inner}" for inner in value] if isinstance(value, Mapping) else []
        names += within or [str(name)]
    return names


def of_record(record: Any, text_field: str, where: str, *, is_tokens: bool = False) -> Document:
    """The document of a record (a row of JSON lines, parquet or the hub). With `is_tokens`, its field is a list of code
    tokens."""
    if not isinstance(record, dict):
        return Document(b"", problem=f"{where}: a JSON {type(record).__name__}, expected an object; {SKIP_HINT}")
    text = field_of(record, text_field)
    if text is MISSING:
        return Document(b"", problem=missing_field(where, text_field, names_of(record)))
    if text is None:
        return Document(b"")
    if is_tokens and isinstance(text, list) and all(isinstance(token, str) for token in text):
        return Document(utf8(program(text)))
    if not isinstance(text, str):
        kind = type(text).__name__
        return Document(b"", problem=f'{where}: field "{text_field}" holds {kind}, not text; {SKIP_HINT}')
    return Document(utf8(text))


def program(tokens: Sequence[str]) -> str:
    """A program of code tokens as text, without the marks at both ends; <EOL> becomes a line break."""
    text = " ".join(token for token in tokens if token not in ("<s>", "</s>"))
    return re.sub(r" ?<EOL> ?", "\n", text)


def missing_field(where: str, text_field: str, fields: list[str]) -> str:
    """The error line for a record without the field."""
    named = ", ".join(str(name)[:60] for name in fields[:12]) or "none"
    return f'{where}: no field "{text_field}" (its fields: {named}); choose one with --text-field'


def utf8(text: str) -> bytes:
    """UTF-8 of any Python string; half a surrogate pair (allowed in JSON, not in UTF-8) becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
