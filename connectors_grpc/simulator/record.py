"""The record of what the simulated provider saw: who asked for what, with fingerprints for values.

So that anybody can check that it saw the tenant's token and never the app's key. The raw request is kept
for tests in the same process; `public()` never shows it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes

MOST_REQUESTS = 512
MOST_BODY = 16 * 1024


def fingerprint(value: str | bytes) -> str:
    """The first 12 hexadecimal digits of a value's SHA-256: `printf %s "$KEY" | sha256sum | cut -c1-12`."""
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return hashlib.sha256(raw).hexdigest()[:12]


@dataclass(slots=True)
class SeenRequest:
    """One request as it came. Bounds: `body` is its first MOST_BODY bytes; `body_length` counts all."""

    method: str
    path: str
    query: bytes = field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    body_length: int = 0
    fields: dict[str, str] = field(default_factory=dict, repr=False)
    status: int | None = None
    account: str | None = None
    client_id: str | None = None
    token_id: str | None = None

    def header(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def holds(self, secret: str) -> bool:
        """Whether a value came in target, headers or the kept body: raw, percent-encoded, or base64 in Basic."""
        parts = [self.path.encode("utf-8", "surrogateescape"), self.query, self.body]
        for _, value in self.headers:
            parts += [value, _decoded(value.partition(b" ")[2])]
        return any(secret.encode() in form for part in parts for form in _forms(part))

    def add_body(self, chunk: bytes) -> None:
        """Count a piece of the body, and keep what there is room for."""
        self.body_length += len(chunk)
        self.body += chunk[: MOST_BODY - len(self.body)]

    def public(self) -> dict[str, object]:
        """What anybody on this machine may see of it: names, and fingerprints for values."""
        query = parse_qsl(self.query.decode("latin-1"), keep_blank_values=True)
        return {
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "query": [{"name": name, "fingerprint": fingerprint(value)} for name, value in query],
            "headers": [
                {"name": key.decode("latin-1"), "fingerprint": fingerprint(value)} for key, value in self.headers
            ],
            "credential_fingerprint": next(
                (fingerprint(value.partition(" ")[2]) for value in self.header("authorization")), None
            ),
            "fields": {name: fingerprint(value) for name, value in self.fields.items()},
            "body_length": self.body_length,
            "account": self.account,
            "client_id": self.client_id,
            "token_id": self.token_id,
        }


class Record:
    """The latest requests, oldest first. Bounds: MOST_REQUESTS."""

    def __init__(self) -> None:
        self._seen: deque[SeenRequest] = deque(maxlen=MOST_REQUESTS)
        self.count = 0
        self._more = asyncio.Event()

    def add(self, seen: SeenRequest) -> None:
        """Note a request, dropping the oldest where there is no room."""
        self.count += 1
        self._seen.append(seen)
        self._more.set()
        self._more = asyncio.Event()

    async def reached(self, count: int) -> None:
        """Wait until `count` requests were seen since the start. Bound it: this waits for ever."""
        while self.count < count:
            await self._more.wait()

    def clear(self) -> None:
        """Forget them all; `count` goes on."""
        self._seen.clear()

    def saw(self, secret: str) -> bool:
        """Whether a value came in any of them."""
        return any(seen.holds(secret) for seen in self._seen)

    def on(self, path: str) -> list[SeenRequest]:
        """Those that asked for a path."""
        return [seen for seen in self._seen if seen.path == path]

    def __iter__(self) -> Iterator[SeenRequest]:
        return iter(tuple(self._seen))

    def __len__(self) -> int:
        return len(self._seen)

    def __getitem__(self, position: int) -> SeenRequest:
        return self._seen[position]


def _forms(value: bytes) -> tuple[bytes, bytes, bytes]:
    """A value as it came, percent-decoded, and form-decoded."""
    return value, unquote_to_bytes(value), unquote_to_bytes(value.replace(b"+", b" "))


def _decoded(value: bytes) -> bytes:
    """What base64 hides; nothing if it is not base64."""
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return b""
