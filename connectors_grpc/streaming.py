"""ProxyService.CallStream: the server makes the call and passes bodies on as they come, both ways, a piece at a time.

The same `inject`, the same leases and the same refusals as Call; only the bodies are not kept.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass, field

from connectors_grpc import policy
from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.credentials.leasing import InUse, Leasing
from connectors_grpc.domain.ids import CredentialId, TenantId
from connectors_grpc.domain.records import ApiKey
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.inject import request_trailers, response_trailers
from connectors_grpc.metering import Metering
from connectors_grpc.ports import Audit, HttpRequest, HttpStream, StreamingOutbound
from connectors_grpc.proxying import Call, Composed, check, compose, judge

PIECE = 64 * 1024
"""Bytes of one message of a body, either way."""
MOST_STREAMS = 256
"""Of one server at once."""
MOST_OF_ONE = 64
"""Of those, of one tenant: a stream may last as long as its app likes, and must not take the others' place."""
KEPT = 1024 * 1024
"""Bytes of a request's body that are kept, for one resend after a refresh."""
UPLOAD_IDLE = 60.0
"""Seconds between two pieces of a request's body."""
PROVIDER_IDLE = 120.0
"""Seconds for the answer's head, from the body's end; and between two pieces of either body towards the provider."""
CONFIRM = 1.0
"""Seconds for which what was allowed is believed, while anything passes."""
_LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Head:
    """An answer's head; `base_url` is where the integration's API is."""

    status: int
    headers: tuple[tuple[str, str], ...]
    base_url: str


@dataclass(frozen=True, slots=True)
class Behind:
    """What follows a body, either way: trailers."""

    lines: tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Right:
    """Whether a stream may go on: who loses the right to the credential meanwhile loses the stream too, either way."""

    confirm: Callable[[], Awaitable[None]]
    asked: float = field(default_factory=time.monotonic)

    async def hold(self) -> None:
        """Ask again, if that is due. Raises: what `confirm` raises."""
        now = time.monotonic()
        if now - self.asked >= CONFIRM:
            self.asked = now
            await self.confirm()


@dataclass(slots=True)
class Upload:
    """A request's body on its way. What passed is kept up to KEPT; `whole` once it ended."""

    pieces: AsyncIterator[bytes | Behind]
    length: int | None
    right: Right
    passed: int = 0
    behind: tuple[tuple[bytes, bytes], ...] = ()
    kept: list[bytes] | None = field(default_factory=list)
    whole: bool = False
    pay: Callable[[int], None] = lambda _: None

    async def first(self) -> AsyncIterator[bytes] | None:
        """The body as it comes, or None if there is none, which is known only once the caller ended it."""
        if self.length == 0:
            return None
        piece = await self._next()
        return None if piece is None and not self.length else self._all(piece)

    async def _all(self, piece: bytes | None) -> AsyncIterator[bytes]:
        while piece is not None:
            yield piece
            piece = await self._next()

    async def _next(self) -> bytes | None:
        """Raises: DEADLINE_EXCEEDED, INVALID_FIELD, and as Right."""
        piece: bytes | None = b""
        while piece == b"":
            try:
                async with asyncio.timeout(UPLOAD_IDLE):
                    part = await anext(self.pieces, None)
            except TimeoutError:
                raise ConnectorsError(Reason.DEADLINE_EXCEEDED) from None
            await self.right.hold()
            if isinstance(part, Behind):
                self.behind = part.lines
            else:
                piece = part
        self.whole = piece is None
        self.passed += len(piece or b"")
        self.pay(len(piece or b""))
        if self.length is not None and (self.passed > self.length or (self.whole and self.passed < self.length)):
            raise invalid("body", "as many bytes as Content-Length says are wanted")
        if piece is not None and self.kept is not None:
            self.kept = [*self.kept, piece] if self.passed <= KEPT else None
        return piece

    def again(self) -> AsyncIterator[bytes] | None:
        """What was kept, as a body to send again. Only if it is whole."""
        return _replay(self.kept) if self.kept else None

    @property
    def may_repeat(self) -> bool:
        """Whether all of it was kept."""
        return self.kept is not None and (self.whole or self.length == 0)


