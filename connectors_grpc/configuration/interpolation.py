"""`${NAME}` of the environment and `${file:PATH}` in texts: replaced, and remembered as given from outside. Reads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from connectors_grpc.configuration.tree import Member, Node, Path, Place, Problem, dotted

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

ReadFile = Callable[[str], str]
"""A file's text by its path. Raises: OSError, ValueError (too large, or no text)."""


class Given(str):
    """A text of which something came from outside the file. `source` says how it is written there: that may be shown."""

    __slots__ = ("source",)
    source: str

    def __new__(cls, text: str, source: str) -> Given:
        """The text, and how the file has it."""
        self = super().__new__(cls, text)
        self.source = source
        return self


def interpolate(root: Node, environment: Mapping[str, str], read_file: ReadFile) -> tuple[Node, list[Problem]]:
    """The tree with every reference replaced; `$${` stands for `${` itself. All that is missing is told at once."""
    walk = _Walk(environment, read_file)
    return walk.node(root, ()), walk.problems


class _Walk:
    def __init__(self, environment: Mapping[str, str], read_file: ReadFile) -> None:
        self._environment = environment
        self._read_file = read_file
        self.problems: list[Problem] = []

    def node(self, node: Node, path: Path) -> Node:
        value = node.value
        if isinstance(value, str):
            return Node(node.at, self._text(value, node.at, path)) if "${" in value else node
        if isinstance(value, Mapping):
            return Node(
                node.at, {name: Member(one.at, self.node(one.node, (*path, name))) for name, one in value.items()}
            )
        if isinstance(value, list):
            return Node(node.at, [self.node(one, (*path, index)) for index, one in enumerate(value)])
        return node

    def _text(self, text: str, at: Place, path: Path) -> str:
        outside = False

        def replaced(match: re.Match[str]) -> str:
            nonlocal outside
            if match["name"] is None:
                return "${"
            outside = True
            try:
                return self._resolved(match[0], match["name"])
            except _Missing as missing:
                self.problems.append(Problem(at, dotted(path), missing.args[0]))
                return "unknown"

        found = _REFERENCE.sub(replaced, text)
        return Given(found, text) if outside else found

    def _resolved(self, whole: str, name: str) -> str:
        if not whole.endswith("}"):
            raise _Missing("${ begins a reference that has no }: close it, or write $${ for the signs themselves")
        if name.startswith("file:"):
            return self._file(name.removeprefix("file:"))
        if _NAME.fullmatch(name) is None:
            raise _Missing("${ wants a variable's name, or file: and a path; write $${ for the signs themselves")
        if name not in self._environment:
            raise _Missing(f"${{{name}}} is not set in the environment: export {name}")
        return self._environment[name]

    def _file(self, path: str) -> str:
        try:
            return self._read_file(path).removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise _Missing(f"${{file:{path}}} can't be read: {error.strerror or 'no such file'}") from None
        except ValueError:
            raise _Missing(f"${{file:{path}}} is no text, or too large: up to 64 KiB of UTF-8 are taken") from None


class _Missing(Exception):
    """A reference that leads nowhere; the text says what to do."""
