"""Replies as they go on the wire: token replies and refusals by the RFCs, and the wrong ones on purpose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, assert_never

from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from connectors_grpc.simulator.misbehaviour import Misbehaviour
from connectors_grpc.simulator.protocol import Issued, Refusal

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
RETRY_AFTER = 7
HUGE = 10 * 1024 * 1024
CHUNK = 64 * 1024
LONGEST_HANG = 600.0


class HalfReply(Response):
    """Promises a whole body, sends half of it, and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send the head and half the body; returning early makes the server close the connection."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})


class Echo(Response):
    """The request's body as it comes. Not a StreamingResponse: that one reads for a disconnect, and loses pieces."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send each piece before the next is read, so that a slow reader slows the writer."""
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


class Hang(Response):
    """Never answers: waits until the client gives up, or the simulator closes."""

    def __init__(self, closing: asyncio.Event) -> None:
        super().__init__()
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the first of: client gone, simulator closing, LONGEST_HANG seconds."""
        waits = {asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(self._closing.wait())}
        try:
            await asyncio.wait(waits, timeout=LONGEST_HANG, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        await Response(status_code=503, headers={"Connection": "close"})(scope, receive, send)


def token_reply(issued: Issued, extra: Mapping[str, object]) -> dict[str, object]:
    """The document of a good token reply. Source: RFC 6749 section 5.1."""
    document: dict[str, object] = {"access_token": issued.access_token, "token_type": "Bearer", **extra}
    if issued.expires_in is not None:
        document["expires_in"] = issued.expires_in
    if issued.refresh_token is not None:
        document["refresh_token"] = issued.refresh_token
    return {**document, "scope": issued.scope}


def refusal_reply(refusal: Refusal) -> Response:
    """A refusal as JSON. Source: RFC 6749 section 5.2."""
    headers = dict(NO_STORE)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="simulator"'
    return error_reply(refusal.status, refusal.error, refusal.description, headers)


def error_reply(status: int, error: str, description: str, headers: Mapping[str, str] | None = None) -> Response:
    """An OAuth error document under a status."""
    return JSONResponse({"error": error, "error_description": description}, status, headers or NO_STORE)


def spoiled(what: Misbehaviour, good: Response, closing: asyncio.Event) -> Response:
    """The wrong form of a good reply, for those misbehaviours that come after acting."""
    if what is Misbehaviour.UNAVAILABLE_AFTER_ACTING:
        return error_reply(503, "temporarily_unavailable", "try again later")
    if what is Misbehaviour.HANG_AFTER_ACTING:
        return Hang(closing)
    if what is Misbehaviour.HALF_REPLY:
        return HalfReply(good.body, good.status_code, dict(good.headers))
    if what is Misbehaviour.WRONG_CONTENT_TYPE:
        return Response(good.body, good.status_code, NO_STORE, "text/html")
    document = json.loads(bytes(good.body))
    match what:
        case Misbehaviour.EXPIRES_IN_STRING:
            document["expires_in"] = str(document.get("expires_in", 3600))
        case Misbehaviour.EXPIRES_IN_NEGATIVE:
            document["expires_in"] = -1
        case Misbehaviour.EXPIRES_IN_MISSING:
            document.pop("expires_in", None)
        case _:  # REFRESH_TOKEN_OMITTED left its mark before acting
            pass
    return JSONResponse(document, good.status_code, NO_STORE)


def instead(what: Misbehaviour, *, url: str, secret: str, closing: asyncio.Event) -> Response | None:
    """The wrong reply that is given in place of acting; None for those that come after acting."""
    match what:
        case Misbehaviour.INVALID_GRANT_400 | Misbehaviour.INVALID_GRANT_401 | Misbehaviour.INVALID_GRANT_403:
            return error_reply(int(what.value[-3:]), "invalid_grant", "the grant is gone")
        case Misbehaviour.ERROR_IN_200:
            return JSONResponse({"ok": False, "error": "invalid_auth"}, 200, NO_STORE)
        case Misbehaviour.SLOW_DOWN:
            return error_reply(400, "slow_down", "ask less often")
        case Misbehaviour.RATE_LIMITED:
            return error_reply(429, "rate_limited", "ask less often", {"Retry-After": str(RETRY_AFTER)})
        case Misbehaviour.UNAVAILABLE:
            return error_reply(503, "temporarily_unavailable", "try again later")
        case Misbehaviour.UNAUTHORIZED:
            challenge = {"WWW-Authenticate": 'Bearer realm="simulator", error="invalid_token"'}
            return error_reply(401, "invalid_token", "the token is not accepted", challenge)
        case Misbehaviour.REDIRECT:
            return RedirectResponse(f"{url}/elsewhere", 307)
        case Misbehaviour.HUGE_BODY:
            return StreamingResponse(_huge(), 200, {"Content-Length": str(HUGE)}, "application/json")
        case Misbehaviour.ECHO_SECRET:
            return error_reply(400, "invalid_request", f"no such thing as {secret}")
        case Misbehaviour.HANG:
            return Hang(closing)
        case Misbehaviour.GARBAGE_JSON:
            return Response('{"access_token": "sim', 200, NO_STORE, "application/json")
        case Misbehaviour.NOT_AN_OBJECT:
            return JSONResponse(["access_token"], 200, NO_STORE)
        case (
            Misbehaviour.WRONG_CONTENT_TYPE
            | Misbehaviour.EXPIRES_IN_STRING
            | Misbehaviour.EXPIRES_IN_NEGATIVE
            | Misbehaviour.EXPIRES_IN_MISSING
            | Misbehaviour.REFRESH_TOKEN_OMITTED
            | Misbehaviour.UNAVAILABLE_AFTER_ACTING
            | Misbehaviour.HANG_AFTER_ACTING
            | Misbehaviour.HALF_REPLY
        ):
            return None
        case _ as never:  # pragma: no cover
            assert_never(never)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _huge() -> AsyncIterator[bytes]:
    """HUGE bytes of one JSON string, so that only a bound on size refuses it."""
    yield b'{"x":"'
    left = HUGE - 8
    while left:
        size = min(left, CHUNK)
        yield b"x" * size
        left -= size
    yield b'"}'
