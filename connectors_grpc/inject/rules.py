"""Which calls an app key may make: methods and paths, by rules that allow. Pure; the server and the sidecar ask the same.

What is judged is the very path that is sent, in every reading that a provider may give it: percent-encoding undone before
its segments are split, after, and again. All readings must be allowed, so that no spelling reaches more than the rules say
(attack 15). What may turn one method into another is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote_plus, unquote_to_bytes

from connectors_grpc.inject.target import Target

MOST_RULES = 50
LONGEST_PATTERN = 512
OVERRIDES = frozenset(
    (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)
"""Header lines by which some frameworks take another method or path than the request's."""
_OVERRIDING = frozenset(("_method", *(name.decode() for name in OVERRIDES)))
"""The same as query parameters."""
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_SEGMENT = re.compile(r"\*|[A-Za-z0-9\-._~!$&'()+,=:@]+")
_DEEPEST = 4
"""So often percent-encoding is undone; what is still encoded then is nobody's honest path."""

Entry = tuple[Sequence[str], str, Sequence[str]]
"""Methods (none: all), a pattern, credentials (none: all)."""


class RuleRefused(Exception):
    """A rule can't be meant. `args[0]` is a constant text."""


class CallNotAllowed(Exception):
    """No rule allows the call."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `below`: the pattern ended in `**`, so that whatever follows `segments` is allowed, nothing included."""

    methods: frozenset[bytes]
    segments: tuple[bytes, ...]
    below: bool
    credentials: frozenset[str]

    @classmethod
    def of(cls, methods: Sequence[str], path: str, credentials: Sequence[str]) -> Self:
        """Parse. GET allows HEAD. Raises: RuleRefused."""
        if not all(_METHOD.fullmatch(method) for method in methods):
            raise RuleRefused("methods are wanted in capitals, as in GET")
        if not path.startswith("/") or len(path) > LONGEST_PATTERN:
            raise RuleRefused("a path that begins with / is wanted, up to 512 characters")
        segments = path[1:].split("/")
        below = segments[-1] == "**"
        if below:
            segments.pop()
        root = segments == [""]
        if any(part in (".", "..") or _SEGMENT.fullmatch(part) is None for part in segments) and not root:
            raise RuleRefused("segments are literal, or * for any one; ** may end the path; no percent-encoding")
        allowed = frozenset(method.encode() for method in methods)
        if b"GET" in allowed:
            allowed |= {b"HEAD"}
        return cls(allowed, tuple(part.encode() for part in segments), below, frozenset(credentials))

    def matches(self, segments: Sequence[bytes]) -> bool:
        """Whether the pattern covers a path, given by its segments. `*` is never an empty one. Each is looked at once."""
        wanted = self.segments
        if len(segments) < len(wanted) or (len(segments) > len(wanted) and not self.below):
            return False
        pairs = zip(wanted, segments, strict=False)
        return all(given != b"" if want == b"*" else want == given for want, given in pairs)


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a key: a call is allowed if one of them allows it."""

    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self | None:
        """Compile; None if there are none, which allows every call. Raises: RuleRefused."""
        rules = tuple(Rule.of(*entry) for entry in entries)
        if len(rules) > MOST_RULES:
            raise RuleRefused("at most 50 rules")
        return cls(rules) if rules else None

    def check(self, credential: str, method: bytes, target: Target, names: Iterable[bytes]) -> None:
        """Judge a call by its canonical target and its header lines' names. Raises: CallNotAllowed."""
        if any(name.lower().replace(b"_", b"-") in OVERRIDES for name in names):
            raise CallNotAllowed
        if target.query is not None and any(name in _OVERRIDING for name in _parameters(target.query)):
            raise CallNotAllowed
        rules = [
            rule
            for rule in self.rules
            if (not rule.methods or method in rule.methods) and (not rule.credentials or credential in rule.credentials)
        ]
        for segments in _readings(target.path):
            if not any(rule.matches(segments) for rule in rules):
                raise CallNotAllowed


def _parameters(query: bytes) -> Iterator[str]:
    for pair in re.split(rb"[&;]", query):
        name = unquote_plus(pair.partition(b"=")[0].decode("latin-1")).lower()
        yield name.replace("_", "-") if name != "_method" else name


def _readings(path: bytes) -> Iterator[list[bytes]]:
    """The path's segments as a provider may see them. Raises: CallNotAllowed (no honest path)."""
    if b"%" in path:
        yield _honest([unquote_to_bytes(part) for part in path[1:].split(b"/")])
        for _ in range(_DEEPEST):
            before, path = path, unquote_to_bytes(path)
            if path == before:
                return
            yield _honest(path[1:].split(b"/"))
        raise CallNotAllowed
    yield _honest(path[1:].split(b"/"))


def _honest(segments: list[bytes]) -> list[bytes]:
    """Refuse `..;x`, which some servers read as `..`. Dot segments themselves are refused by `parse_target`."""
    for part in segments:
        if part in (b".", b"..") or (b";" in part and part.partition(b";")[0] in (b"", b".", b"..")):
            raise CallNotAllowed
    return segments
