"""One request and its answer, between an app's connection and a provider's. Sync but for two waits: a lease, a cure for a 401."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from connectors_grpc.inject import PathNotAllowed, request_trailers
from connectors_grpc.quota import Use
from sidecar.admission import Admitted
from sidecar.body import Body, Chunked, Sized, of_answer
from sidecar.engine import again, heads, tunnel
from sidecar.engine.late import Wait
from sidecar.engine.upload import Upload
from sidecar.framing import CHUNKED, Fields, Malformed, RequestHead, ResponseHead
from sidecar.held import Held
from sidecar.problem import Problem, answer, problem_of

if TYPE_CHECKING:
    from sidecar.engine.downstream import Downstream
    from sidecar.engine.engine import Engine
    from sidecar.engine.upstream import Upstream


class Exchange:
    """Bounds: one receive buffer each way, besides what its upload keeps."""

    __slots__ = (
        "admitted", "began", "curing", "deadline", "down", "ended", "engine", "head", "heard", "held", "interims", "out_body",
        "patience", "problem", "resent", "response", "retried", "sent", "share", "task", "tunnelled", "upgrade", "upload",
        "upstream", "wait",
    )  # fmt: skip

    def __init__(self, engine: Engine, down: Downstream, head: RequestHead) -> None:
        self.engine = engine
        self.down = down
        self.head = head
        self.began = 0.0
        self.problem: Problem | None = None
        self.patience: again.Patience | None = None
        self.admitted: Admitted | None = None
        self.held: Held | None = None
        self.upstream: Upstream | None = None
        self.upload = engine.no_upload if head.length == 0 else Upload(engine, self._body(head.length))
        self.sent = b""
        self.heard = False
        self.response: ResponseHead | None = None
        self.out_body: Body | None = None
        self.curing: bytes | None = None
        self.interims = 0
        self.retried = False
        self.resent = False
        self.share: Use | None = None
        self.upgrade = False
        self.tunnelled = False
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self.wait = Wait.LEASE
        self.deadline = 0.0

    # --- the request

    def start(self, admitted: Admitted, data: bytes, now: float) -> None:
        """Begin, with what came after the head; what lies behind the body goes back to the app's connection.

        Raises: Problem, Malformed. If `held` is still None then, `data` was not looked at.
        """
        self.admitted = admitted
        self.began = now
        if b"upgrade" in self.head.marks:
            self.upgrade = tunnel.asks(self.head)
        held = self.held = self.engine.leases.find(admitted.ask, now)
        if held is not None:
            if self.head.length:
                data = self._scan(data)
            if data:
                self.down.ahead(data)
            self._go(held)
            return
        self.deadline = now + self.engine.limits.lease
        if self.upload.done:
            self.down.ahead(data)
        else:
            self.upload.unread = data
            self.down.hold_upload(True)
        self.task = self.engine.spawn(self._lease(admitted))

    async def _lease(self, admitted: Admitted) -> None:
        try:
            held = await self.engine.leases.get(admitted.ask)
            if self.ended:
                return
            self.held = held
            if not self.upload.done:
                self.down.ahead(self._scan(self.upload.read_on()))
            self._go(held)
        except (Problem, Malformed) as error:
            self.refuse(problem_of(error))

    def _go(self, held: Held) -> None:
        """Write the head and ask for a connection. Raises: Problem."""
        admitted = self.admitted
        assert admitted is not None
        if self.engine.leases.ruled:
            self.engine.leases.judge(admitted.ask, self.head, admitted.target)
        if self.engine.leases.bounded and self.share is None:
            self.share = self.engine.quotas.enter(held.tenant, held.credential, self.engine.clock(), held.quota)
            self.share.pay(sum(map(len, self.upload.waiting)))
        try:
            self.sent = heads.request(self.head, held.plan, admitted.target)
        except PathNotAllowed:
            raise Problem("PATH_NOT_ALLOWED") from None
        if self.upgrade:
            if self.engine.tunnels >= self.engine.limits.tunnels:
                raise Problem("LIMIT_EXCEEDED", "Too many WebSockets are open.")
            self.sent = tunnel.upgrading(self.sent)
        origin = self.engine.origin(held.origin)
        upstream = origin.take()
        if upstream is not None:
            upstream.begin(self)
            self.connected(upstream)
            return
        self.wait = Wait.CONNECTION
        self.deadline = self.engine.clock() + self.engine.limits.connect
        origin.queue(self)

    def more(self, data: bytes) -> bytes:
        """More of the request's body; gives back what lies behind it. Raises: Malformed."""
        if self.held is None:
            self.upload.unread += data
            return b""
        return self._scan(data)

    def _scan(self, data: bytes) -> bytes:
        upload = self.upload
        out, rest = upload.feed(data)
        if out:
            if self.share is not None:
                self.share.pay(len(out))
            upload.keep(out)
            if self.upstream is None:
                upload.waiting.append(out)
                self.down.hold_upload(not upload.done)
            elif not self.upstream.transport.is_closing():
                self.upstream.transport.write(out)
        if self.upstream is not None:
            self._await_answer()
        return rest

    def _body(self, length: int) -> Body:
        return Chunked(strict=True, keep=self._trailers) if length == CHUNKED else Sized(length)

    def _trailers(self, fields: Fields) -> Fields:
        return request_trailers(self.held.plan, fields) if self.held is not None else []

    # --- the upstream connection

    def connected(self, upstream: Upstream) -> None:
        """A connection is there: the head goes out in one write, with what waits of the body."""
        self.upstream = upstream
        self.heard = False
        upstream.transport.write(self.upload.taken(self.sent))
        if not self.upload.done:
            self.down.hold_upload(upstream.blocked)
        if self.down.blocked:
            upstream.hold(True)
        self._await_answer()

    def _await_answer(self) -> None:
        limits = self.engine.limits
        if self.response is not None:
            if self.tunnelled:
                self.moved()
            return
        self.wait = Wait.ANSWER if self.upload.done else Wait.APP
        self.deadline = self.engine.clock() + (limits.first_byte if self.upload.done else limits.upload_idle)

    def _waited(self, now: float) -> float:
        """Seconds since the whole request was sent; negative if it was not."""
        return now - self.deadline + self.engine.limits.first_byte if self.wait is Wait.ANSWER else -1.0

    def pause(self, until: float, *, turn: bool = True) -> None:
        """Wait for the provider's turn, or then for a lease."""
        self.wait, self.deadline = Wait.TURN if turn else Wait.LEASE, until

    def upload_blocked(self, blocked: bool) -> None:
        """The provider reads slowly."""
        if not self.upload.done:
            self.down.hold_upload(blocked)

    def download_blocked(self, blocked: bool) -> None:
        """The app reads slowly."""
        if self.upstream is not None and self.curing is None:
            self.upstream.hold(blocked)

    # --- the answer

    def interim(self, response: ResponseHead) -> None:
        """A 1xx answer. Raises: Malformed (an upgrade that nobody asked for, or too many)."""
        self.interims += 1
        if response.status == 101 or self.interims > self.engine.limits.interim:
            raise Malformed("The upstream's 1xx answers make no sense.")
        if self.head.http_1_1:
            assert self.held is not None
            self.down.write(heads.interim(response, self.held.plan))

    def answered(self, response: ResponseHead, data: bytes) -> None:
        """The final head, and what came with it. Raises: Malformed."""
        held = self.held
        assert held is not None
        if response.status == 401 and not self.resent and held.refreshable:
            self.resent = True
            self.curing = data
            self.deadline = self.engine.clock() + self.engine.limits.lease
            self.wait = Wait.LEASE
            if self.upstream is not None:
                self.upstream.hold(True)
            self.task = self.engine.spawn(again.cure(self, held, response))
            return
        if held.signs is not None and again.limited(self, held.signs, response):
            return
        if response.status == 101:
            tunnel.switch(self, held, response, data)
            return
        self.relay(response, data)

    def resend(self, held: Held) -> None:
        """The same request with another lease, on another connection. Raises: Problem."""
        self.drop_upstream()
        self.upload.rewind()
        self._go(held)

    def relay(self, response: ResponseHead, data: bytes) -> None:
        """Pass the final head, and what came with it. Raises: Malformed."""
        held, admitted, head = self.held, self.admitted, self.head
        assert held is not None
        assert admitted is not None
        self.response = response
        self.upload.forget()
        length = response.length
        chunk = head.http_1_1
        keep_alive = head.keep_alive and self.upload.done and not self.engine.draining
        if length < 0 and not chunk:
            keep_alive = False
        self.down.keep_alive = keep_alive
        out = heads.response(response, held, admitted.route, head, chunked=chunk and length < 0, keep_alive=keep_alive)
        now = self.engine.clock()
        self.engine.metrics.answered(held.integration, response.status, self._waited(now))
        if len(data) == length:  # nearly always, if it is short: head and body came together
            if self.share is not None:
                self.share.pay(length)
            self.down.write(out + data)
            self._finish(now, reusable=response.keep_alive)
        elif data:
            self._pass(of_answer(length, chunk=chunk, keep=held.plan.response_headers), out, data)
        else:
            self.out_body = of_answer(length, chunk=chunk, keep=held.plan.response_headers)
            self.down.write(out)
            self.moved()

    def download(self, data: bytes) -> None:
        """More of the answer's body. Raises: Malformed."""
        if self.curing is not None:
            self.curing += data
            return
        assert self.out_body is not None
        self._pass(self.out_body, b"", data)

    def _pass(self, body: Body, before: bytes, data: bytes) -> None:
        self.out_body = body
        out, rest = body.feed(data)
        if self.share is not None:
            self.share.pay(len(out))
        self.down.write(before + out if before else out)
        if body.done:
            assert self.response is not None
            self._finish(self.engine.clock(), reusable=self.response.keep_alive and not rest)
        else:
            self.moved()

    def moved(self) -> None:
        """A piece of the answer came, or of a tunnel's either way."""
        self.wait = Wait.BODY
        self.deadline = self.engine.clock() + self.engine.limits.idle

    # --- the end

    def _finish(self, now: float, *, reusable: bool) -> None:
        """The answer is complete: the provider's connection goes back, the app's goes on."""
        upstream, self.upstream = self.upstream, None
        self._end(now)
        if upstream is not None:
            upstream.release(now, reusable=reusable and self.upload.done)
        self.down.finished(self, now)

    def _end(self, now: float, *, whole: bool = True) -> None:
        self.ended = True
        if self.share is not None:
            self.share.leave()
        if self.tunnelled:
            self.engine.tunnels -= 1
        self.upload.forget()
        self.engine.over(self, whole, now)

    def drop_upstream(self) -> None:
        """The connection is of no more use."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.discard()

    def upstream_lost(self, upstream: Upstream, *, clean: bool) -> None:
        """The provider's connection ended under us."""
        if self.ended or self.upstream is not upstream:
            return
        self.upstream = None
        if self.curing is not None:
            return
        if self.response is not None:
            self._ended_early(clean)
        elif again.may_repeat(self, upstream):
            self.retried = True
            self.engine.metrics.resends["idle connection"] += 1
            self.upload.rewind()
            self.wait = Wait.CONNECTION
            upstream.origin.acquire_new(self)
        else:
            self.refuse(Problem("UPSTREAM_UNREACHABLE", "The upstream closed the connection without an answer."))

    def _ended_early(self, clean: bool) -> None:
        assert self.out_body is not None
        try:
            if not clean:
                raise Malformed("The connection broke.")
            self.down.write(self.out_body.end())
        except Malformed:
            self._cut(Problem("UPSTREAM_UNREACHABLE"))
        else:
            self._finish(self.engine.clock(), reusable=False)

    def fail(self, problem: Problem) -> None:
        """The exchange can't go on: say so if that is still possible, else cut the app's connection."""
        if self.ended:
            return
        if self.response is None:
            self.refuse(problem)
        else:
            self._cut(problem)

    def _cut(self, problem: Problem) -> None:
        """The only way to say that the answer is not whole."""
        self._refused(problem)
        self.abandon()
        self.down.abort()

    def _refused(self, problem: Problem) -> None:
        self.problem = problem
        self.engine.metrics.refused(problem.reason, self.held.integration if self.held is not None else "")

    def refuse(self, problem: Problem) -> None:
        """Answer by ourselves. Nothing of an answer has gone out yet."""
        if self.ended:
            return
        self.drop_upstream()
        self.engine.forget(self)
        keep_alive = self.head.keep_alive and not problem.close and not self.engine.draining
        if keep_alive and self.upload.unread:
            try:
                self.held = None
                self.down.ahead(self._scan(self.upload.read_on()))
            except Malformed:
                keep_alive = False
        keep_alive = keep_alive and self.upload.done
        self.down.keep_alive = keep_alive
        self._refused(problem)
        now = self.engine.clock()
        self._end(now)
        self.down.write(answer(problem, head_only=self.head.method == b"HEAD", keep_alive=keep_alive))
        self.down.finished(self, now)

    def abandon(self) -> None:
        """The app is gone."""
        self._end(self.engine.clock(), whole=False)
        self.engine.forget(self)
        self.drop_upstream()
        if self.task is not None:
            self.task.cancel()
