"""The order in which a request is judged, before anything is sent. Pure but for the cache's counters; knows no socket."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sidecar.door import app_key, refuse_browsers
from sidecar.framing import RequestHead
from sidecar.leases import Ask
from sidecar.problem import Problem
from sidecar.route import Fixed, Route, route

_HOST = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Door:
    """What a listener lets in. `hosts` are its own names, lower case; None for a Unix socket, which no browser reaches."""

    hosts: frozenset[bytes] | None
    key_required: bool
    fixed: Fixed | None = None


@dataclass(slots=True)
class Admitted:
    """A request that may be asked about: where it goes, and with whose key."""

    route: Route
    ask: Ask


def check_host(head: RequestHead, door: Door) -> None:
    """Before anything else (attacks 1, 7). Raises: Problem."""
    host = head.marks[b"host"]
    if door.hosts is not None and host in door.hosts:
        return
    if _HOST.fullmatch(host) is None:
        raise Problem("MALFORMED_REQUEST", "The Host line is not host:port.", close=True)
    if door.hosts is not None and host.lower() not in door.hosts:
        raise Problem("WRONG_HOST", close=True)


def admit(head: RequestHead, door: Door) -> Admitted:
    """Browser, method, address, key: in this order. The Host was checked. Raises: Problem, Malformed."""
    marks = head.marks
    refuse_browsers(marks)
    if head.method in (b"TRACE", b"CONNECT"):
        raise Problem("METHOD_NOT_ALLOWED", close=head.method == b"CONNECT")
    key = app_key(head.shown, required=door.key_required)
    where = route(head.target, marks.get(b"x-tenant-id"), door.fixed)
    return Admitted(where, Ask(where.tenant, where.credential, key))
