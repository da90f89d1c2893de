"""What the sidecar holds of the server's word: a lease compiled for use, and a grant of an app key. No socket, no clock.

Times are seconds of the loop's clock, so that a stepped wall clock neither lengthens nor ends a lease.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.inject import Injection, Plan, Rules
from connectors_grpc.inject.memo import shared
from connectors_grpc.quota import NO_QUOTA, Quota
from connectors_grpc.secret import Secret
from sidecar.retrying import Signs
from sidecar.route import Credential, Tenant

YOUNG = 30.0
"""Seconds in which a new token's 401 is not the token's age (attack 33)."""
SHORTEST_TTL = 1.0
LONGEST_TTL = 3600.0
ALL = frozenset(("*",))


@dataclass(frozen=True, slots=True)
class Chosen:
    """What this sidecar's operator chose: integrations with a client certificate, and those whose calls are retried."""

    certified: frozenset[str] = frozenset()
    retried: frozenset[str] = frozenset()
    workers: int = 1
    """Processes that share a tenant's quota."""


NOTHING_CHOSEN = Chosen()


class OriginKey(NamedTuple):
    """What makes two upstream connections interchangeable. A tuple, since it is looked up for every request."""

    tls: bool
    host: str
    port: int
    private: bool
    identity: str = ""
    """The integration whose client certificate the connection shows, or nothing."""


@dataclass(slots=True, eq=False)
class Held:
    """One lease. `quota` is its tenant's; `signs` are of an API whose calls are retried.

    `stale`: ask again before the next use. `rejected`: its 401 was asked about already.
    """

    tenant: Tenant
    credential: Credential
    tenant_uid: str
    integration: str
    generation: int
    plan: Plan
    origin: OriginKey
    refreshable: bool
    issued: float
    expires: float
    refresh_at: float
    grace_until: float
    quota: Quota = NO_QUOTA
    signs: Signs | None = None
    stale: bool = False
    renewing: bool = False
    rejected: bool = False

    def usable(self, now: float) -> bool:
        """Whether it may be used at all."""
        return now < self.expires and now < self.grace_until

    def fresh(self, now: float) -> bool:
        """Whether it may be used without asking anybody."""
        return now < self.refresh_at and now < self.expires and not self.stale

    def renews(self, older: Held) -> bool:
        """Whether it is a later generation of that very tenant's credential: ids are taken again (attack 38)."""
        return self.tenant_uid == older.tenant_uid and self.generation > older.generation

    def curable(self, now: float) -> bool:
        """Whether a 401 is worth asking about: once a generation, and not for a young token."""
        return self.refreshable and not self.rejected and now - self.issued >= YOUNG


@dataclass(slots=True, eq=False)
class Grant:
    """What one app key may do."""

    key_id: str
    sha256: bytes = field(repr=False)
    tenants: frozenset[str]
    credentials: frozenset[str]
    expires: float
    refresh_at: float
    grace_until: float
    stale: bool = False
    rules: Rules | None = None

    def proves(self, sha256: bytes) -> bool:
        """Whether the key shown is this one, compared in constant time (attack 4)."""
        return hmac.compare_digest(self.sha256, sha256)

    def covers(self, tenant: str, credential: str) -> bool:
        """Whether the scope has both."""
        tenants, credentials = self.tenants, self.credentials
        return (tenants is ALL or tenant in tenants) and (credentials is ALL or credential in credentials)

    def only_tenant(self) -> Tenant | None:
        """The one tenant that the key is bound to, if it is one."""
        return Tenant(next(iter(self.tenants))) if self.tenants is not ALL and len(self.tenants) == 1 else None

    def usable(self, now: float) -> bool:
        """Whether it may be believed at all."""
        return now < self.expires and now < self.grace_until

    def fresh(self, now: float) -> bool:
        """Whether it may be believed without asking anybody."""
        return now < self.refresh_at and now < self.expires and not self.stale


NARROWING = 1000
"""Fields of this number and above narrow what may be done with a lease or a key: whoever does not know one refuses."""


class TooNew(Exception):
    """A newer server narrows this in a way that we do not know."""


