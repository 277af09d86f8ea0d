"""YAML 1.2 (core schema) with limits on length, depth and expansion.

PyYAML alone reads YAML 1.1, where `no` is false, 24:00:00 is 86400 and 0123 is 83. Here a scalar is a number only if
the core schema says so, every number keeps its original text, and keys are always text.

An alias repeats the value of its anchor. A few lines of nested aliases can expand to more values than fit in memory,
although parsing them is cheap. So the expanded values are counted before anything walks over them.
"""

from __future__ import annotations

import re
from typing import Any

from proctool.errors import OptionError

MOST_CHARACTERS = 1 << 20
"""A recipe with ten thousand arms needs about half of this."""
MOST_LINE = 1 << 16
MOST_DEPTH = 50
MOST_VALUES = 1 << 18
"""Most values after every alias is expanded."""

_TAG = "tag:yaml.org,2002:"
# The core schema (YAML 1.2.2, section 10.3.2), and `<<`, with which arms share options.
_SCALARS = {
    "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
    "merge": re.compile(r"<<\Z"),
}


class WrittenInt(int):
    """An integer that keeps its text: an account 0123 stays 0123."""

    written: str


class WrittenFloat(float):
    """A float that keeps its text: an arm 1.10 is not 1.1."""

    written: str


def _written_as(kind: str, text: str) -> str:
    """The text, checked: an explicit tag (!!bool yes) can contradict it. Raises ValueError."""
    if not _SCALARS[kind].fullmatch(text):
        raise ValueError(f'"{text}" is not a valid {kind}')
    return text


def _null(text: str) -> None:
    _written_as("null", text)


def _int(text: str) -> int:
    number = WrittenInt(int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text))
    number.written = text
    return number


def _float(text: str) -> float:
    number = WrittenFloat(text.replace(".", "", 1) if text.lstrip("+-")[:2].lower() in (".i", ".n") else text)
    number.written = text
    return number


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML text into mappings, lists, text, numbers, true, false and None. Keys are text as written.

    A duplicate key is an error. Raises OptionError.
    """
    import yaml

    if len(text) > MOST_CHARACTERS:
        raise OptionError(f"{where}: {len(text)} characters of YAML exceed the limit of {MOST_CHARACTERS}")

    if (longest := max(map(len, text.splitlines()), default=0)) > MOST_LINE:
        raise OptionError(f"{where}: a line of {longest} characters of YAML exceeds the limit of {MOST_LINE}")

    class StrictLoader(yaml.SafeLoader):
        _depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self._depth += 1
            if self._depth > MOST_DEPTH:
                problem = f"nested more than {MOST_DEPTH} deep"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
            node = super().compose_node(parent, index)
            if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
                # No path, number or name has one, and every system call refuses it with another error.
                raise yaml.MarkedYAMLError(problem="a zero byte", problem_mark=node.start_mark)
            self._depth -= 1
            return node

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                _count(node)
            return node

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'"{key.value}" is given twice', problem_mark=key.start_mark)
            seen.add(key.value)
        loader.flatten_mapping(node)  # `<<`; keys written beside it override it
        return {key.value: loader.construct_object(value, deep=True) for key, value in node.value}

    def scalar(make: Any) -> Any:
        return lambda loader, node: make(loader.construct_scalar(node))

    StrictLoader.yaml_implicit_resolvers = {}
    for name, pattern in _SCALARS.items():
        StrictLoader.add_implicit_resolver(_TAG + name, pattern, None)
    StrictLoader.yaml_constructors = {None: yaml.SafeLoader.construct_undefined}  # no dates, sets or binary data
    for name, construct in {
        "map": mapping,
        "seq": lambda loader, node: loader.construct_sequence(node, deep=True),
        "str": scalar(str),
        "null": scalar(_null),
        "bool": scalar(lambda text: _written_as("bool", text).lower() == "true"),
        "int": scalar(_int),
        "float": scalar(_float),
    }.items():
        StrictLoader.add_constructor(_TAG + name, construct)

    try:
        return yaml.load(text, StrictLoader)  # a SafeLoader: plain values only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise OptionError(f"{where}: not valid YAML{place}: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, OverflowError, RecursionError, KeyError, AttributeError, TypeError, IndexError) as error:
        # Text tagged as a number (!!int x), or a number with ten thousand digits.
        raise OptionError(f"{where}: not valid YAML: {error}") from None


def _count(root: Any) -> None:
    """Raise YAMLError when an alias under `root` contains itself, or the expanded values are too many."""
    import yaml

    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, left = stack.pop()
        if isinstance(node, yaml.ScalarNode):
            sizes[id(node)] = 1
            continue
        inner = [each for pair in node.value for each in (pair if isinstance(pair, tuple) else (pair,))]
        if left:
            open_nodes.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(each)] for each in inner)
            if sizes[id(node)] > MOST_VALUES:
                problem = f"its aliases expand to more than {MOST_VALUES} values"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        elif id(node) in open_nodes:
            raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=node.start_mark)
        elif id(node) not in sizes:
            open_nodes.add(id(node))
            stack.append((node, True))
            stack.extend((each, False) for each in inner)