class Streaming:
    """The use case of CallStream. Bounds: MOST_STREAMS, MOST_OF_ONE; per stream one piece each way, and KEPT."""

    def __init__(
        self, leasing: Leasing, metering: Metering, outbound: StreamingOutbound, calls: InFlight, audit: Audit
    ) -> None:
        self._leasing = leasing
        self._metering = metering
        self._outbound = outbound
        self._calls = calls
        self._audit = audit
        self._open: Counter[TenantId] = Counter()

    async def call(
        self,
        caller: ApiKey,
        tenant: TenantId,
        credential: CredentialId,
        call: Call,
        pieces: AsyncIterator[bytes | Behind],
    ) -> AsyncGenerator[Head | bytes | Behind, None]:
        """The answer's head, then its body, then perhaps trailers; `pieces` end in the same way.

        `call.body` is not looked at; a 401 is cured as Call does if the body was kept.
        Raises: PERMISSION_DENIED, LIMIT_EXCEEDED, DEADLINE_EXCEEDED, and what `Proxying.call` and `Leasing.confirm` raise.
        """
        policy.authorize(caller, policy.RULES["/connectors.v1.ProxyService/Call"], tenant, credential)
        check(call)
        judge(caller, credential, call)
        right = Right(lambda: self._leasing.confirm(caller, tenant, credential))
        upload = Upload(pieces, _length(call), right)
        for count, most in ((self._open[tenant], MOST_OF_ONE), (self._open.total(), MOST_STREAMS)):
            if count >= most:
                raise ConnectorsError(Reason.LIMIT_EXCEEDED, {"limit": str(most)})
        self._open[tenant] += 1
        try:
            async with (
                self._metering.call(caller, tenant) as share,
                aclosing(self._answer(caller, tenant, credential, call, upload)) as parts,
            ):
                upload.pay = share.pay
                async for part in parts:
                    if isinstance(part, bytes):
                        share.pay(len(part))
                    yield part
        finally:
            self._open[tenant] -= 1
            self._open += Counter()  # none at zero

    async def _answer(
        self, caller: ApiKey, tenant: TenantId, credential: CredentialId, call: Call, upload: Upload
    ) -> AsyncGenerator[Head | bytes | Behind, None]:
        use = await self._leasing.use(caller, tenant, credential)
        generation = use.held.credential.generation
        async with AsyncExitStack() as stack:
            under_way = stack.enter_context(ExitStack())
            under_way.enter_context(self._calls.call((use.tenant.uid, credential, generation)))
            composed, reply = await self._send(stack, use, call, await upload.first(), upload)
            if reply.status == 401 and use.held.credential.refreshable and upload.may_repeat:
                under_way.close()  # a refresh may wait for calls with the old token: this one is answered
                use = await self._leasing.use(caller, tenant, credential, rejected_generation=generation)
                if use.held.credential.generation != generation:
                    await stack.pop_all().aclose()
                    composed, reply = await self._send(stack, use, call, upload.again(), upload)
            result = str(reply.status)
            self._audit.record(
                "CallStream", caller=caller.id, tenant=tenant, target=credential, generation=generation, result=result
            )
            if _endless(reply.headers):
                under_way.close()  # the provider has let it in, and no refresh can wait for its end
            yield Head(reply.status, composed.passed_back(reply.headers), use.api.base_url)
            async for piece in reply.body:
                await upload.right.hold()
                for start in range(0, len(piece), PIECE):
                    yield piece[start : start + PIECE]
            if reply.trailers and (lines := response_trailers(composed.plan, reply.trailers)):
                yield Behind(tuple(lines))

    async def _send(
        self, stack: AsyncExitStack, use: InUse, call: Call, body: AsyncIterator[bytes] | None, upload: Upload
    ) -> tuple[Composed, HttpStream]:
        composed = compose(use, call)
        request = HttpRequest(
            method=call.method,
            url=composed.url,
            headers=composed.headers,
            body=b"",
            allow_private_addresses=use.integration.allow_private_addresses,
            timeout=PROVIDER_IDLE,
            max_body=0,
            integration=use.integration.id,
        )
        stream = self._outbound.stream(
            request, body, upload.length, lambda: request_trailers(composed.plan, upload.behind)
        )
        return composed, await stack.enter_async_context(stream)


def _endless(headers: tuple[tuple[str, str], ...]) -> bool:
    """Whether an answer is a stream of events.  Source: HTML Living Standard section 9.2."""
    kinds = (value for name, value in headers if name.lower() == "content-type")
    return any(kind.lower().startswith("text/event-stream") for kind in kinds)


async def _replay(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _length(call: Call) -> int | None:
    """What the caller says of the body's length. Raises: INVALID_FIELD."""
    found = [value for name, value in call.headers if name.lower() == "content-length"]
    if not found:
        return None
    if len(found) > 1 or _LENGTH.fullmatch(found[0]) is None:
        raise invalid("headers", "at most one Content-Length, a number")
    return int(found[0])
