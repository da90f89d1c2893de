"""The notes API and the routes that show who is calling, each behind a bearer token, an API key or Basic."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from connectors_grpc.simulator import protocol
from connectors_grpc.simulator.misbehaviour import Endpoint
from connectors_grpc.simulator.notes import NoteInvalid, ShelfFull, parse_note
from connectors_grpc.simulator.parameters import MOST_BODY, parse_basic, parse_json
from connectors_grpc.simulator.protocol import Holder
from connectors_grpc.simulator.record import SeenRequest
from connectors_grpc.simulator.replies import CHUNK, Echo, instead, spoiled
from connectors_grpc.simulator.settings import Account
from connectors_grpc.simulator.simulator import Simulator

MOST_BYTES = 256 * 1024 * 1024
MOST_EVENTS = 1_000
LONGEST_INTERVAL = 1_000
MOST_A_PAGE = 100
BODY_DEADLINE = 30.0

Handler = Callable[[Request, Holder], Awaitable[Response]]


class ApiRoutes:
    """The handlers of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._sim = simulator

    def routes(self) -> list[Route]:
        """Every route of the service."""
        bearer = self._bearer
        return [
            Route("/userinfo", bearer(self.userinfo)),
            Route("/v1/whoami", bearer(self.whoami)),
            Route("/v1/notes", bearer(self.list_notes), methods=["GET"]),
            Route("/v1/notes", bearer(self.create_note), methods=["POST"]),
            Route("/v1/notes/{id}", bearer(self.one_note), methods=["GET", "PATCH", "DELETE"]),
            Route("/v1/echo", bearer(self.echo), methods=["POST"]),
            Route("/v1/stream", bearer(self.events)),
            Route("/v1/bytes/{n}", bearer(self.some_bytes)),
            Route("/keyed/whoami", self.keyed_whoami),
            Route("/basic/whoami", self.basic_whoami),
        ]

    def _bearer(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """The handler behind a valid bearer token, and behind what is queued for the API. Source: RFC 6750."""

        async def guarded(request: Request) -> Response:
            holder = self._holder(request)
            if holder is None:
                had = "authorization" in request.headers
                return _unauthorized("Bearer", "invalid_token" if had else None)
            seen: SeenRequest = request.scope["seen"]
            seen.account, seen.client_id, seen.token_id = holder.account, holder.client_id, holder.token_id
            wrong = self._sim.misbehaviour(Endpoint.API, holder.client_id)
            if wrong is None:
                return await handler(request, holder)
            reply = instead(wrong, url=self._sim.url, secret=_bearer_token(request) or "", closing=self._sim.closing)
            return reply or spoiled(wrong, await self.whoami(request, holder), self._sim.closing)

        return guarded

    def _holder(self, request: Request) -> Holder | None:
        token = _bearer_token(request)
        return protocol.introspect(self._sim.book, token, self._sim.clock()) if token else None

    async def userinfo(self, _request: Request, holder: Holder) -> Response:
        """Who consented, in OpenID Connect's words."""
        return JSONResponse({"sub": holder.account, "name": holder.account.title()})

    async def whoami(self, _request: Request, holder: Holder) -> Response:
        """Which account and which token is in use; never the token."""
        return JSONResponse(asdict(holder))

    async def list_notes(self, request: Request, holder: Holder) -> Response:
        """A page of the account's notes; `Link` leads to the next."""
        limit = _number(request.query_params.get("limit", "20"), MOST_A_PAGE)
        if not limit:
            return _problem(400, "limit must be a number from 1 to 100")
        notes, after = self._sim.notes.page(holder.account, request.query_params.get("after"), limit)
        link = f'<{self._sim.url}/v1/notes?limit={limit}&after={after}>; rel="next"'
        return JSONResponse(
            {"notes": [asdict(note) for note in notes], "next": after}, headers={"Link": link} if after else None
        )

    async def create_note(self, request: Request, holder: Holder) -> Response:
        """Put a note on the account's shelf."""
        try:
            sent = parse_note(await _json(request), whole=True)
            note = self._sim.notes.create(holder.account, sent["title"], sent.get("text", ""))
        except NoteInvalid as invalid:
            return _problem(400, str(invalid))
        except ShelfFull:
            return _problem(409, "the account has as many notes as it may")
        self._sim.changed()
        return JSONResponse(asdict(note), 201, {"Location": f"{self._sim.url}/v1/notes/{note.id}"})

    async def one_note(self, request: Request, holder: Holder) -> Response:
        """Read, change or delete one note of the account."""
        note_id: str = request.path_params["id"]
        if request.method == "DELETE":
            if not self._sim.notes.delete(holder.account, note_id):
                return _problem(404, "no such note")
            self._sim.changed()
            return Response(status_code=204)
        if request.method != "PATCH":
            note = self._sim.notes.get(holder.account, note_id)
            return _problem(404, "no such note") if note is None else JSONResponse(asdict(note))
        try:
            sent = parse_note(await _json(request), whole=False)
        except NoteInvalid as invalid:
            return _problem(400, str(invalid))
        note = self._sim.notes.update(holder.account, note_id, sent)
        if note is None:
            return _problem(404, "no such note")
        self._sim.changed()
        return JSONResponse(asdict(note))

    async def echo(self, request: Request, _holder: Holder) -> Response:
        """The body, streamed back as it comes, under its own content type."""
        media_type = request.headers.get("content-type", "application/octet-stream")
        return Echo(headers={"Content-Type": media_type})

    async def events(self, request: Request, _holder: Holder) -> Response:
        """Server-sent events. Bounds: `count` to MOST_EVENTS, `interval` to LONGEST_INTERVAL milliseconds."""
        count = _number(request.query_params.get("count", "5"), MOST_EVENTS)
        interval = _number(request.query_params.get("interval", "0"), LONGEST_INTERVAL)
        if count is None or interval is None:
            return _problem(400, "count must be at most 1000, interval at most 1000 ms")
        stream = self._events(count, interval / 1000)
        return StreamingResponse(stream, headers={"Cache-Control": "no-store"}, media_type="text/event-stream")

    async def _events(self, count: int, interval: float) -> AsyncIterator[bytes]:
        for number in range(1, count + 1):
            yield f"id: {number}\nevent: tick\ndata: {number}\n\n".encode()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._sim.closing.wait()
            if self._sim.closing.is_set():
                return

    async def some_bytes(self, request: Request, _holder: Holder) -> Response:
        """`n` bytes, always the same. Bounds: MOST_BYTES."""
        size = _number(request.path_params["n"], MOST_BYTES)
        if size is None:
            return _problem(400, "n must be a number of at most 268435456")
        return StreamingResponse(
            _pattern(size), headers={"Content-Length": str(size)}, media_type="application/octet-stream"
        )

    async def keyed_whoami(self, request: Request) -> Response:
        """Whose API key is in `X-Api-Key`."""
        key = request.headers.get("x-api-key", "")
        return self._whose(request, lambda account: _same(account.api_key, key)) or _unauthorized("ApiKey", None)

    async def basic_whoami(self, request: Request) -> Response:
        """Whose password, or API key in the user's place, is in Basic."""
        pair = parse_basic(request.headers.get("authorization", ""))
        if pair is None:
            return _unauthorized("Basic", None)
        user, password = pair

        def fits(account: Account) -> bool:
            by_name = account.name == user and _same(account.password, password)
            return by_name or (password == "" and _same(account.api_key, user))

        return self._whose(request, fits) or _unauthorized("Basic", None)

    def _whose(self, request: Request, fits: Callable[[Account], bool]) -> Response | None:
        for account in self._sim.accounts.values():
            if fits(account):
                request.scope["seen"].account = account.name
                return JSONResponse({"account": account.name})
        return None


def _bearer_token(request: Request) -> str | None:
    """The token in exactly one `Authorization: Bearer`; None otherwise. Source: RFC 6750 section 2.1."""
    headers = request.headers.getlist("authorization")
    scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else None


def _same(expected: str | None, given: str) -> bool:
    return expected is not None and hmac.compare_digest(expected.encode(), given.encode())


def _number(text: str, most: int) -> int | None:
    """A decimal number from 0 to `most`; None otherwise."""
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        return None
    return int(text) if int(text) <= most else None


def _unauthorized(scheme: str, error: str | None) -> Response:
    challenge = f'{scheme} realm="simulator"' + (f', error="{error}"' if error else "")
    reply = _problem(401, "a valid credential is needed")
    reply.headers["WWW-Authenticate"] = challenge
    return reply


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


async def _json(request: Request) -> object:
    """The JSON in a body; None where there is none, it is too large or too slow, or the client left."""
    kept = b""
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            async for chunk in request.stream():
                kept += chunk[: 1 + MOST_BODY - len(kept)]
    except (ClientDisconnect, TimeoutError):
        return None
    return parse_json(kept)


async def _pattern(size: int) -> AsyncIterator[bytes]:
    block = bytes(range(256)) * (CHUNK // 256)
    for start in range(0, size, CHUNK):
        yield block[: min(CHUNK, size - start)]
