"""Links in an answer's head that point at the upstream, turned to the way the app addressed us. Pure.

A redirect is never followed (attack 13); what points elsewhere goes back as it is, and the app's next call to it carries
no credential of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from connectors_grpc.inject.plan import LINKED
from sidecar.framing import Fields

_LINK = re.compile(rb"<([^<>]*)>")


@dataclass(frozen=True, slots=True)
class Addressing:
    """Both names of one place. `ours` is `http://host/prefix` as the app wrote it; `base_path` has no trailing slash."""

    ours: bytes
    scheme: bytes
    authority: bytes
    base_path: bytes


def has_links(fields: Fields) -> bool:
    """Whether any line may need rewriting; most answers have none."""
    return any(name.lower() in LINKED for name, _ in fields)


def rewrite(fields: Fields, where: Addressing) -> Fields:
    """The lines with Location, Content-Location and Link rewritten."""
    out: Fields = []
    for name, value in fields:
        lower = name.lower()
        if lower == b"link":
            value = _LINK.sub(lambda match: b"<%b>" % reference(match[1], where), value)
        elif lower in LINKED:
            value = reference(value, where)
        out.append((name, value))
    return out


def reference(uri: bytes, where: Addressing) -> bytes:
    """One URI reference, rewritten if it points at the upstream's base path.  Source: RFC 3986 section 4.2."""
    path = _path_at_upstream(uri, where)
    if path is None:
        return uri
    base = where.base_path
    rest = path[len(base) :]
    if path.startswith(base) and (not rest or rest[:1] in (b"/", b"?", b"#")):
        return where.ours + rest
    return b"%b://%b%b" % (where.scheme, where.authority, path)


def _path_at_upstream(uri: bytes, where: Addressing) -> bytes | None:
    """What follows the upstream's authority, for a reference that points there and can't be left as it is."""
    if uri.startswith(b"/") and not uri.startswith(b"//"):
        return uri
    scheme, mark, after = uri.partition(b"//")
    if not mark or scheme.lower() not in (b"", where.scheme + b":"):
        return None
    end = next((at for at, byte in enumerate(after) if byte in b"/?#"), len(after))
    authority = after[:end].lower()
    port = b":443" if where.scheme == b"https" else b":80"
    return after[end:] if authority.removesuffix(port) == where.authority else None
