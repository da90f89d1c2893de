"""A stream of credentials to store: each item with an answer of its own, and nothing that one of them does ends the others."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from connectors_grpc.access import Access
from connectors_grpc.boundary import (
    FIRST_PAUSE,
    LONGEST_CALL,
    LONGEST_PAUSE,
    LONGEST_WAIT,
    caller,
    check_item,
    translate,
)
from connectors_grpc.credentials.importing import Imported
from connectors_grpc.errors import ConnectorsError, Reason, VaultUnavailable, invalid
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import error_reason_pb2 as reasons
from connectors_grpc.ports import Audit
from connectors_grpc.rpc import convert
from connectors_grpc.rpc.parse import PRINTABLE
from connectors_grpc.unordered import unordered

METHOD = "/connectors.v1.CredentialService/ImportCredentials"
ONE = "/connectors.v1.CredentialService/StoreCredential"
AT_ONCE = 16
LONGEST_NAME = 64
MOST_CONFLICTS = 3
AGAIN_AFTER = 1.0

Store = Callable[[pb.ImportCredentialsRequest], Awaitable[Imported]]


class Imports:
    """Answers streams of credentials."""

    def __init__(self, access: Access, audit: Audit) -> None:
        self._access = access
        self._audit = audit

    async def answers(
        self, requests: AsyncIterable[pb.ImportCredentialsRequest], store: Store, seconds: float | None
    ) -> AsyncIterator[pb.ImportCredentialsResponse]:
        """An answer for each item, as it is ready.  Units: `seconds` until the caller gives up; None: it does not.

        Raises: API_KEY_INVALID once the key is revoked, and what `requests` raises.
        """
        stream = _Stream(self._access, store, math.inf if seconds is None else time.monotonic() + seconds * 0.8)
        by = caller().id
        try:
            async with aclosing(unordered(requests, stream.answer, most=AT_ONCE, key=_target)) as found:
                async for answer in found:
                    yield answer
        finally:
            names = ("stored", "unchanged", "refused", *(("compared",) if stream.counted["compared"] else ()))
            result = ", ".join(f"{name} {stream.counted[name]}" for name in names)
            self._audit.record("ImportCredentials", caller=by, result=result)


class _Stream:
    """One stream. Once an item has waited for the Vault in vain, the next ones ask it once, until it is back."""

    def __init__(self, access: Access, store: Store, end: float) -> None:
        self._access = access
        self._store = store
        self._end = end
        self._in_vain = False
        self.counted: Counter[str] = Counter()

    async def answer(self, request: pb.ImportCredentialsRequest) -> pb.ImportCredentialsResponse:
        """What became of one item.  Raises: API_KEY_INVALID."""
        answer = pb.ImportCredentialsResponse(item=request.item[:LONGEST_NAME])
        try:
            async with asyncio.timeout(LONGEST_CALL):
                imported = await self._insist(request)
        except Exception as error:
            refusal = translate(error, METHOD)
            if refusal.reason is Reason.API_KEY_INVALID:
                raise
            answer.refusal.CopyFrom(_refusal(refusal))
        else:
            answer.credential.CopyFrom(convert.credential(imported.credential))
            answer.unchanged = imported.unchanged
            answer.ended = imported.ended
            answer.renewed = imported.renewed
        self.counted[_result(request, answer)] += 1
        return answer

    async def _insist(self, request: pb.ImportCredentialsRequest) -> Imported:
        """Store it, waiting for a Vault that is away, and reading again where another was first."""
        pause, conflicts, until = FIRST_PAUSE, 0, min(self._end, time.monotonic() + LONGEST_WAIT)
        while True:
            try:
                imported = await self._attempt(request)
            except VaultUnavailable:
                if self._in_vain or time.monotonic() + pause > until:
                    self._in_vain = True
                    raise
            except ConnectorsError as error:
                conflicts += 1
                if error.reason is not Reason.CONFLICT or asked(request).etag or conflicts > MOST_CONFLICTS:
                    raise
            else:
                self._in_vain = False
                return imported
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _attempt(self, request: pb.ImportCredentialsRequest) -> Imported:
        # The stream may be long: a key that was revoked meanwhile stores nothing more.
        await self._access.prove(caller().id, bytes.fromhex(caller().sha256))
        check_item(ONE, asked(request))
        if not 1 <= len(request.item) <= LONGEST_NAME or PRINTABLE.fullmatch(request.item) is None:
            raise invalid("item", f"1 to {LONGEST_NAME} printable characters are wanted")
        return await self._store(request)


def asked(request: pb.ImportCredentialsRequest) -> pb.StoreCredentialRequest:
    """The credential that the item is about, whatever is to be done with it."""
    match request.WhichOneof("wanted"):
        case "stage":
            return request.stage
        case "compare":
            return request.compare
        case _:
            return request.credential


def _target(request: pb.ImportCredentialsRequest) -> tuple[str, str]:
    """Which credential it is about."""
    wanted = asked(request)
    return wanted.tenant, wanted.credential or wanted.integration


def _result(request: pb.ImportCredentialsRequest, answer: pb.ImportCredentialsResponse) -> str:
    if answer.HasField("refusal"):
        return "refused"
    if request.HasField("compare"):
        return "compared"
    return "unchanged" if answer.unchanged else "stored"


def _refusal(error: ConnectorsError) -> pb.ImportRefusal:
    refusal = pb.ImportRefusal(
        reason=reasons.ErrorReason.Value(f"ERROR_REASON_{error.reason}"),
        message=error.meaning.text,
        field_violations=[
            pb.ImportFieldViolation(field=each.field, description=each.description) for each in error.fields
        ],
    )
    again = AGAIN_AFTER if error.reason is Reason.DEADLINE_EXCEEDED else error.retry_after
    if again is not None:
        refusal.retry_delay.FromMilliseconds(int(again * 1000))
    return refusal
