"""YAML text to plain values and back, within bounds: aliases, depth, length of a text and of a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

CHARACTERS = 1_000_000
"""Longest text: ten thousand prompts. PyYAML reads about a tenth of it in a second."""
DEPTH = 50
"""Deepest nesting. A config needs about ten; Python's own recursion ends near a thousand."""
VALUES = 100_000
"""Most values, with those that an alias repeats: nine nested aliases of 577 characters would be a billion."""
DIGITS = 100
"""Longest whole number. No field goes beyond 19, and Python refuses to read more than 4,300."""


def read_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Dates stay strings, since no field takes one.

    Raises:
        yaml.YAMLError: the text is not YAML, has a duplicate key, a key that is not a name, a tag, or is out of bounds.
    """
    if len(text) > CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters; expected at most {CHARACTERS:,}")
    return yaml.load(text, Loader=_Loader)


def write_yaml(value: Any) -> str:
    """A value as YAML text, which `read_yaml` reads back to an equal one."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False)


class _Loader(yaml.SafeLoader):
    """SafeLoader within bounds that refuses duplicate keys and reads `1e-4` as a number, as YAML 1.2 does."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}
        """Values in a node, aliases counted as what they repeat."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """A node, counted."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth == DEPTH:
            _refuse(f"it is nested more than {DEPTH} deep", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        assert node is not None
        self._depth -= 1
        if node not in self._sizes:
            if getattr(node, "end_mark", None) is None and isinstance(node, yaml.CollectionNode):
                _refuse("an alias stands inside what it repeats", mark)
            inner = _inner(node)
            self._sizes[node] = 1 + sum(self._sizes[child] for child in inner)
        if self._sizes[node] > VALUES:
            _refuse(f"it has more than {VALUES:,} values; aliases count as what they repeat", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; what its type refuses is an error of YAML, at its place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            text = str(node.value)
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f'"{text if len(text) <= 40 else text[:37] + "..."}" is not of the type {kind}',
                node.start_mark,
            ) from error

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number, of at most DIGITS digits."""
        if len(node.value) > DIGITS:
            _refuse(f"a number has {len(node.value):,} digits; expected at most {DIGITS}", node.start_mark)
        return super().construct_yaml_int(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping from names to values."""
        seen: set[Any] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key_node, yaml.ScalarNode):
                kind = "list" if isinstance(key_node, yaml.SequenceNode) else "mapping"
                _refuse(f"a key is a {kind}; expected a name", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                _refuse(f'the key "{key}" occurs twice', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_NO_JSON = {f"tag:yaml.org,2002:{name}" for name in ("binary", "omap", "pairs", "set", "timestamp")}
_Loader.yaml_constructors = {tag: make for tag, make in _Loader.yaml_constructors.items() if tag not in _NO_JSON}


class _Dumper(yaml.SafeDumper):
    """SafeDumper that indents the elements of a list and writes lists of plain numbers on one line."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Outside double quotes PyYAML writes some line breaks as they are, and reads them back as spaces; and only in
        # double quotes a character may be written as an escape, as a terminal is shown what does not print.
        style = None if data.replace("\n", "").isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        plain = all(isinstance(item, yaml.ScalarNode) and item.tag != "tag:yaml.org,2002:str" for item in node.value)
        if node.value and plain:
            node.flow_style = True
        return node


_Dumper.add_representer(str, _Dumper.represent_str)


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refuse(problem: str, mark: yaml.Mark) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, mark)


_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
_DATE = "tag:yaml.org,2002:timestamp"
for _side in (_Loader, _Dumper):  # both, so that the string "1e4" is quoted on its way out
    _side.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789."))
    _side.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _DATE]
        for first, resolvers in _side.yaml_implicit_resolvers.items()
    }
