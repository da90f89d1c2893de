"""ProxyService.Call: the server makes the call, so that no credential leaves it. The same `inject` as the sidecar's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from connectors_grpc.credentials.identity import Identity, identity_headers, identity_method, read_identity
from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.credentials.leasing import InUse, Leasing
from connectors_grpc.domain.ids import CredentialId, TenantId
from connectors_grpc.domain.records import ApiKey, CallRule
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.inject import (
    CallNotAllowed,
    HostNotAllowed,
    PathNotAllowed,
    Plan,
    Rules,
    TargetRefused,
    parse_target,
)
from connectors_grpc.metering import Metering
from connectors_grpc.ports import Audit, HttpReply, HttpRequest, Outbound

MOST_BODY = 4 * 1024 * 1024
MOST_REPLY_BODY = MOST_BODY - 128 * 1024
"""With its headers it fits in the 4 MiB that gRPC clients take unless told otherwise."""
MOST_HEADERS = 100
METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,16384}")
Lines = tuple[tuple[str, str], ...]
"""Header lines, in order."""
LONGEST = 60.0
"""Seconds; a caller's deadline only shortens it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call to make, as the app asked for it."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class Proxying:
    """The use case of Call."""

    def __init__(self, leasing: Leasing, metering: Metering, outbound: Outbound, calls: InFlight, audit: Audit) -> None:
        self._leasing = leasing
        self._metering = metering
        self._calls = calls
        self._outbound = outbound
        self._audit = audit

    async def call(
        self, caller: ApiKey, tenant: TenantId, credential: CredentialId, call: Call, timeout: float
    ) -> HttpReply:
        """Make the call; a 401 of a refreshable credential is answered by one refresh and one resend.

        The provider's answer is returned whatever its status; redirects are passed back, not followed (attack 13).
        Raises: INVALID_FIELD, BODY_TOO_LARGE, PATH_NOT_ALLOWED, HOST_NOT_ALLOWED, and what `Metering.call` and `Leasing.use`
        raise.
        """
        check(call)
        judge(caller, credential, call)
        async with self._metering.call(caller, tenant) as share:
            share.pay(len(call.body))
            reply = await self._made(caller, tenant, credential, call, timeout)
            share.pay(len(reply.body))
        return reply

    async def _made(
        self, caller: ApiKey, tenant: TenantId, credential: CredentialId, call: Call, timeout: float
    ) -> HttpReply:
        use = await self._leasing.use(caller, tenant, credential, min_ttl=timedelta(seconds=min(timeout, LONGEST)))
        generation = use.held.credential.generation
        # A refresh that would kill this token waits for the call to end.
        with self._calls.call((use.tenant.uid, credential, generation)):
            reply = await self._send(use, call, timeout)
        if reply.status == 401 and use.held.credential.refreshable:
            again = await self._leasing.use(caller, tenant, credential, rejected_generation=generation)
            if again.held.credential.generation != generation:
                reply = await self._send(again, call, timeout)
        self._audit.record(
            "Call", caller=caller.id, tenant=tenant, target=credential, generation=generation, result=str(reply.status)
        )
        return reply

    async def verify(self, caller: ApiKey, tenant: TenantId, credential: CredentialId) -> Identity:
        """What the integration's identity call says. Raises: INTEGRATION_NOT_CONFIGURED, and as `call`."""
        use = await self._leasing.use(caller, tenant, credential)
        if not use.api.identity_path:
            raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "api.identity_path"})
        headers = [(name.decode(), value.decode()) for name, value in identity_headers(use.api)]
        body = use.api.identity_body.encode("ascii")
        call = Call(identity_method(use.api), use.api.identity_path, headers, body)
        with self._calls.call((use.tenant.uid, credential, use.held.credential.generation)):
            reply = await self._send(use, call, LONGEST)
        identity = read_identity(reply, use.api)
        result = "accepted" if identity.accepted else "not accepted"
        self._audit.record("VerifyCredential", caller=caller.id, tenant=tenant, target=credential, result=result)
        return identity

    async def _send(self, use: InUse, call: Call, timeout: float) -> HttpReply:
        composed = compose(use, call)
        reply = await self._outbound.send(
            HttpRequest(
                method=call.method,
                url=composed.url,
                headers=composed.headers,
                body=call.body,
                allow_private_addresses=use.integration.allow_private_addresses,
                timeout=min(timeout, LONGEST),
                max_body=MOST_REPLY_BODY,
                integration=use.integration.id,
                tenant=use.tenant.id,
            )
        )
        return HttpReply(reply.status, composed.passed_back(reply.headers), reply.body)


