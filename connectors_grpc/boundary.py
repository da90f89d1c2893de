"""What every call passes, over gRPC now and over REST by the same door: who calls, may they, is it whole, how long, what failed.

It must not know what an RPC does. The order is fixed: authenticate, authorise, validate, run, translate errors, log one line.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any, TypeVar

from google.api import field_behavior_pb2
from google.protobuf.message import Message

from connectors_grpc import logs, policy
from connectors_grpc.access import Access
from connectors_grpc.domain.records import ApiKey
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason
from connectors_grpc.secret import Secret

Answer = TypeVar("Answer")

CALLER: ContextVar[ApiKey] = ContextVar("caller")
"""The key that the call under way came with."""
DEADLINE: ContextVar[float] = ContextVar("deadline")
"""Seconds since some epoch of time.monotonic, when the caller gives up."""
LONGEST_CALL = 60.0

log = logs.get("rpc")


def caller() -> ApiKey:
    """Who calls."""
    return CALLER.get()


def time_left() -> float:
    """Seconds until the caller gives up; never negative."""
    return max(0.0, DEADLINE.get() - time.monotonic())


class Boundary:
    """The door. One for all servicers."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def admit(self, method: str, key: Secret | None) -> ApiKey:
        """Who calls, if the method is one of ours at all.

        Raises: API_KEY_MISSING, API_KEY_INVALID, PERMISSION_DENIED (no rule: nothing is open by omission).
        """
        if key is None:
            raise ConnectorsError(Reason.API_KEY_MISSING)
        admitted = await self._access.authenticate(key)
        rule = policy.RULES.get(method)
        if rule is None or not admitted.roles & rule.roles or (rule.platform and admitted.scope.tenants is not None):
            raise policy.denied()
        return admitted

    def check(self, method: str, admitted: ApiKey, request: Message) -> None:
        """Authorise, then validate. Raises: PERMISSION_DENIED, INVALID_FIELD."""
        rule = policy.RULES[method]
        tenant = _text(request, rule.tenant)
        credential = next((text for path in rule.credential if (text := _text(request, path))), "")
        policy.authorize(admitted, rule, tenant, credential)
        violations = tuple(missing(request))
        if violations:
            raise ConnectorsError(Reason.INVALID_FIELD, fields=violations)

    async def run(
        self,
        method: str,
        key: Secret | None,
        request: Message,
        timeout: float | None,
        work: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        """One unary call, whole. Raises: ConnectorsError, and nothing else."""
        began = time.monotonic()
        seconds = LONGEST_CALL if timeout is None else min(timeout, LONGEST_CALL)
        who, reason = "", "OK"
        try:
            async with asyncio.timeout(seconds):
                admitted = await self.admit(method, key)
                who = admitted.id
                self.check(method, admitted, request)
                CALLER.set(admitted)
                DEADLINE.set(began + seconds)
                return await work()
        except BaseException as error:
            refusal = translate(error, method)
            reason = refusal.reason.value
            raise refusal from None
        finally:
            spent = round((time.monotonic() - began) * 1000, 1)
            log.info("rpc", rpc=method, caller=who, reason=reason, duration_ms=spent)


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
    log.error("bug", rpc=method, incident=incident, error=type(error).__name__, stack=places[-12:])
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
