"""YAML from people and from strangers: plain values only, in text of bounded length, depth and expansion.

An alias repeats what its anchor stands for. A few lines of aliases of aliases can so mean more values than any memory
holds, although parsing them costs nothing; they are counted out before anything walks over them.
"""

from __future__ import annotations

from typing import Any

from proctool.errors import OptionError

MOST_CHARACTERS = 1 << 20
"""A recipe of ten thousand arms takes about half of it."""
MOST_LINE = 1 << 16
MOST_DEPTH = 50
MOST_VALUES = 1 << 18
"""Values once every alias is written out."""


def parse(text: str, where: str) -> Any:
    """The value of a YAML text, read with the safe loader; a key given twice is an error. Raises OptionError."""
    import yaml

    if len(text) > MOST_CHARACTERS:
        raise OptionError(f"{where}: {len(text)} characters of YAML; at most {MOST_CHARACTERS} are read")

    if (longest := max(map(len, text.splitlines()), default=0)) > MOST_LINE:
        raise OptionError(f"{where}: a line of {longest} characters of YAML; at most {MOST_LINE} are read")

    class StrictLoader(yaml.SafeLoader):
        _depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self._depth += 1
            if self._depth > MOST_DEPTH:
                problem = f"nested more than {MOST_DEPTH} deep"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
            node = super().compose_node(parent, index)
            if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
                # No path, number or name holds one, and every system call refuses it with another error.
                raise yaml.MarkedYAMLError(problem="a zero byte", problem_mark=node.start_mark)
            self._depth -= 1
            return node

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                _count(node)
            return node

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'"{key.value}" is given twice', problem_mark=key.start_mark)
            seen.add(str(key.value))
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)

    try:
        return yaml.load(text, StrictLoader)  # a SafeLoader: plain values only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise OptionError(f"{where}: not valid YAML{place}: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, OverflowError, RecursionError, KeyError, AttributeError, TypeError, IndexError) as error:
        # What looks like a number or a date and is none: 2024-13-45, a number of ten thousand digits, !!int x.
        raise OptionError(f"{where}: not valid YAML: {error}") from None


def _count(root: Any) -> None:
    """Raise YAMLError when the values under `root`, every alias written out, are too many or contain themselves."""
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
                problem = f"its aliases stand for more than {MOST_VALUES} values"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        elif id(node) in open_nodes:
            raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=node.start_mark)
        elif id(node) not in sizes:
            open_nodes.add(id(node))
            stack.append((node, True))
            stack.extend((each, False) for each in inner)
