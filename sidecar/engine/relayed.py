"""One request and its answer by way of the server (`--relay`): no lease, no credential ever reaches this process.

The app's own key goes to the server, which makes the call (CallStream). Here are only bytes: the body's pieces out under
gRPC's flow control, the answer's back as fast as the app reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc.aio

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.quota import Use
from connectors_grpc.secret import Secret
from sidecar.admission import Admitted
from sidecar.body import Body, Chunked, Sized, UntilClose
from sidecar.door import key_text
from sidecar.engine import heads, tunnel
from sidecar.engine.exchange import Exchange
from sidecar.engine.late import Wait
from sidecar.framing import CHUNKED, SHOWN, Fields, Malformed, RequestHead, ResponseHead
from sidecar.problem import Problem
from sidecar.server import Denied, translate

if TYPE_CHECKING:
    from sidecar.engine.downstream import Downstream
    from sidecar.engine.engine import Engine

PIECE = 64 * 1024
"""Bytes of one message, either way: the contract's."""
_STAYS = SHOWN | {b"host", b"transfer-encoding", b"expect", b"x-tenant-id", b"upgrade"}
"""Lines that the server has no use for. What else must not pass, it strips."""
_LINE = re.compile(rb"[^\r\n\0]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Relaying:
    """How to call the server, and with which key if the app shows none (Unix socket, `--open`)."""

    call: Callable[[Secret], Any]
    key: Secret | None = field(default=None, repr=False)


class Relayed(Exchange):
    """Bounds: one receive buffer of the request's body, one message of the answer's."""

    __slots__ = ("behind", "call", "came", "flowing")

    def __init__(self, engine: Engine, down: Downstream, head: RequestHead) -> None:
        super().__init__(engine, down, head)
        self.call: Any = None
        self.behind: Fields = []
        self.came = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()

    # --- the request

    def start(self, admitted: Admitted, data: bytes, now: float) -> None:
        """Begin, as Exchange says. Raises: Problem, Malformed."""
        relay = self.engine.relay
        assert relay is not None
        if b"upgrade" in self.head.marks and tunnel.asks(self.head):
            raise Problem("NOT_IMPLEMENTED", "A relay passes no WebSockets.")
        shown = key_text(self.head.block.shown, required=relay.key is None)
        key = Secret(shown.decode("latin-1")) if shown is not None else relay.key
        assert key is not None
        self.admitted = admitted
        self.began = now
        if self.engine.leases.bounded:
            self.share = self._enter(admitted, now)
        self.down.ahead(self.more(data) if self.head.length else data)
        if b"expect" in self.head.marks and self.head.http_1_1 and not data and not self.upload.done:
            self.down.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expect_answer(now)
        self.call = relay.call(key)
        self.task = self.engine.spawn(self._run(self.call, self._first(admitted)))

    def _enter(self, admitted: Admitted, now: float) -> Use:
        """Raises: Problem."""
        where, app = admitted.route, admitted.ask.key
        if app is None:
            return self.engine.quotas.enter(where.tenant or "", where.credential, now)
        return self.engine.quotas.enter_unproven(where.tenant or "", where.credential, app.sha256, now)

    def _let_in(self, good: bool) -> None:
        """The server has said what it thinks of the app's key: a call that it let in counts as the credential's from now on."""
        assert self.admitted is not None
        where, app, quotas = self.admitted.route, self.admitted.ask.key, self.engine.quotas
        if app is None or self.share is None:
            return
        if quotas.learn(where.tenant or "", where.credential, app.sha256, let_in=good):
            self.share.leave()
            self.share = None
            with contextlib.suppress(Problem):  # it was made already
                self.share = quotas.enter(where.tenant or "", where.credential, self.engine.clock())

    def _first(self, admitted: Admitted) -> pb.CallStreamRequest:
        lines = [(name, value) for name, value in self.head.fields if name.lower() not in _STAYS]
        headers = _lines(lines)
        return pb.CallStreamRequest(
            start=pb.CallRequest(
                tenant=admitted.route.tenant or "",
                credential=admitted.route.credential,
                method=self.head.method.decode(),
                path=admitted.target.request_target.decode(),
                headers=headers,
            )
        )

    def more(self, data: bytes) -> bytes:
        """More of the request's body; gives back what lies behind it. Raises: Malformed."""
        out, rest = self.upload.feed(data)
        if out:
            if self.share is not None:
                self.share.pay(len(out))
            self.upload.waiting.append(out)
            self.down.hold_upload(not self.upload.done)
        self.came.set()
        return rest

    def _body(self, length: int) -> Body:
        return Chunked(strict=True, keep=self._note, decode=True) if length == CHUNKED else Sized(length)

    def _note(self, fields: Fields) -> Fields:
        """The app's trailers, for the last part; the server strips what must not pass."""
        self.behind = [pair for pair in fields if pair[0].lower() not in _STAYS]
        return []

    async def _upload(self, call: Any, first: pb.CallStreamRequest) -> None:
        """The request, piece by piece. A call that ended meanwhile says why to who reads."""
        try:
            await call.write(first)
            while self.upload.waiting or not self.upload.done:
                if not self.upload.waiting:
                    self._expect_body()
                    self.came.clear()
                    await self.came.wait()
                    continue
                data = self.upload.taken(b"")
                self._expect_answer(self.engine.clock())
                for start in range(0, len(data), PIECE):
                    await call.write(pb.CallStreamRequest(body=data[start : start + PIECE]))
                if not self.upload.done and not self.ended:
                    self.down.hold_upload(False)
            self._expect_answer(self.engine.clock())
            if self.behind:
                await call.write(pb.CallStreamRequest(trailers=pb.Trailers(headers=_lines(self.behind))))
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return

    def _expect_body(self) -> None:
        if self.response is None:
            self.wait, self.deadline = Wait.APP, self.engine.clock() + self.engine.limits.upload_idle

    def _expect_answer(self, now: float) -> None:
        if self.response is None:
            limits = self.engine.limits
            self.wait, self.deadline = Wait.ANSWER, now + limits.lease + limits.connect + limits.first_byte

    # --- the answer

    async def _run(self, call: Any, first: pb.CallStreamRequest) -> None:
        uploading = asyncio.create_task(self._upload(call, first))
        try:
            await self._download(call)
        except grpc.aio.AioRpcError as error:
            problem = _problem(error)
            if problem.reason == "API_KEY_INVALID":
                self._let_in(False)
            self.fail(problem)
        except Malformed:
            self.fail(Problem("UPSTREAM_UNREACHABLE", "The upstream's answer broke the protocol."))
        except Exception:  # a bug: the app is told before the boundary of background work logs it
            self.fail(Problem("INTERNAL"))
            raise
        finally:
            call.cancel()
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)

    async def _download(self, call: Any) -> None:
        answer = await call.read()
        if self.ended:
            return
        if not isinstance(answer, pb.CallStreamResponse) or answer.WhichOneof("part") != "start":
            raise Malformed("The answer has no head.")
        self._let_in(True)
        self._begin(answer.start)
        trailers: Fields = []
        while not self.ended:
            await self.flowing.wait()
            piece = await call.read()
            if self.ended:
                return
            if not isinstance(piece, pb.CallStreamResponse):
                break
            if piece.WhichOneof("part") == "trailers":
                trailers = _fields(piece.trailers.headers)
            else:
                self._piece(piece.body)
        if not self.ended:
            assert self.out_body is not None
            end = self.out_body.end()
            if trailers and end:  # chunks: else there is no place for them
                end = end[:-2] + b"".join([b"%b: %b\r\n" % pair for pair in trailers]) + b"\r\n"
            self.down.write(end)
            self._finish(self.engine.clock(), reusable=False)

    def _begin(self, start: pb.CallResponse) -> None:
        """Write the head. Raises: Malformed."""
        assert self.admitted is not None
        fields, length = _checked(start)
        if self.head.method == b"HEAD" or start.http_status in (204, 304):
            length = 0
        chunked = length is None and self.head.http_1_1
        self.out_body = UntilClose(chunked) if length is None else Sized(length)
        keep_alive = self.head.keep_alive and self.upload.done and not self.engine.draining
        self.down.keep_alive = keep_alive = keep_alive and (length is not None or chunked)
        self.response = ResponseHead(start.http_status, b"", [], [], [], length or 0, keep_alive)
        self.engine.metrics.answered("relayed", start.http_status)
        self.down.write(
            heads.relayed(
                start.http_status, fields, start.base_url, self.admitted.route, self.head,
                chunked=chunked, keep_alive=keep_alive,
            )
        )  # fmt: skip
        self.moved()

    def _piece(self, data: bytes) -> None:
        assert self.out_body is not None
        out, rest = self.out_body.feed(data)
        if rest:
            raise Malformed("The body is longer than its length.")
        if self.share is not None:
            self.share.pay(len(out))
        self.down.write(out)
        self.moved()

    def download_blocked(self, blocked: bool) -> None:
        """The app reads slowly, or again."""
        if blocked:
            self.flowing.clear()
        else:
            self.flowing.set()

    # --- the end

    def _end(self, now: float, *, whole: bool = True) -> None:
        super()._end(now, whole=whole)
        self.came.set()
        self.flowing.set()
        if self.call is not None:
            self.call.cancel()


