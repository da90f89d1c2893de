"""The order in which a request is judged, before anything is sent. Pure but for the cache's counters; knows no socket."""

from __future__ import annotations

import re
from dataclasses import dataclass

from connectors_grpc.inject import Target
from sidecar.door import AppKey, app_key, refuse_browsers
from sidecar.framing import Block, Own, RequestHead
from sidecar.leases import Ask
from sidecar.problem import Problem
from sidecar.route import Fixed, Route, pass_on, route

_HOST = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_REFUSED = frozenset((b"TRACE", b"CONNECT"))


@dataclass(frozen=True, slots=True)
class Door:
    """What a listener lets in. `hosts` are its own names, lower case; None for a Unix socket, which no browser reaches."""

    hosts: frozenset[bytes] | None
    key_required: bool
    fixed: Fixed | None = None


class Admitted:
    """A request that may be asked about: where it goes, and with whose key."""

    __slots__ = ("ask", "route", "target")

    def __init__(self, route: Route, target: Target, ask: Ask) -> None:
        self.route = route
        self.target = target
        self.ask = ask


class Visitor:
    """Who calls through one connection. An app repeats itself: what it showed and whom it asked for last is remembered, with
    what came of it, until the connection ends. Whether that still holds is never remembered: `Leases` is asked every time.
    """

    __slots__ = ("_ask", "_block", "_key", "_line", "_route", "door", "own")

    def __init__(self, door: Door) -> None:
        self.door = door
        self.own = Own()
        self._block: Block | None = None
        self._key: AppKey | None = None
        self._line: bytes | None = None
        self._route: Route | None = None
        self._ask: Ask | None = None

    def check_host(self, head: RequestHead) -> None:
        """Before anything else (attacks 1, 7). Raises: Problem."""
        host = head.marks[b"host"]
        hosts = self.door.hosts
        if hosts is not None and host in hosts:
            return
        if _HOST.fullmatch(host) is None:
            raise Problem("MALFORMED_REQUEST", "The Host line is not host:port.", close=True)
        if hosts is not None and host.lower() not in hosts:
            raise Problem("WRONG_HOST", close=True)

    def admit(self, head: RequestHead) -> Admitted:
        """Browser, method, key, address: in this order. The Host was checked. Raises: Problem, Malformed."""
        block = head.block
        if block is not self._block:
            refuse_browsers(block.marks)
        if head.method in _REFUSED:
            raise Problem("METHOD_NOT_ALLOWED", close=head.method == b"CONNECT")
        if block is not self._block:
            if self._block is None or block.shown != self._block.shown:
                self._ask = None
                self._key = app_key(block.shown, required=self.door.key_required)
            self._block = block
        target, line = head.target, head.marks.get(b"x-tenant-id")
        where, ask = self._route, self._ask
        if where is None or ask is None or line != self._line or not target.startswith(where.before):
            where = self._route = route(target, line, self.door.fixed)
            ask = self._ask = Ask(where.tenant, where.credential, self._key)
            self._line = line
        return Admitted(where, pass_on(target, where), ask)
