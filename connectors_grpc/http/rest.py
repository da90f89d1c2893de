"""REST: every annotated RPC as a route, through the same boundary and the same servicers as gRPC."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from connectors_grpc.boundary import Boundary, translate
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.http.transcoding import Binding, bindings, problem, read_request, shape, write_response
from connectors_grpc.secret import Secret

MOST_BODY = 8 * 1024 * 1024
MOST_BODIES = 64 * 1024 * 1024
"""Bytes of bodies that are held while they come in, of all requests together."""
BODY_DEADLINE = 30.0
"""Seconds from a request's head to its body's end."""
BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Handler = Callable[[Any, Any], Awaitable[Any]]


class Rest:
    """Routes over `handlers`, the servicers' methods by RPC path."""

    def __init__(self, boundary: Boundary, services: Iterable[Any], handlers: Mapping[str, Handler]) -> None:
        self._boundary = boundary
        self._handlers = handlers
        self._bodies = _Bodies()
        self.bindings = tuple(binding for binding in bindings(services) if binding.rpc in handlers)

    def routes(self) -> list[Route]:
        """One a path, whatever its verbs. Paths without parameters first: `/tenants` is not a tenant."""
        paths: dict[str, dict[str, Binding]] = {}
        for binding in sorted(self.bindings, key=lambda binding: len(binding.parameters)):
            paths.setdefault(shape(binding.template), {})[binding.verb] = binding
        return [Route(_path(path), self._endpoint(verbs), methods=list(verbs)) for path, verbs in paths.items()]

    def _endpoint(self, verbs: Mapping[str, Binding]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            binding = verbs["GET" if request.method == "HEAD" else request.method]
            try:
                return await self._answer(binding, request)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:
                return refusal(translate(error, binding.rpc))

        return endpoint

    async def _answer(self, binding: Binding, request: Request) -> Response:
        """Through the boundary, malformed or not: who has no key learns nothing of what a body should look like."""
        key = key_of(request)
        message, malformed = (None, None) if key is None else await self._read(binding, request)
        handler = self._handlers[binding.rpc]
        try:
            answer = await self._boundary.run(binding.rpc, key, message, None, lambda: handler(message, None))
        except ConnectorsError as error:
            if malformed is not None and error.reason is Reason.MALFORMED_REQUEST:
                raise malformed from None
            raise
        return json_response(write_response(binding, answer))

    async def _read(self, binding: Binding, request: Request) -> tuple[Message | None, ConnectorsError | None]:
        """The request as a message, or why it is none."""
        names, values = binding.parameters, request.path_params
        path = {name: unquote(values[f"p{number}"]) for number, name in enumerate(names)}
        try:
            async with self._bodies.held(request) as body:
                return read_request(binding, path, request.query_params.multi_items(), body), None
        except ConnectorsError as error:
            return None, error
        except TimeoutError:
            return None, ConnectorsError(Reason.DEADLINE_EXCEEDED)


def _path(shaped: str) -> str:
    """The shape as Starlette writes it: its parameters are names, and ours may be paths."""
    numbers = iter(range(shaped.count("{}")))
    return re.sub(r"\{\}", lambda _: f"{{p{next(numbers)}}}", shaped)


def key_of(request: Request) -> Secret | None:
    """`Authorization: Bearer KEY`, or `X-Api-Key`. Two of them are none."""
    found = [match[1] if (match := BEARER.fullmatch(line)) else "" for line in request.headers.getlist("authorization")]
    found += request.headers.getlist("x-api-key")
    return Secret(found[0]) if len(found) == 1 else None


class _Bodies:
    """Reads bodies, and knows how much of them is held: a key is asked for later, so that strangers could fill the memory."""

    def __init__(self) -> None:
        self._held = 0

    @asynccontextmanager
    async def held(self, request: Request) -> AsyncIterator[bytes]:
        """A body up to MOST_BODY, JSON by its own word.

        Raises: BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, LIMIT_EXCEEDED, and TimeoutError.
        """
        _check_head(request)
        chunks, size = [], 0
        try:
            async with asyncio.timeout(BODY_DEADLINE):
                async for chunk in request.stream():
                    size += len(chunk)
                    self._held += len(chunk)
                    if size > MOST_BODY:
                        raise _too_large()
                    if self._held > MOST_BODIES:
                        raise ConnectorsError(Reason.LIMIT_EXCEEDED, retry_after=1.0)
                    chunks.append(chunk)
            if size:
                _check_kind(request)
            yield b"".join(chunks)
        finally:
            self._held -= size


def _check_head(request: Request) -> None:
    """What can be refused before a byte of the body was read."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > MOST_BODY:
        raise _too_large()
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ConnectorsError(Reason.UNSUPPORTED_MEDIA_TYPE)


def _check_kind(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]*)", parameters)
    if kind.strip() != "application/json" or (charset and charset[1] not in ("utf-8", "utf8")):
        raise ConnectorsError(Reason.UNSUPPORTED_MEDIA_TYPE)


def _too_large() -> ConnectorsError:
    return ConnectorsError(Reason.BODY_TOO_LARGE, {"limit_bytes": str(MOST_BODY)})


def json_response(document: Any) -> Response:
    """A document that was asked for."""
    content = json.dumps(document, ensure_ascii=False)
    return Response(content, 200, headers=HEADERS, media_type="application/json")


def refusal(error: ConnectorsError, more: Mapping[str, str] | None = None) -> Response:
    """The error as problem+json, with `more` headers.  Source: RFC 9457, RFC 9110 sections 10.2.3 and 11.6.1, RFC 6750."""
    headers = {**HEADERS, **(more or {}), "X-Connectors-Error": error.reason.value}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.reason is Reason.API_KEY_MISSING:
        headers["WWW-Authenticate"] = "Bearer"
    if error.reason is Reason.API_KEY_INVALID:
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    content = json.dumps(problem(error), ensure_ascii=False)
    return Response(content, error.meaning.http, headers=headers, media_type="application/problem+json")
