"""Where a request goes: the path in one canonical form for the policy and the wire, and hosts as they are compared."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit


class TargetRefused(Exception):
    """The path can't be passed on unambiguously. `args[0]` says why, without the path."""


def authority(url: str) -> str:
    """`host` or `host:port` of a URL, lower case, without a default port: how sealed hosts are written and compared."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


class Target(NamedTuple):
    """One canonical form for the policy and for the wire (attack 15). `path` and `query` are what is sent; no fragment."""

    path: bytes
    query: bytes | None

    @property
    def request_target(self) -> bytes:
        """Origin form.  Source: RFC 9112 section 3.2.1."""
        return self.path if self.query is None else self.path + b"?" + self.query


_PATH = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]{}|^`\"<>]|%[0-9A-Fa-f]{2})*")
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/"
"""A path of these alone, with no dot at a segment's start, needs no second look: there is nothing to decode."""


def parse_target(raw: bytes) -> Target:
    """Split origin form into path and query, refusing what two readers could read differently.

    Percent-encodings pass as they came (`group%2Fproject` is a legitimate id), but a path is refused if any reading of it,
    decoded or not, has a dot segment, a backslash, a NUL or another control character.
    Raises: TargetRefused.  Source: RFC 3986 section 3.3; attack 15.
    """
    path, mark, query = raw.partition(b"?")
    if path[:1] != b"/" or b"/." in path or path.translate(None, _PLAIN):
        _check_path(path)
    if mark and _QUERY.fullmatch(query) is None:
        raise TargetRefused("the query has a character that must be percent-encoded")
    return Target(path, query if mark else None)


def _check_path(path: bytes) -> None:
    if _PATH.fullmatch(path) is None:
        raise TargetRefused("the path must begin with / and percent-encode everything that RFC 3986 reserves")
    decoded = unquote_to_bytes(path)
    if any(byte < 0x20 or byte in (0x5C, 0x7F) for byte in decoded):
        raise TargetRefused("the path has an encoded control character or backslash")
    if any(segment in (b".", b"..") for segment in decoded.split(b"/")):
        raise TargetRefused("the path has a dot segment")
    if b"%25" in path and any(part in (b".", b"..") for part in unquote_to_bytes(decoded).split(b"/")):
        raise TargetRefused("the path has a doubly encoded dot segment")


def comparable(path: bytes) -> bytes:
    """The loosest reading of a path, for refusing: decoded, one slash for many, no trailing slash, case folded."""
    return re.sub(rb"/+", b"/", unquote_to_bytes(path)).rstrip(b"/").lower()
