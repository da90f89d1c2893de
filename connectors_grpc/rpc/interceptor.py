"""Puts the boundary around every handler of the server, whoever wrote it: ours, reflection's, channelz's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from connectors_grpc import policy
from connectors_grpc.boundary import Boundary, parsed
from connectors_grpc.errors import ConnectorsError
from connectors_grpc.rpc.status import abort
from connectors_grpc.secret import Secret

BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


def key_of(metadata: Any) -> Secret | None:
    """The API key of a call: `authorization: Bearer KEY`, or `x-api-key`. Two of them are none."""
    found = []
    for name, value in metadata or ():
        if name == "authorization" and isinstance(value, str):
            match = BEARER.fullmatch(value)
            found.append(match[1] if match else "")
        elif name == "x-api-key" and isinstance(value, str):
            found.append(value)
    return Secret(found[0]) if len(found) == 1 else None


class BoundaryInterceptor(grpc.aio.ServerInterceptor):
    """One for the whole server."""

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler; an unknown method is refused as a forbidden one is."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if method in policy.OPEN:
            return handler
        if handler is None:
            return grpc.unary_unary_rpc_method_handler(self._refuse(method))
        read = _lenient(handler.request_deserializer)
        if handler.unary_unary:
            call = self._unary(method, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(call, read, handler.response_serializer)
        if handler.unary_stream:
            call = self._unary_stream(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(call, read, handler.response_serializer)
        if handler.stream_stream:
            call = self._stream(method, handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(call, read, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(self._refuse(method))

    def _refuse(self, method: str) -> Any:
        async def nothing() -> None:
            raise policy.denied()

        async def refuse(_request: bytes, context: Any) -> None:
            key = key_of(context.invocation_metadata())
            try:
                await self._boundary.run(method, key, None, context.time_remaining(), nothing)
            except ConnectorsError as error:
                await abort(context, error)

        return refuse

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Any) -> Any:
            key = key_of(context.invocation_metadata())
            try:
                return await self._boundary.run(
                    method, key, request, context.time_remaining(), lambda: behaviour(request, context)
                )
            except ConnectorsError as error:
                await abort(context, error)

        return call

    def _unary_stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            key = key_of(context.invocation_metadata())
            try:
                async for answer in self._boundary.stream(method, key, request, lambda: behaviour(request, context)):
                    yield answer
            except ConnectorsError as error:
                await abort(context, error)

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(requests: Any, context: Any) -> AsyncIterator[Any]:
            key = key_of(context.invocation_metadata())
            work = partial(behaviour, parsed(requests), context)
            try:
                async for answer in self._boundary.stream(method, key, requests, work):
                    yield answer
            except ConnectorsError as error:
                await abort(context, error)

        return call


def _lenient(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """None for bytes that are no message: the refusal comes after the key was looked at, and in our words."""

    def parse(data: bytes) -> Any:
        try:
            return read(data) if read is not None else data
        except DecodeError:
            return None

    return parse
