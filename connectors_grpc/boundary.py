"""What every call passes, over gRPC, and over REST by the same door: who calls, may they, is it whole, how long, what failed.

It must not know what an RPC does. The order is fixed: authenticate, authorise, validate, run, translate errors, log one line.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

from google.api import field_behavior_pb2
from google.protobuf.message import Message

from connectors_grpc import logs, policy
from connectors_grpc.access import Access
from connectors_grpc.domain.records import ApiKey
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason, VaultUnavailable
from connectors_grpc.secret import Secret

Answer = TypeVar("Answer")

CALLER: ContextVar[ApiKey] = ContextVar("caller")
"""The key that the call under way came with."""
DEADLINE: ContextVar[float] = ContextVar("deadline")
"""Seconds since some epoch of time.monotonic, when the caller gives up."""
LONGEST_CALL = 60.0

FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WAIT = 0.1, 1.0, 20.0
"""Seconds between tries while the Vault is away, and how long a call waits for it at most."""
PATIENT = frozenset(
    f"/connectors.v1.{name}"
    for name in (
        "TenantService/GetTenant",
        "TenantService/ListTenants",
        "TenantService/GetTenantStatus",
        "TenantService/ListTenantStatuses",
        "TenantService/GetOperation",
        "IntegrationService/GetIntegration",
        "IntegrationService/ListIntegrations",
        "CredentialService/GetCredential",
        "CredentialService/ListCredentials",
        "CredentialService/RefreshCredential",
        "CredentialService/FetchAccessToken",
        "ProxyService/Lease",
        "AccessService/ListApiKeys",
    )
)
"""RPCs that only read, or hand out: they may begin anew. A write's outcome may be unknown, and is for its caller to judge."""
PATIENT_STREAMS = frozenset(("/connectors.v1.CredentialService/ImportCredentials",))
"""Streams whose callers wait anyway. Others turn to another server at once."""

log = logs.get("rpc")


def caller() -> ApiKey:
    """Who calls."""
    return CALLER.get()


def time_left() -> float:
    """Seconds until the caller gives up; never negative."""
    return max(0.0, DEADLINE.get() - time.monotonic())


@dataclass(slots=True)
class _Line:
    """What a call's log line will say."""

    caller: str = ""
    reason: str = "OK"


Observed = Callable[[str, str, float], None]
"""Told of each call at its end: method, reason (`OK`), seconds."""


@contextmanager
def _told(method: str, observed: Observed | None) -> Iterator[_Line]:
    """One log line at the end of a call, whatever the end is; and every failure as one that callers may see."""
    began, line = time.monotonic(), _Line()
    try:
        yield line
    except BaseException as error:
        line.reason = "CANCELLED"
        refusal = translate(error, method)
        line.reason = refusal.reason.value
        raise refusal from None
    finally:
        spent = time.monotonic() - began
        log.info("rpc", rpc=method, caller=line.caller, reason=line.reason, duration_ms=round(spent * 1000, 1))
        if observed is not None:
            observed(method, line.reason, spent)


class Boundary:
    """The door. One for all servicers. A request is None where the bytes that came are no message of the method."""

    def __init__(self, access: Access, observed: Observed | None = None) -> None:
        self._access = access
        self._observed = observed

    async def _authenticate(self, key: Secret | None) -> ApiKey:
        if key is None:
            raise ConnectorsError(Reason.API_KEY_MISSING)
        return await self._access.authenticate(key)

    async def _patiently(self, key: Secret | None) -> ApiKey:
        """As `_authenticate`, waiting for a Vault that is away."""
        pause, until = FIRST_PAUSE, time.monotonic() + LONGEST_WAIT
        while True:
            try:
                return await self._authenticate(key)
            except VaultUnavailable:
                if time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    @staticmethod
    def _rule(method: str, admitted: ApiKey) -> policy.Rule:
        """The method's rule, if it lets the key in. Raises: PERMISSION_DENIED (no rule: nothing is open by omission)."""
        rule = policy.RULES.get(method)
        if rule is None or not policy.admits(admitted, rule):
            raise policy.denied()
        return rule

    async def run(
        self,
        method: str,
        key: Secret | None,
        request: Message | None,
        timeout: float | None,
        work: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        """One unary call, whole. Raises: ConnectorsError, and nothing else.

        A Vault that is away for a moment is waited for by calls that may safely begin anew, within their deadlines.
        """
        began = time.monotonic()
        seconds = LONGEST_CALL if timeout is None else min(timeout, LONGEST_CALL)
        with _told(method, self._observed) as line:
            async with asyncio.timeout(seconds):
                DEADLINE.set(began + seconds)
                pause = FIRST_PAUSE
                while True:
                    try:
                        admitted = await self._authenticate(key)
                        line.caller = admitted.id
                        _check(self._rule(method, admitted), admitted, request)
                        CALLER.set(admitted)
                        return await work()
                    except VaultUnavailable:
                        if method not in PATIENT or time.monotonic() + pause > began + min(seconds * 0.8, LONGEST_WAIT):
                            raise
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)

    async def stream(
        self,
        method: str,
        key: Secret | None,
        request: Message | AsyncIterable[Message | None] | None,
        work: Callable[[], AsyncIterable[Answer]],
    ) -> AsyncIterator[Answer]:
        """One streamed call, whole. Its length is the caller's affair. Raises: ConnectorsError, and nothing else."""
        with _told(method, self._observed) as line:
            admitted = await (self._patiently(key) if method in PATIENT_STREAMS else self._authenticate(key))
            line.caller = admitted.id
            rule = self._rule(method, admitted)
            if request is None or isinstance(request, Message):
                _check(rule, admitted, request)
            CALLER.set(admitted)
            async for answer in work():
                yield answer


