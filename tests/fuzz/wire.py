"""The engine without sockets, between a scripted client and a scripted upstream; and h11 as the second reader of both sides.

Everything is synchronous: bytes go in, in pieces of any size, and what went out on both sides is looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import h11

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from sidecar.admission import Door
from sidecar.engine.downstream import Downstream
from sidecar.engine.engine import Engine
from sidecar.engine.upstream import Upstream
from sidecar.held import ALL, Grant, Held, hold
from sidecar.leases import Leases
from sidecar.limits import Limits
from sidecar.metrics import Metrics

KEY = "cnk_fuzz_" + "k" * 43
TOKEN = b"Bearer tok-0123456789abcdef"
HOST = b"sidecar.test"
BEFORE = b"/~acme/notes"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONGEST = 1 << 20


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.out = bytearray()
        self.closed = self.aborted = self.ended = False

    def write(self, data: Any) -> None:
        """Keep."""
        assert not self.closed
        assert isinstance(data, bytes)
        self.out += data

    def write_eof(self) -> None:
        """No more will come."""
        self.ended = True

    def can_write_eof(self) -> bool:
        """As TCP."""
        return True

    def close(self) -> None:
        """In order."""
        self.closed = True

    def abort(self) -> None:
        """At once."""
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        """Either."""
        return self.closed

    def pause_reading(self) -> None:
        """The script feeds as it likes."""

    def resume_reading(self) -> None:
        """The script feeds as it likes."""


class Tasks:
    """Nothing runs in the background: what would wait for a lease or a new connection waits for ever."""

    def create_task(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Refuse."""
        coro.close()


@dataclass(slots=True)
class Wire:
    """An engine, one app's connection, and idle upstream connections."""

    engine: Engine
    down: Downstream
    app: Pipe
    pipes: list[Pipe]
    ups: list[Upstream]
    answered: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, upstreams: int = 4) -> Wire:
        """Needs a running loop."""
        now = asyncio.get_running_loop().time()
        tasks: Any = Tasks()
        dialler: Any = None
        source: Any = None
        leases = Leases(source, tasks, clock=asyncio.get_running_loop().time)
        leases.watched = True
        engine = Engine(
            leases, tasks, limits=Limits(), dialler=dialler, metrics=Metrics(),
            reachable=lambda: True,
        )  # fmt: skip
        lease = pb.Lease(
            tenant="acme", tenant_uid="uid", credential="notes", integration="notes", generation=1,
            base_url="http://api.test", allowed_hosts=["api.test"],
            headers=[pb.InjectedField(name="Authorization", value=TOKEN.decode())],
        )  # fmt: skip
        lease.refresh_after_ttl.seconds = 3600
        far = now + 1e6
        leases._grants["fuzz"] = Grant("fuzz", hashlib.sha256(KEY.encode()).digest(), ALL, ALL, far, far, far)
        app = Pipe()
        down = Downstream(engine, Door(frozenset((HOST,)), key_required=True))
        down.connection_made(app)
        wire = cls(engine, down, app, [], [])
        origin = engine.origin(wire.hold(lease).origin)
        for _ in range(upstreams):
            up, pipe = Upstream(origin), Pipe()
            up.connection_made(pipe)
            up.served = 1
            origin.every.add(up)
            origin.idle.append(up)
            wire.ups.append(up)
            wire.pipes.append(pipe)
            wire.answered.append(0)
        return wire

    def hold(self, lease: pb.Lease) -> Held:
        """As if the server had handed it out."""
        held = hold(lease, wall=0, now=self.engine.clock())
        self.engine.leases._leases[held.tenant, held.credential] = held
        return held

    def send(self, data: bytes, size: int | None = None, *, serve: bool = True) -> None:
        """From the app, in pieces of `size`; with `serve`, the upstream answers each request that it has read whole."""
        for piece in pieces(data, size):
            if self.down.closing:
                return
            self.down.view[: len(piece)] = piece
            self.down.buffer_updated(len(piece))
            if serve:
                self.serve()

    def serve(self) -> None:
        """Answer what is complete."""
        moved = True
        while moved:
            moved = False
            for at, up in enumerate(self.ups):
                requests, _ = read_requests(bytes(self.pipes[at].out))
                if len(requests) > self.answered[at] and up.exchange is not None:
                    self.answered[at] += 1
                    moved = True
                    self.reply(up, OK)

    def reply(self, up: Upstream, data: bytes, size: int | None = None) -> None:
        """From the upstream, in pieces."""
        for piece in pieces(data, size):
            if up.transport.is_closing():
                return
            up.view[: len(piece)] = piece
            up.buffer_updated(len(piece))

    def busy(self) -> Upstream | None:
        """The connection that a request went out on."""
        return next((up for up in self.ups if up.exchange is not None), None)


def pieces(data: bytes, size: int | None) -> list[bytes]:
    """Whole, or cut."""
    return [data] if size is None else [data[at : at + size] for at in range(0, len(data), size)]


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a reader took it. `line` is the method and target, or the status."""

    line: tuple[bytes, ...]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def core(self) -> tuple[tuple[bytes, ...], bytes]:
        """What must be the same on both sides of the engine."""
        return self.line, self.body


def read_requests(data: bytes) -> tuple[list[Message], str]:
    """All whole requests as h11 reads them, and how the reading ended: `more` or `refused`."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST)
    if data:
        reader.receive_data(data)
    out: list[Message] = []
    head, body = None, b""
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                out.append(Message((head.method, head.target), tuple(head.headers), body))
                reader.send(h11.Response(status_code=400, headers=[("content-length", "0")]))
                reader.send(h11.EndOfMessage())
                if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
                    return out, "more"
                reader.start_next_cycle()
            else:
                return out, "more"
    except h11.RemoteProtocolError:
        return out, "refused"


def read_answer(method: bytes, data: bytes, *, ended: bool) -> tuple[Message | None, str]:
    """The final answer as h11 reads it, and how that ended: `whole`, `more` or `refused`. `ended`: closed in order."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST)
    reader.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    reader.send(h11.EndOfMessage())
    head, body = None, b""
    try:
        if data:  # nothing at all would tell h11 that the connection ended
            reader.receive_data(data)
        if ended:
            reader.receive_data(b"")
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return Message((str(head.status_code).encode(),), tuple(head.headers), body), "whole"
            elif not isinstance(event, h11.InformationalResponse):
                return None, "more"
    except h11.RemoteProtocolError:
        return None, "refused"
