"""RPCs by their descriptors: every method of the contract, called with any message and any key, and its bare answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from connectors_grpc import policy
from connectors_grpc.rpc.server import SERVICES
from tests.canary import SESSION

Metadata = tuple[tuple[str, str], ...]
TRAILER = "grpc-status-details-bin"


@dataclass(frozen=True)
class Rpc:
    """One method of the contract."""

    path: str
    descriptor: Any

    @property
    def name(self) -> str:
        """Its short name."""
        return str(self.descriptor.name)

    @property
    def rule(self) -> policy.Rule:
        """Who may call it."""
        return policy.RULES[self.path]

    def request(self, tenant: str = "", credential: str = "") -> Message:
        """A message that names a tenant and a credential where the method's rule looks for them."""
        message: Message = message_factory.GetMessageClass(self.descriptor.input_type)()
        if self.rule.tenant and tenant:
            put(message, self.rule.tenant, tenant)
        if self.rule.credential and credential:
            put(message, self.rule.credential[0], credential)
        return message

    def accepts(self, path: str) -> bool:
        """Whether the request has that field."""
        return path in self.descriptor.input_type.fields_by_name


def put(message: Message, path: str, value: object) -> None:
    """Set a field by its dotted path."""
    *parents, name = path.split(".")
    target = message
    for parent in parents:
        target = getattr(target, parent)
    setattr(target, name, value)


def _all() -> tuple[Rpc, ...]:
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in SERVICES]
    return tuple(
        Rpc(f"/{service.full_name}/{method.name}", method) for service in services for method in service.methods
    )


RPCS = _all()


@dataclass(frozen=True)
class Answer:
    """How a call ended. `raw` is the google.rpc.Status as it came, `reply` the first message if there was one."""

    code: grpc.StatusCode
    text: str
    raw: bytes = b""
    reply: Any = None

    @property
    def status(self) -> status_pb2.Status:
        """The Status, read."""
        return status_pb2.Status.FromString(self.raw)

    @property
    def reason(self) -> str:
        """The one ErrorInfo's; OK if the call succeeded."""
        if self.code is grpc.StatusCode.OK:
            return "OK"
        infos = []
        for detail in self.status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                infos.append(info)
        assert len(infos) == 1, f"{self.code}: {self.text}: exactly one ErrorInfo is wanted"
        assert infos[0].domain == "connectors"
        return str(infos[0].reason)

    @property
    def denial(self) -> tuple[object, ...]:
        """All that a caller can tell two refusals apart by."""
        return self.code, self.text, self.raw


def bearer(key: str) -> Metadata:
    """How a key is sent."""
    return (("authorization", f"Bearer {key}"),)


async def ask(channel: grpc.aio.Channel, rpc: Rpc, request: Message, metadata: Metadata, timeout: float = 60) -> Answer:
    """Call a method; of a stream, the first message is enough."""
    kinds = rpc.descriptor
    decode = message_factory.GetMessageClass(kinds.output_type).FromString
    encode = type(request).SerializeToString
    if kinds.client_streaming:

        async def one() -> AsyncIterator[Message]:
            yield request

        return await ended(channel.stream_stream(rpc.path, encode, decode)(one(), metadata=metadata, timeout=timeout))
    if kinds.server_streaming:
        return await ended(channel.unary_stream(rpc.path, encode, decode)(request, metadata=metadata, timeout=timeout))
    return await ended(channel.unary_unary(rpc.path, encode, decode)(request, metadata=metadata, timeout=timeout))


async def ended(call: Any) -> Answer:
    """A call's end, or the first message of its stream."""
    try:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            return Answer(grpc.StatusCode.OK, "", reply=await call)
        async for reply in call:
            call.cancel()
            return Answer(grpc.StatusCode.OK, "", reply=reply)
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        raw = trailers.get(TRAILER, b"")
        assert isinstance(raw, bytes)
        SESSION.hear(f"{error.details()} {raw!r} {error.debug_error_string()}")
        return Answer(error.code(), error.details() or "", raw)
    return Answer(grpc.StatusCode.OK, "")