def _checked(start: pb.CallResponse) -> tuple[Fields, int | None]:
    """The lines, and the body's length if they say it. Raises: Malformed."""
    if not 200 <= start.http_status <= 599:
        raise Malformed("The status makes no sense.")
    fields = _fields(start.headers)
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    if len(lengths) > 1 or (lengths and _LENGTH.fullmatch(lengths[0]) is None):
        raise Malformed("The length makes no sense.")
    return fields, int(lengths[0]) if lengths else None


def _fields(headers: Iterable[pb.Header]) -> Fields:
    """Raises: Malformed."""
    try:
        fields = [(line.name.encode("latin-1"), line.value.encode("latin-1")) for line in headers]
    except UnicodeEncodeError:
        raise Malformed("A line is not Latin-1.") from None
    if not all(name and _LINE.fullmatch(name) and _LINE.fullmatch(value) for name, value in fields):
        raise Malformed("A line has a line's end.")
    return fields


def _lines(fields: Fields) -> list[pb.Header]:
    return [pb.Header(name=name.decode(), value=value.decode("latin-1")) for name, value in fields]


def _problem(error: grpc.aio.AioRpcError) -> Problem:
    """The server's refusal as the sidecar's own: what went wrong at the provider is named as if we had called."""
    found = translate(error)
    if isinstance(found, Denied):
        if found.reason == "PROVIDER_UNAVAILABLE" and "problem" in found.metadata:
            return Problem("UPSTREAM_TIMEOUT" if found.metadata["problem"] == "timeout" else "UPSTREAM_UNREACHABLE")
        return Problem(found.reason, metadata=found.metadata, retry_after=found.retry_after)
    return Problem(found.reason, retry_after=found.retry_after)
