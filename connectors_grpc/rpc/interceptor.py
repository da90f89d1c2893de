"""Puts the boundary around every handler of the server, whoever wrote it: ours, reflection's, channelz's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from connectors_grpc import policy
from connectors_grpc.boundary import CALLER, Boundary, translate
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
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._unary_stream(method, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(method, handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(self._refuse(method))

    def _refuse(self, method: str) -> Any:
        async def refuse(_request: bytes, context: Any) -> None:
            try:
                await self._boundary.admit(method, key_of(context.invocation_metadata()))
            except ConnectorsError as error:
                await abort(context, error)
            await abort(context, policy.denied())

        return refuse

    def _unary(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Any) -> Any:
            try:
                return await self._boundary.run(
                    method,
                    key_of(context.invocation_metadata()),
                    request,
                    context.time_remaining(),
                    lambda: behaviour(request, context),
                )
            except ConnectorsError as error:
                await abort(context, error)

        return call

    def _unary_stream(self, method: str, behaviour: Any) -> Any:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                admitted = await self._boundary.admit(method, key_of(context.invocation_metadata()))
                self._boundary.check(method, admitted, request)
                CALLER.set(admitted)
                async for answer in behaviour(request, context):
                    yield answer
            except Exception as error:
                await abort(context, translate(error, method))

        return call

    def _stream(self, method: str, behaviour: Any) -> Any:
        async def call(requests: Any, context: Any) -> AsyncIterator[Any]:
            try:
                CALLER.set(await self._boundary.admit(method, key_of(context.invocation_metadata())))
                async for answer in behaviour(requests, context):
                    yield answer
            except Exception as error:
                await abort(context, translate(error, method))

        return call
