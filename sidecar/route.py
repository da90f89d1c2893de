"""Whose credential a request asks for, from its target and one header. Pure; it must not know keys, leases or sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, NewType

from connectors_grpc.inject import Target, TargetRefused, parse_target
from sidecar.framing import Malformed

Tenant = NewType("Tenant", str)
Credential = NewType("Credential", str)

LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""A lower-case DNS label, 1 to 63 characters: the grammar of every identifier.  Source: RFC 1123 section 2.1."""
_LABEL = re.compile(LABEL.encode())
_PATH = re.compile(rb"(?:/~(%b))?/(%b)(?=[/?]|\Z)" % (LABEL.encode(), LABEL.encode()))

HEALTH = b"/-/healthz"
READY = b"/-/readyz"


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a dedicated listener is for."""

    tenant: Tenant
    credential: Credential


class Route(NamedTuple):
    """Whom requests are for. `tenant` is None if only the app's key can tell it; `prefix` is what addressed us in the path,
    `before` the same with its slash: what begins so, and has the same X-Tenant-Id, goes the same way. A tuple, since a frozen
    dataclass takes four times as long to make.
    """

    tenant: Tenant | None
    credential: Credential
    prefix: bytes
    before: bytes
    vary: bool


def route(target: bytes, tenant_line: bytes | None, fixed: Fixed | None) -> Route:
    """Read `/~{tenant}/{credential}/rest`, `/{credential}/rest` with X-Tenant-Id, or a dedicated listener's path.

    Raises: Malformed (400).
    """
    named = _tenant(tenant_line)
    if fixed is not None:
        _agree(named, fixed.tenant)
        return Route(fixed.tenant, fixed.credential, b"", b"/", False)
    match = _PATH.match(target)
    if match is None:
        raise Malformed("The path must be /~{tenant}/{credential}/..., or /{credential}/... with X-Tenant-Id.")
    given, credential = match.groups()
    prefix = match[0]
    before = prefix + b"/"
    if given is None:
        return Route(named, Credential(credential.decode()), prefix, before, True)
    tenant = Tenant(given.decode())
    if tenant_line is not None:
        _agree(named, tenant)
    return Route(tenant, Credential(credential.decode()), prefix, before, False)


def pass_on(target: bytes, where: Route) -> Target:
    """What follows the route's prefix: the target at the upstream. Raises: Malformed (400)."""
    rest = target[len(where.prefix) :]
    if where.prefix and rest[:1] != b"/":
        rest = b"/" + rest
    try:
        return parse_target(rest)
    except TargetRefused as refused:
        raise Malformed(f"The path can't be passed on: {refused}.") from None


def _tenant(line: bytes | None) -> Tenant | None:
    if line is None:
        return None
    if _LABEL.fullmatch(line) is None:
        raise Malformed("X-Tenant-Id is not a tenant id.")
    return Tenant(line.decode())


def _agree(named: Tenant | None, tenant: Tenant) -> None:
    if named is not None and named != tenant:
        raise Malformed("X-Tenant-Id contradicts the address.")


def health(method: bytes, target: bytes) -> bytes | None:
    """HEALTH or READY if the request is exactly that (attack 5), else None."""
    if target.startswith(b"/-/") and target in (HEALTH, READY) and method in (b"GET", b"HEAD"):
        return target
    return None
