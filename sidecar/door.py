"""Who may come in: browsers never, programs with an app's key. Pure; it must not know leases or sockets.

The key stands where an SDK puts its token. What was shown and fails is refused; it never becomes nobody (attack 6).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import NamedTuple

from sidecar.problem import Problem
from sidecar.route import LABEL

_KEY = re.compile(rb"cnk_(%b)_[A-Za-z0-9_-]{43}" % LABEL.encode())
"""`cnk_{key id}_{43 base64url characters}`: at least 256 bits of secret."""
_SCHEME = re.compile(rb"(bearer|token|basic) +(\S+)", re.IGNORECASE)


class AppKey(NamedTuple):
    """What is known of a key once it was read: its id and the SHA-256 of all of it, never the key."""

    key_id: str
    sha256: bytes


def refuse_browsers(marks: dict[bytes, bytes]) -> None:
    """Raises: Problem, if a browser page made the request (attack 2). No answer of ours ever has a CORS header."""
    if b"origin" in marks or marks.get(b"sec-fetch-site", b"none").lower() != b"none":
        raise Problem("BROWSER_REFUSED", close=True)


def app_key(shown: list[tuple[bytes, bytes]], *, required: bool) -> AppKey | None:
    """The one key that the app shows, or None if none is needed and none is shown.

    X-Connectors-Key wins over the rest. Raises: Problem (API_KEY_MISSING, API_KEY_INVALID).
    """
    if len(shown) == 1 and shown[0][1].startswith(b"Bearer cnk_"):  # nearly always
        return _read(shown[0][1][7:])
    text = key_text(shown, required=required)
    return None if text is None else _read(text)


def key_text(shown: list[tuple[bytes, bytes]], *, required: bool) -> bytes | None:
    """The text of that key, as it was shown. Raises: Problem, as app_key."""
    for name, value in shown:
        if name == b"x-connectors-key":
            return value
    found: bytes | None = None
    for name, value in shown:
        for candidate in _candidates(name, value):
            if found is not None and candidate != found:
                raise Problem("API_KEY_INVALID", "Two different app keys came with the request: send one.")
            found = candidate
    if found is None and required:
        raise Problem("API_KEY_INVALID" if shown else "API_KEY_MISSING")
    return found


def _candidates(name: bytes, value: bytes) -> list[bytes]:
    """The parts of a line that look like a key of ours; an SDK's dummy token does not."""
    if name == b"x-api-key":
        parts = [value]
    else:
        match = _SCHEME.fullmatch(value)
        if match is None:
            parts = [value]
        elif match[1].lower() == b"basic":
            parts = _basic(match[2])
        else:
            parts = [match[2]]
    return [part for part in parts if part.startswith(b"cnk_")]


def _basic(text: bytes) -> list[bytes]:
    try:
        return base64.b64decode(text, validate=True).split(b":", 1)
    except binascii.Error:
        return []


def _read(value: bytes) -> AppKey:
    match = _KEY.fullmatch(value)
    if match is None:
        raise Problem("API_KEY_INVALID")
    return AppKey(match[1].decode(), hashlib.sha256(value).digest())
