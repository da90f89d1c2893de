"""An app's connection: one request after the other, strictly in order. Finds heads, answers health, closes what is doubtful."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from sidecar.admission import Door, Visitor
from sidecar.framing import LONGEST_HEAD, Malformed, RequestHead, head_end, parse_request, still_text
from sidecar.problem import Problem, answer, plain, problem_of
from sidecar.route import READY, health

if TYPE_CHECKING:
    from sidecar.engine.engine import Engine
    from sidecar.engine.exchange import Exchange

_AHEAD, _UPLOAD = 1, 2


class Downstream:
    """A `Side`. Bounds: reads one receive buffer ahead of the request in flight, then stops reading."""

    __slots__ = (
        "blocked", "closing", "deadline", "engine", "exchange", "held", "keep_alive", "pending", "running", "transport", "view",
        "visitor",
    )  # fmt: skip

    def __init__(self, engine: Engine, door: Door) -> None:
        self.engine = engine
        self.visitor = Visitor(door)
        self.view = engine.view
        self.exchange: Exchange | None = None
        self.pending = b""
        self.held = 0
        self.blocked = False
        self.closing = False
        self.running = False
        self.keep_alive = True
        self.deadline = 0.0

    # --- asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For asyncio."""
        self.transport = cast(asyncio.Transport, transport)
        if not self.engine.joined(self):
            self.closing = True
            self.transport.write(
                answer(Problem("LIMIT_EXCEEDED", "Too many connections.", status=503), keep_alive=False)
            )
            self.transport.close()
            return
        self.deadline = self.engine.clock() + self.engine.limits.keep_alive

    def get_buffer(self, _sizehint: int) -> memoryview:
        """For asyncio: one buffer for all, since it is read before the next is filled."""
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        """For asyncio."""
        if self.closing:
            return
        exchange = self.exchange
        data = bytes(self.view[:nbytes])
        if exchange is None:
            self._read(data)
        elif exchange.upload.done:
            self.ahead(data)
        else:
            try:
                self.ahead(exchange.more(data))
            except Malformed as error:
                exchange.fail(problem_of(error))

    def eof_received(self) -> bool:
        """For asyncio: an app that ends its side is gone, and takes its request with it; half-closed apps are not served."""
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """For asyncio."""
        self.closing = True
        self.engine.left(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None and not exchange.ended:
            exchange.abandon()

    def pause_writing(self) -> None:
        """For asyncio: the app reads slowly, so the provider is not read."""
        self.blocked = True
        if self.exchange is not None:
            self.exchange.download_blocked(True)

    def resume_writing(self) -> None:
        """For asyncio."""
        self.blocked = False
        if self.exchange is not None:
            self.exchange.download_blocked(False)
        else:
            self._next()

    # --- reading

    @property
    def busy(self) -> bool:
        """Whether a request is in flight. Asked anew each time: a checker believes `exchange` unchanged over a call."""
        return self.exchange is not None

    @property
    def uploading(self) -> bool:
        """Whether the app is being listened to."""
        return not self.held

    def _hold(self, why: int, hold: bool) -> None:
        held = self.held | why if hold else self.held & ~why
        if bool(held) != bool(self.held) and not self.transport.is_closing():
            if held:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()
        self.held = held

    def hold_upload(self, hold: bool) -> None:
        """Stop, or go on, reading the request's body."""
        self._hold(_UPLOAD, hold)

    def ahead(self, data: bytes) -> None:
        """What came behind the request in flight: kept, and no more is read until its turn."""
        if data:
            self.pending += data
            self._hold(_AHEAD, True)

    def taken(self) -> bytes:
        """What was kept behind the request, now a tunnel's; reading goes on."""
        data, self.pending = self.pending, b""
        self._hold(_AHEAD, False)
        return data

    def _read(self, data: bytes) -> None:
        """Find one head and begin its exchange."""
        start = 0
        if self.pending:
            start = max(0, len(self.pending) - 3)
            data, self.pending = self.pending + data, b""
        own = self.visitor.own
        end = head_end(data, own, start)
        try:
            if end < 0:
                self._unfinished(data, start)
                return
            head = parse_request(data[:end], own)
        except Malformed as error:
            self._refuse(problem_of(error))
            return
        self._begin(head, data[end:])

    def _unfinished(self, data: bytes, start: int) -> None:
        """Raises: Malformed, as soon as it can't become a good head."""
        if len(data) > LONGEST_HEAD:
            raise Malformed("The head is too large.", 431)
        if not still_text(data[start:], data[start - 1 : start] if start else b""):
            raise Malformed("The head has a control character, or a bare CR or LF.")
        if not self.pending and not start:
            self.deadline = self.engine.clock() + self.engine.limits.head
        self.pending = data

    def _begin(self, head: RequestHead, data: bytes) -> None:
        self.keep_alive = head.keep_alive
        engine = self.engine
        exchange = self.exchange = engine.exchange(engine, self, head)
        try:
            self.visitor.check_host(head)
            asked = health(head.method, head.target)
            if asked is not None:
                self._health(exchange, asked, data)
                return
            exchange.start(self.visitor.admit(head), data, engine.clock())
        except Malformed as error:
            exchange.refuse(problem_of(error))
        except Problem as problem:
            if exchange.held is None and exchange.upload.done:
                self.ahead(data)
            elif exchange.held is None:
                exchange.upload.unread = data
            exchange.refuse(problem)

    def _health(self, exchange: Exchange, asked: bytes, data: bytes) -> None:
        ready = asked != READY or self.engine.ready()
        keep_alive = self.keep_alive = exchange.head.keep_alive and exchange.upload.done
        text = plain(
            200 if ready else 503,
            "ok\n" if ready else "The server can't be reached, and no lease is held.\n",
            head_only=exchange.head.method == b"HEAD",
            keep_alive=keep_alive,
        )
        self.ahead(data)
        exchange.ended = True
        self.write(text)
        self.finished(exchange, self.engine.clock())

    # --- writing

    def write(self, data: bytes) -> None:
        """To the app, unless it is gone."""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def finished(self, exchange: Exchange, now: float) -> None:
        """The answer is written: on to the next request, or close."""
        if self.exchange is exchange:
            self.exchange = None
        if self.transport.is_closing():
            return
        if not self.keep_alive:
            self._close(linger=not exchange.upload.done)
            return
        self.deadline = now + self.engine.limits.keep_alive
        if self.pending or self.held:
            self._hold(_UPLOAD, False)
            self._next()

    def _next(self) -> None:
        """Pipelined requests, one after the other; a loop, since an answer may be there at once."""
        if self.running:
            return
        self.running = True
        while self.pending and self.exchange is None and not self.blocked and not self.closing:
            data, self.pending = self.pending, b""
            self._read(data)
            if not self.busy and self.pending == data:
                break  # a head begun
        self.running = False
        if not self.closing and (not self.pending or (self.exchange is None and not self.blocked)):
            self._hold(_AHEAD, False)

    def _refuse(self, problem: Problem) -> None:
        """A head that is none: nothing can be said of what follows, so the connection closes."""
        self.engine.metrics.refused(problem.reason)
        self.write(answer(problem, keep_alive=False))
        self._close(linger=True)

    def _close(self, *, linger: bool) -> None:
        """Close once all is written; `linger` reads on for a while, lest a reset overtake the answer.

        Source: RFC 9112 section 9.6.
        """
        self.closing = True
        if linger and self.transport.can_write_eof():
            self.transport.write_eof()
            self._hold(_AHEAD | _UPLOAD, False)
            self.deadline = self.engine.clock() + self.engine.limits.linger
        else:
            self.transport.close()

    def abort(self) -> None:
        """Cut: the answer is not whole."""
        self.closing = True
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Close if nothing happened in time."""
        if self.exchange is None and now >= self.deadline:
            if self.pending and not self.closing:
                self._refuse(Problem("MALFORMED_REQUEST", "The head did not come in time.", status=408))
            else:
                self.transport.abort()
