"""A document with places: every value knows its file, line and column, so that each problem can say where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Path: TypeAlias = tuple[str | int, ...]
"""Names and indices from the root."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. Lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object: where its name stands, and its value."""

    at: Place
    node: Node


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it begins. `repr` shows no value: it may be a secret."""

    at: Place
    value: Scalar | Mapping[str, Member] | list[Node]

    def __repr__(self) -> str:
        return f"Node({self.at})"

    def plain(self) -> object:
        """The value without its places."""
        if isinstance(self.value, Mapping):
            return {name: member.node.plain() for name, member in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, path: Path) -> Place:
        """Where `path` leads, or as far as it does; where the last step is a member, its name's place."""
        node, at = self, self.at
        for step in path:
            if isinstance(node.value, Mapping) and step in node.value:
                member = node.value[str(step)]
                node, at = member.node, member.at
            elif isinstance(step, int) and isinstance(node.value, list) and step < len(node.value):
                node = node.value[step]
                at = node.at
            else:
                break
        return at


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to be mended: where, which field, and how. Never says what stands there."""

    at: Place
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.at}: {self.field}: {self.text}" if self.field else f"{self.at}: {self.text}"


class Invalid(Exception):
    """A configuration with problems: all that were found, in the order of the files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.at.file, problem.at.line, problem.at.column))
        super().__init__(f"{len(self.problems)} problems")


def dotted(path: Path) -> str:
    """A path as people write it: `tenants.acme.labels`, `further_secrets[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
