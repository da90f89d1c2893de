"""The edge to the server: ProxyService by gRPC, its refusals in our words. The only module that knows grpc."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as stubs
from connectors_grpc.logs import get
from connectors_grpc.secret import Secret

log = get("sidecar.server")

DEADLINE = 10.0
"""Seconds for a Lease."""
QUIET = 35.0
"""Seconds without an event or a heartbeat (one comes every 10 s) after which the watch is taken for dead."""
SHORTEST_WAIT, LONGEST_WAIT = 0.2, 15.0
_TRANSIENT = frozenset(("VAULT_UNAVAILABLE", "SERVER_UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "LIMIT_EXCEEDED"))


class Denied(Exception):
    """The server's word: no. `reason` is the contract's; `retry_after` in seconds where waiting helps."""

    def __init__(self, reason: str, metadata: Mapping[str, str], retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.metadata = metadata
        self.retry_after = retry_after


class Unreachable(Exception):
    """No answer that says anything about the credential: what is held may go on. `reason` is the contract's."""

    def __init__(self, reason: str = "SERVER_UNAVAILABLE", retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and how the sidecar proves itself. `ca` (PEM) means TLS."""

    target: str
    key: Secret | None = None
    tls: bool = False
    ca: bytes | None = field(default=None, repr=False)


class Server:
    """A channel to the server. Use as an async context manager."""

    def __init__(self, address: Address) -> None:
        options = [
            ("grpc.keepalive_time_ms", 60_000),  # a dead peer is found; not so often that a server calls it abuse
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 2),
            ("grpc.max_receive_message_length", 1 << 20),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]
        if address.tls:
            channel = grpc.aio.secure_channel(address.target, grpc.ssl_channel_credentials(address.ca), options)
        else:
            channel = grpc.aio.insecure_channel(address.target, options)
        self._channel = channel
        self._stub: Any = stubs.ProxyServiceStub(channel)
        self._key = address.key

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def reachable(self) -> bool:
        """Whether the channel is up just now."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    def _metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self._key.reveal()}")] if self._key is not None else []

    async def lease(self, request: pb.LeaseRequest) -> pb.LeaseResponse:
        """One Lease. Raises: Denied, Unreachable."""
        try:
            answer = await self._stub.Lease(request, timeout=DEADLINE, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise translate(error) from None
        assert isinstance(answer, pb.LeaseResponse)
        return answer

    async def yield_lease(self, hold_id: str) -> None:
        """Answer a hold. Raises: Denied, Unreachable."""
        request = pb.YieldLeaseRequest(hold_id=hold_id)
        try:
            await self._stub.YieldLease(request, timeout=DEADLINE, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise translate(error) from None

    def call_stream(self, key: Secret) -> Any:
        """One streamed call with an app's key: `write`, `done_writing` and `read` of grpc.aio. Errors: `translate`."""
        return heard_out(self._stub.CallStream(metadata=[("authorization", f"Bearer {key.reveal()}")]))

    async def events(self) -> AsyncIterator[pb.WatchLeasesResponse]:
        """One watch until it breaks; the caller begins again. Raises: Denied, Unreachable."""
        call = self._stub.WatchLeases(pb.WatchLeasesRequest(), metadata=self._metadata())
        try:
            while True:
                async with asyncio.timeout(QUIET):
                    event = await call.read()
                if not isinstance(event, pb.WatchLeasesResponse):
                    return
                yield event
        except TimeoutError:
            raise Unreachable from None
        except grpc.aio.AioRpcError as error:
            raise translate(error) from None
        finally:
            call.cancel()


class _HeardOut:
    """What grpc.aio has within a call, but for the one thing that it does to a call whose write fails."""

    def __init__(self, within: Any) -> None:
        self._within = within

    def __getattr__(self, name: str) -> Any:
        return getattr(self._within, name)

    def set_internal_error(self, _text: str) -> None:
        """Nothing: why the write failed, the server says itself."""


def heard_out(call: Any) -> Any:
    """A streamed call that is read to the end which the server gave it, whatever is written meanwhile.

    A server may answer, or refuse, before it has all of a body. The next write fails then, and grpc.aio takes that for the call's
    own end: what was not read yet is lost, and the server's status too.  Source: https://github.com/grpc/grpc/issues/36066
    """
    call._cython_call = _HeardOut(call._cython_call)  # noqa: SLF001 - there is no other way in
    return call


def pause(attempt: int, draw: float, retry_after: float | None = None) -> float:
    """Seconds before the next attempt: exponential, capped, full jitter, on top of what the server wants. `draw` is in [0, 1)."""
    longest = min(LONGEST_WAIT, SHORTEST_WAIT * 2.0 ** min(attempt, 16))
    return min(retry_after or 0.0, LONGEST_WAIT) + SHORTEST_WAIT / 2 + draw * longest


def draw() -> float:
    """Jitter: not a secret."""
    return random.random()  # noqa: S311


def translate(error: grpc.aio.AioRpcError) -> Denied | Unreachable:
    """What a failed call means."""
    info, retry_after = _details(error)
    code = error.code()
    if info is not None and info.reason not in _TRANSIENT:
        return Denied(info.reason, dict(info.metadata), retry_after)
    if info is not None:
        return Unreachable(info.reason, retry_after)
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return Denied("PERMISSION_DENIED", {})
    if code is grpc.StatusCode.NOT_FOUND:
        return Denied("CREDENTIAL_NOT_FOUND", {})
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Denied("NOT_IMPLEMENTED", {})
    return Unreachable(retry_after=retry_after)


def _details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo | None, float | None]:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        return None, None
    info: error_details_pb2.ErrorInfo | None = None
    retry_after: float | None = None
    for detail in status.details if status is not None else ():
        found, wait = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(found):
            info = found
        elif detail.Unpack(wait):
            retry_after = wait.retry_delay.ToTimedelta().total_seconds()
    return info, retry_after
