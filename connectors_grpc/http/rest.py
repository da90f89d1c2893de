"""REST: every annotated RPC as a route, through the same boundary and the same servicers as gRPC."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from connectors_grpc.boundary import Boundary, translate
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.http.transcoding import PARAMETER, Binding, bindings, problem, read_request, write_response
from connectors_grpc.secret import Secret

MOST_BODY = 8 * 1024 * 1024
BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Handler = Callable[[Any, Any], Awaitable[Any]]


class Rest:
    """Routes over `handlers`, the servicers' methods by RPC path."""

    def __init__(self, boundary: Boundary, services: Iterable[Any], handlers: Mapping[str, Handler]) -> None:
        self._boundary = boundary
        self._handlers = handlers
        self.bindings = tuple(binding for binding in bindings(services) if binding.rpc in handlers)

    def routes(self) -> list[Route]:
        """One a binding. Templates without parameters first: `/tenants` is not a tenant."""
        ordered = sorted(self.bindings, key=lambda binding: len(binding.parameters))
        return [Route(_path(binding), self._endpoint(binding), methods=[binding.verb]) for binding in ordered]

    def _endpoint(self, binding: Binding) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return await self._answer(binding, request)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:
                return refusal(translate(error, binding.rpc))

        return endpoint

    async def _answer(self, binding: Binding, request: Request) -> Response:
        """Through the boundary, malformed or not: who has no key learns nothing of what a body should look like."""
        message, malformed = await _read(binding, request)
        handler = self._handlers[binding.rpc]
        try:
            answer = await self._boundary.run(
                binding.rpc, key_of(request), message, None, lambda: handler(message, None)
            )
        except ConnectorsError as error:
            if malformed is not None and error.reason is Reason.MALFORMED_REQUEST:
                raise malformed from None
            raise
        content = json.dumps(write_response(binding, answer), ensure_ascii=False)
        return Response(content, 200, headers=HEADERS, media_type="application/json")


async def _read(binding: Binding, request: Request) -> tuple[Message | None, ConnectorsError | None]:
    """The request as a message, or why it is none."""
    path = {name.replace("__", "."): value for name, value in request.path_params.items()}
    try:
        return read_request(binding, path, request.query_params.multi_items(), await _body(request)), None
    except ConnectorsError as error:
        return None, error


def _path(binding: Binding) -> str:
    """The template as Starlette writes it: its parameters are names, and ours may be paths."""
    return PARAMETER.sub(lambda match: "{" + match[1].replace(".", "__") + "}", binding.template)


def key_of(request: Request) -> Secret | None:
    """`Authorization: Bearer KEY`, or `X-Api-Key`. Two of them are none."""
    found = [match[1] if (match := BEARER.fullmatch(line)) else "" for line in request.headers.getlist("authorization")]
    found += request.headers.getlist("x-api-key")
    return Secret(found[0]) if len(found) == 1 else None


async def _body(request: Request) -> bytes:
    """Up to MOST_BODY, and JSON by its own word. Raises: BODY_TOO_LARGE, MALFORMED_REQUEST."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_BODY:
            raise ConnectorsError(Reason.BODY_TOO_LARGE, {"limit_bytes": str(MOST_BODY)})
        chunks.append(chunk)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and kind != "application/json":
        raise ConnectorsError(Reason.MALFORMED_REQUEST, {"wanted": "Content-Type: application/json"})
    return b"".join(chunks)


def refusal(error: ConnectorsError) -> Response:
    """The error as problem+json.  Source: RFC 9457, RFC 9110 sections 10.2.3 and 11.6.1."""
    headers = {**HEADERS, "X-Connectors-Error": error.reason.value}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.reason in (Reason.API_KEY_MISSING, Reason.API_KEY_INVALID):
        headers["WWW-Authenticate"] = "Bearer"
    content = json.dumps(problem(error), ensure_ascii=False)
    return Response(content, error.meaning.http, headers=headers, media_type="application/problem+json")