def _refuse_unknown(message: pb.Lease | pb.AppGrant) -> None:
    """Fail closed on what a newer server forbids.  Raises: TooNew."""
    unknown = UnknownFieldSet(message)
    if any(unknown[at].field_number >= NARROWING for at in range(len(unknown))):
        raise TooNew


def hold(lease: pb.Lease, *, wall: float, now: float, chosen: Chosen = NOTHING_CHOSEN) -> Held:
    """Compile a lease. `wall` and `now` are one moment on both clocks.

    Raises: HostNotAllowed (the base URL was not sealed with the credential), ValueError (malformed), TooNew.
    """
    _refuse_unknown(lease)
    injection = Injection(_injected(lease.headers), _injected(lease.query))
    plan = Plan.of(
        injection,
        base_url=lease.base_url,
        allowed_hosts=lease.allowed_hosts,
        default_headers={h.name: h.value for h in lease.default_headers},
        refused_urls=lease.refused_urls,
        pass_cookies=lease.pass_cookies,
    )
    ttl = _ttl(lease.refresh_after_ttl.ToTimedelta().total_seconds())
    expires = now + lease.expire_time.ToMilliseconds() / 1000 - wall if lease.HasField("expire_time") else math.inf
    issued = now + lease.issue_time.ToMilliseconds() / 1000 - wall if lease.HasField("issue_time") else -math.inf
    return Held(
        tenant=Tenant(lease.tenant),
        credential=Credential(shared(lease.credential)),
        tenant_uid=lease.tenant_uid,
        integration=shared(lease.integration),
        generation=lease.generation,
        plan=plan,
        origin=shared(
            _origin(
                plan, lease.allow_private_addresses, lease.integration if lease.integration in chosen.certified else ""
            )
        ),
        refreshable=lease.refreshable,
        signs=Signs.of(lease.retry) if lease.integration in chosen.retried else None,
        issued=issued,
        expires=expires,
        refresh_at=now + ttl,
        grace_until=now + ttl + max(0.0, lease.grace_ttl.ToTimedelta().total_seconds()),
        quota=_quota(lease).part(chosen.workers),
    )


def _quota(lease: pb.Lease) -> Quota:
    if not lease.HasField("quota"):
        return NO_QUOTA
    quota = lease.quota
    return Quota(*(max(0, bound) for bound in (quota.calls_at_once, quota.calls_per_second, quota.bytes_per_second)))


def grant(app: pb.AppGrant, sha256: bytes, *, wall: float, now: float, grace: float) -> Grant:
    """Hold what the server says of a key. Units: grace in seconds, how long an unreachable server is excused.

    Raises: RuleRefused, TooNew (a newer server's rules: fail closed).
    """
    _refuse_unknown(app)
    ttl = _ttl(app.ttl.ToTimedelta().total_seconds())
    return Grant(
        key_id=app.key_id,
        sha256=sha256,
        tenants=_scope(app.tenants),
        credentials=_scope(app.credentials),
        expires=now + app.expire_time.ToMilliseconds() / 1000 - wall if app.HasField("expire_time") else math.inf,
        refresh_at=now + ttl,
        grace_until=now + ttl + grace,
        rules=Rules.of([(rule.methods, rule.path, rule.credentials) for rule in app.rules]),
    )


def _injected(fields: Iterable[pb.InjectedField]) -> dict[str, Secret]:
    return {item.name: Secret(item.value) for item in fields}


def _scope(ids: Iterable[str]) -> frozenset[str]:
    scope = frozenset(ids)
    return ALL if scope == ALL else scope


def _ttl(seconds: float) -> float:
    return min(max(seconds, SHORTEST_TTL), LONGEST_TTL)


def _origin(plan: Plan, private: bool, identity: str) -> OriginKey:
    host, colon, port = plan.authority.decode().rpartition(":")
    if not colon or port.endswith("]"):
        host, port = plan.authority.decode(), "443" if plan.scheme == "https" else "80"
    return OriginKey(plan.scheme == "https", host.strip("[]"), int(port), private, identity)
