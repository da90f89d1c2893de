"""One simulated provider while it runs: its book, notes, record, clock, randomness and wrong replies.

Knows nothing of HTTP. Handlers ask it; tests hold it and look inside.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable

from connectors_grpc.simulator.book import Book
from connectors_grpc.simulator.misbehaviour import Endpoint, Misbehaviour, NextReplies, draw, take
from connectors_grpc.simulator.notes import Notes
from connectors_grpc.simulator.record import Record
from connectors_grpc.simulator.settings import Client, SimulatorSettings
from connectors_grpc.simulator.state import load, save


class Simulator:
    """What the handlers of one app share.

    `clock` gives seconds since the epoch; tests may set it, and `clients`, at any time.
    Raises (on construction): StateFileInvalid, OSError.
    """

    def __init__(self, settings: SimulatorSettings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.url = settings.url
        self.clock = clock
        self.clients: dict[str, Client] = {client.client_id: client for client in settings.clients}
        self.accounts = {account.name: account for account in settings.accounts}
        self.next_replies: NextReplies = deque()
        self.record = Record()
        self.closing = asyncio.Event()
        self.book, self.notes = load(settings.state_file) if settings.state_file else (Book(), Notes())
        seeded = settings.seed is not None
        self._key = str(settings.seed).encode() if seeded else secrets.token_bytes(32)
        self._drawn: dict[str, int] = {}

    def mint(self, label: str) -> str:
        """An unguessable string: the same one for the same label under the same seed."""
        return base64.urlsafe_b64encode(self._mac(label)).rstrip(b"=").decode()

    def misbehaviour(self, endpoint: Endpoint, client_id: str | None) -> Misbehaviour | None:
        """How to answer this request wrongly: what is queued comes first, then the client's own habit."""
        queued = take(self.next_replies, endpoint, client_id)
        client = self.clients.get(client_id or "")
        habits = client.habits(endpoint) if client else ()
        if queued is not None or client is None or not habits:
            return queued
        label = f"misbehaviour.{endpoint.value}.{client.client_id}"
        ordinal = self._drawn[label] = self._drawn.get(label, 0) + 1
        return draw(habits, int.from_bytes(self._mac(f"{label}.{ordinal}")[:8], "big"))

    def changed(self) -> None:
        """Save what must survive a restart. Raises: OSError."""
        if self.settings.state_file:
            save(self.settings.state_file, self.book, self.notes)

    def close(self) -> None:
        """Let every hanging reply end."""
        self.closing.set()

    def _mac(self, label: str) -> bytes:
        return hmac.digest(self._key, label.encode(), hashlib.sha256)
