"""Text into a tree, JSON or YAML by its name's end; both alike: places kept, no name twice, nothing but what JSON can say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from typing import Any, NoReturn

import yaml

from connectors_grpc.configuration.tree import Invalid, Member, Node, Place, Problem, Scalar

MOST_DEPTH = 32
MOST_NODES = 5_000_000
_SPACE = re.compile(r"[ \t\r\n]*")


def read(text: str, file: str) -> Node:
    """The document. Bounds: MOST_DEPTH, MOST_NODES.  Raises: Invalid, naming line and column."""
    return _Yaml(file).read(text) if file.endswith((".yaml", ".yml")) else _Json(file, text).read()


def _refuse(at: Place, text: str) -> NoReturn:
    raise Invalid([Problem(at, "", text)])


class _Json:
    """Objects and arrays are ours, for their places; texts, numbers and words are the standard library's to read."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._at = 0
        self._line = 1
        self._line_begins = 0
        self._scalars = json.JSONDecoder(parse_constant=self._no_constant)

    @staticmethod
    def _no_constant(name: str) -> NoReturn:
        raise ValueError(name)

    def read(self) -> Node:
        node = self._value(0)
        self._skip()
        if self._at < len(self._text):
            _refuse(self._place(), "nothing may follow the document")
        return node

    def _place(self) -> Place:
        """Asked for in the order of the text, so that each line's end is counted once."""
        self._line += self._text.count("\n", self._line_begins, self._at)
        self._line_begins = max(self._line_begins, self._text.rfind("\n", self._line_begins, self._at) + 1)
        return Place(self._file, self._line, self._at - self._line_begins + 1)

    def _skip(self) -> str:
        """Go to the next sign, and say which; empty at the end."""
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def _value(self, depth: int) -> Node:
        sign = self._skip()
        at = self._place()
        if depth > MOST_DEPTH:
            _refuse(at, f"it is nested deeper than {MOST_DEPTH}")
        if sign == "{":
            return Node(at, dict(self._members(depth)))
        if sign == "[":
            return Node(at, list(self._items(depth)))
        return Node(at, self._scalar(at))

    def _scalar(self, at: Place) -> Scalar:
        try:
            value, self._at = self._scalars.raw_decode(self._text, self._at)
        except (JSONDecodeError, ValueError, RecursionError):
            _refuse(at, "JSON is wanted here: a value in the shape of RFC 8259, texts in double quotes on one line")
        assert value is None or isinstance(value, str | int | float | bool)
        return value

    def _members(self, depth: int) -> Iterator[tuple[str, Member]]:
        seen: dict[str, Place] = {}
        while self._goes_on(first=not seen, end="}"):
            sign = self._skip()
            at = self._place()
            if sign != '"':
                _refuse(at, "a name in double quotes is wanted here; a comma behind the last member is none")
            name = str(self._scalar(at))
            if name in seen:
                _refuse(at, f"the name stands here a second time, first on line {seen[name].line}: take one out")
            seen[name] = at
            if self._skip() != ":":
                _refuse(self._place(), "a colon is wanted here")
            self._at += 1
            yield name, Member(at, self._value(depth + 1))

    def _items(self, depth: int) -> Iterator[Node]:
        first = True
        while self._goes_on(first=first, end="]"):
            first = False
            yield self._value(depth + 1)

    def _goes_on(self, *, first: bool, end: str) -> bool:
        """Past the opening sign or a comma: True. Past the closing one: False."""
        if first:
            self._at += 1
            if self._skip() != end:
                return True
        elif self._skip() == ",":
            self._at += 1
            return True
        elif self._skip() != end:
            _refuse(self._place(), f"a comma or {end} is wanted here")
        self._at += 1
        return False


class _Yaml:
    """PyYAML composes, and says where; what JSON can't say is refused: dates, anchors' merges, names that are no texts."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._left = MOST_NODES
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, text: str) -> Node:
        try:
            root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = Place(self._file, mark.line + 1, mark.column + 1) if mark else Place(self._file, 1, 1)
            _refuse(at, "YAML is wanted here; it breaks off")
        except (yaml.YAMLError, RecursionError, ValueError):
            _refuse(Place(self._file, 1, 1), "it is not YAML")
        if root is None:
            _refuse(Place(self._file, 1, 1), "the file is empty")
        return self._node(root, 0)

    def _node(self, node: Any, depth: int) -> Node:
        at = self._at(node)
        self._left -= 1
        if depth > MOST_DEPTH or self._left < 0:
            _refuse(at, f"it is nested deeper than {MOST_DEPTH}, or its aliases make more than {MOST_NODES} values")
        if isinstance(node, yaml.MappingNode):
            return Node(at, self._members(node, depth))
        if isinstance(node, yaml.SequenceNode):
            return Node(at, [self._node(one, depth + 1) for one in node.value])
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError):
            _refuse(at, "a text, a number, true, false or null is wanted; put it in quotes if it is a text")
        if not (value is None or isinstance(value, str | int | float | bool)):
            _refuse(at, "it reads as a date or another kind of its own: put it in quotes")
        return Node(at, value)

    def _members(self, node: Any, depth: int) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for name_node, value_node in node.value:
            at = self._at(name_node)
            if name_node.tag == "tag:yaml.org,2002:merge":
                _refuse(at, "merge keys (<<) are not taken: write it out, or use an overlay")
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else ""
            if name_node.tag != "tag:yaml.org,2002:str":
                _refuse(at, "a name is wanted that is a text: put it in quotes")
            if name in found:
                _refuse(at, f"the name stands here a second time, first on line {found[name].at.line}: take one out")
            found[name] = Member(at, self._node(value_node, depth + 1))
        return found

    def _at(self, node: Any) -> Place:
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1)