def _check(rule: policy.Rule, admitted: ApiKey, request: Message | None) -> None:
    """Authorise, then validate. Raises: PERMISSION_DENIED, MALFORMED_REQUEST, INVALID_FIELD."""
    if request is None:
        raise ConnectorsError(Reason.MALFORMED_REQUEST)
    tenant = _text(request, rule.tenant)
    credential = next((text for path in rule.credential if (text := _text(request, path))), "")
    policy.authorize(admitted, rule, tenant, credential)
    violations = tuple(missing(request))
    if violations:
        raise ConnectorsError(Reason.INVALID_FIELD, fields=violations)


def check_item(method: str, request: Message) -> None:
    """Authorise and validate one item of many as a call of `method` with it would be.

    Raises: PERMISSION_DENIED, INVALID_FIELD.
    """
    _check(policy.RULES[method], caller(), request)


async def parsed(messages: AsyncIterable[Message | None]) -> AsyncIterator[Message]:
    """A stream's messages. Raises: MALFORMED_REQUEST at the first that is none."""
    async for message in messages:
        if message is None:
            raise ConnectorsError(Reason.MALFORMED_REQUEST)
        yield message


def translate(error: BaseException, method: str) -> ConnectorsError:
    """Any failure as one that callers may see. A bug's text is dropped; type and places are logged under a number.

    Cancellation is not a failure: it is raised on.
    """
    if isinstance(error, ConnectorsError):
        return error
    if isinstance(error, TimeoutError):
        return ConnectorsError(Reason.DEADLINE_EXCEEDED)
    if not isinstance(error, Exception):
        raise error
    incident = secrets.token_hex(8)
    # Places only: an exception's text may quote what it choked on.
    places = [f"{PurePath(f.filename).name}:{f.lineno}:{f.name}" for f in traceback.extract_tb(error.__traceback__)]
    log.error("bug", rpc=method, incident=incident, error=type(error).__name__, stack=" ".join(places[-12:]))
    return ConnectorsError(Reason.INTERNAL, {"incident": incident})


def _text(message: Message, path: str) -> str:
    """A string field by its dotted path; empty where a part is not set."""
    value: object = message
    for name in path.split(".") if path else ():
        value = getattr(value, name)
    return value if isinstance(value, str) else ""


def missing(message: Message, prefix: str = "") -> list[FieldViolation]:
    """REQUIRED fields that are not set, by `google.api.field_behavior`, in messages that are set.  Source: AIP-203."""
    violations = []
    for field in message.DESCRIPTOR.fields:
        path = f"{prefix}{field.name}"
        if _is_required(field) and not _is_set(message, field):
            violations.append(FieldViolation(path, "required"))
        elif _is_ours(field) and message.HasField(field.name):
            violations += missing(getattr(message, field.name), f"{path}.")
    return violations


def _is_required(field: Any) -> bool:
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _is_set(message: Message, field: Any) -> bool:
    if field.is_repeated or not field.has_presence:
        return bool(getattr(message, field.name))
    return message.HasField(field.name)


def _is_ours(field: Any) -> bool:
    """A single message of our own package."""
    kind = field.message_type
    return kind is not None and not field.is_repeated and kind.full_name.startswith("connectors.v1.")