@dataclass(frozen=True, slots=True)
class Composed:
    """A call as it is sent: the credential put in. `repr` hides it."""

    plan: Plan
    url: str
    headers: Lines

    def __repr__(self) -> str:
        return f"Composed({self.plan!r})"

    def passed_back(self, headers: Lines) -> Lines:
        """The reply's header lines that the caller may see."""
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in self.plan.response_headers(raw))


def compose(use: InUse, call: Call) -> Composed:
    """Put the credential in, by the same `inject` as the sidecar.

    Raises: HOST_NOT_ALLOWED, PATH_NOT_ALLOWED, INVALID_FIELD.
    """
    try:
        plan = Plan.of(
            use.injection,
            base_url=use.api.base_url,
            allowed_hosts=use.allowed_hosts,
            default_headers=use.api.default_headers,
            refused_urls=use.refused_urls,
            pass_cookies=use.api.pass_cookies,
        )
        target = plan.target(parse_target(call.path.encode()))
    except HostNotAllowed as error:
        raise ConnectorsError(Reason.HOST_NOT_ALLOWED, {"host": str(error.args[0])}) from None
    except PathNotAllowed:
        raise ConnectorsError(Reason.PATH_NOT_ALLOWED) from None
    except TargetRefused as error:
        raise invalid("path", str(error.args[0])) from None
    lines = [(name.encode(), value.encode("latin-1")) for name, value in call.headers]
    headers = [line for line in plan.request_headers(lines) if line[0].lower() not in _SENDERS]
    return Composed(
        plan,
        f"{plan.scheme}://{plan.authority.decode()}{target.decode()}",
        tuple((name.decode(), value.decode("latin-1")) for name, value in headers),
    )


_SENDERS = frozenset((b"host", b"content-length"))
"""Set by whoever sends."""


def judge(caller: ApiKey, credential: CredentialId, call: Call) -> None:
    """Hold a call to the key's rules, by the target that will be sent. Raises: PERMISSION_DENIED, INVALID_FIELD."""
    if not caller.rules:
        return
    try:
        rules = _compiled(caller.rules)
        if rules is not None:
            names = [name.encode() for name, _ in call.headers]
            rules.check(credential, call.method.encode(), parse_target(call.path.encode()), names)
    except TargetRefused as error:
        raise invalid("path", str(error.args[0])) from None
    except CallNotAllowed:
        raise ConnectorsError(Reason.PERMISSION_DENIED, {"denied_by": "rules"}) from None


@lru_cache(maxsize=256)
def _compiled(rules: tuple[CallRule, ...]) -> Rules | None:
    return Rules.of([(rule.methods, rule.path, rule.credentials) for rule in rules])


def check(call: Call) -> None:
    """Refuse what can't be sent as it is. Raises: INVALID_FIELD, BODY_TOO_LARGE."""
    if METHOD.fullmatch(call.method) is None or call.method.upper() in ("TRACE", "CONNECT"):
        raise invalid("method", "an HTTP method but TRACE and CONNECT is wanted")
    if len(call.path) > 8192 or not call.path.startswith("/") or not call.path.isascii():
        raise invalid("path", "a path that begins with / is wanted, up to 8,192 ASCII characters")
    if len(call.headers) > MOST_HEADERS:
        raise invalid("headers", f"at most {MOST_HEADERS} header lines")
    for index, (name, value) in enumerate(call.headers):
        if NAME.fullmatch(name) is None:
            raise invalid(f"headers[{index}].name", "a header name of RFC 9110 section 5.1 is wanted")
        if VALUE.fullmatch(value) is None or value != value.strip():
            raise invalid(
                f"headers[{index}].value", "a header value without CR, LF, NUL or surrounding white space is wanted"
            )
    if len(call.body) > MOST_BODY:
        raise ConnectorsError(Reason.BODY_TOO_LARGE, {"limit_bytes": str(MOST_BODY)})
