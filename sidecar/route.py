"""Whose credential a request asks for, from its target and one header. Pure; it must not know keys, leases or sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

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


@dataclass(slots=True)
class Route:
    """Where a request goes. `tenant` is None if only the app's key can tell it; `prefix` is what addressed us in the path."""

    tenant: Tenant | None
    credential: Credential
    target: Target
    prefix: bytes
    vary: bool


def route(target: bytes, tenant_line: bytes | None, fixed: Fixed | None) -> Route:
    """Read `/~{tenant}/{credential}/rest`, `/{credential}/rest` with X-Tenant-Id, or a dedicated listener's path.

    Raises: Malformed (400).
    """
    named = _tenant(tenant_line)
    if fixed is not None:
        _agree(named, fixed.tenant)
        return Route(fixed.tenant, fixed.credential, _target(target), b"", False)
    match = _PATH.match(target)
    if match is None:
        raise Malformed("The path must be /~{tenant}/{credential}/..., or /{credential}/... with X-Tenant-Id.")
    given, credential = match.groups()
    rest = target[match.end() :]
    if rest[:1] != b"/":
        rest = b"/" + rest
    prefix = match[0]
    if given is None:
        return Route(named, Credential(credential.decode()), _target(rest), prefix, True)
    tenant = Tenant(given.decode())
    if tenant_line is not None:
        _agree(named, tenant)
    return Route(tenant, Credential(credential.decode()), _target(rest), prefix, False)


def _tenant(line: bytes | None) -> Tenant | None:
    if line is None:
        return None
    if _LABEL.fullmatch(line) is None:
        raise Malformed("X-Tenant-Id is not a tenant id.")
    return Tenant(line.decode())


def _agree(named: Tenant | None, tenant: Tenant) -> None:
    if named is not None and named != tenant:
        raise Malformed("X-Tenant-Id contradicts the address.")


def _target(rest: bytes) -> Target:
    try:
        return parse_target(rest)
    except TargetRefused as refused:
        raise Malformed(f"The path can't be passed on: {refused}.") from None


def health(method: bytes, target: bytes) -> bytes | None:
    """HEALTH or READY if the request is exactly that (attack 5), else None."""
    if target in (HEALTH, READY) and method in (b"GET", b"HEAD"):
        return target
    return None
