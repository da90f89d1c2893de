"""A world for the sidecar: a raw upstream that records, a real gRPC server that hands out leases, and raw sockets as the app."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from connectors_grpc.certificates import ClientCertificate
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as stubs
from connectors_grpc.quota import Quota
from connectors_grpc.secret import Secret
from sidecar.limits import Limits
from sidecar.main import run
from sidecar.observing import Observing
from sidecar.route import Credential, Fixed, Tenant
from sidecar.server import Address
from sidecar.settings import Dedicated, SidecarSettings, Tcp, Unix
from tests.ports import free_port

SOON = 60.0
"""Seconds for what happens at once, on a machine that has a hundred other things to do."""
HEARTBEAT = 10.0
"""Seconds between two words of a watch that has nothing to tell: the contract's."""
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
SIDECAR_KEY = "cnk_sidecar-1_" + "s" * 43
QUICK = Limits(tick=0.05, linger=SOON, drain=SOON)
"""Looks often, and cuts nothing that a busy machine is slow with."""


@dataclass(slots=True)
class Clock:
    """A sidecar's time, which stands still until a test moves it. Units: seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Key:
    """An app's key."""

    key_id: str = "app-1"
    text: str = field(default_factory=lambda: "cnk_app-1_" + secrets.token_urlsafe(32))

    @classmethod
    def of(cls, key_id: str) -> Key:
        """A new key of that id."""
        return cls(key_id, f"cnk_{key_id}_{secrets.token_urlsafe(32)}")

    @property
    def bearer(self) -> bytes:
        """As an SDK sends it."""
        return b"Authorization: Bearer " + self.text.encode() + b"\r\n"

    @property
    def sha256(self) -> bytes:
        """Its proof."""
        return hashlib.sha256(self.text.encode()).digest()

    def basic(self, user: str = "") -> bytes:
        """As user or password of Basic."""
        pair = f"{user}:{self.text}" if user else f"{self.text}:"
        return b"Authorization: Basic " + base64.b64encode(pair.encode()) + b"\r\n"


# --- the provider


@dataclass(slots=True)
class Got:
    """One request as it came."""

    connection: int
    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        """The request line."""
        return self.head.partition(b"\r\n")[0]

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        pairs = [line.partition(b":") for line in self.head.split(b"\r\n")[1:] if line]
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]


Handler = Callable[[Got, asyncio.StreamWriter], Awaitable[bytes | None]]


@dataclass(slots=True)
class Provider:
    """An upstream on a raw socket. `replies` are used up first, then `reply`; `on_head` is called before the body is read."""

    port: int = 0
    got: list[Got] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    replies: list[bytes | Handler] = field(default_factory=list)
    reply: bytes | Handler = OK
    on_head: Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]] | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        number = self.connections
        self.writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if self.on_head is not None and await self.on_head(head, reader, writer):
                    return
                got = Got(number, head, await read_body(head, reader))
                self.got.append(got)
                reply = self.replies.pop(0) if self.replies else self.reply
                data = reply if isinstance(reply, bytes) else await reply(got, writer)
                if data is None:
                    return
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the stream protocol would report a cancelled task as an error
        finally:
            self.open -= 1
            self.writers.discard(writer)
            self.tasks.discard(task)
            writer.close()


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """A body after a head, chunks joined, trailers last."""
    lower = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lower:
        body = b""
        while True:
            size = int((await reader.readuntil(b"\r\n")).strip().partition(b";")[0], 16)
            if size == 0:
                while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                    body += line
                return body
            body += (await reader.readexactly(size + 2))[:-2]
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(int(line[15:]))
    return b""


# --- the server


class Leaser(stubs.ProxyServiceServicer):
    """Hands out leases by the contract: checks the sidecar's key, the app's proof and its scope."""

    def __init__(self) -> None:
        self.leases: dict[tuple[str, str], pb.Lease] = {}
        self.grants: dict[str, tuple[bytes, pb.AppGrant]] = {}
        self.asked: list[pb.LeaseRequest] = []
        self.errors: list[grpc.StatusCode | str] = []
        self.refresh: Callable[[pb.Lease], None] | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.watchers: set[asyncio.Queue[pb.WatchLeasesResponse | None]] = set()
        self.watch_implemented = True
        self.yielded: list[str] = []
        self.yield_errors: list[grpc.StatusCode | str] = []

    def allow(self, key: Key, tenants: list[str], credentials: list[str], ttl: float = 300) -> None:
        """Make a key known."""
        grant = pb.AppGrant(key_id=key.key_id, tenants=tenants, credentials=credentials)
        grant.ttl.FromMilliseconds(int(ttl * 1000))
        self.grants[key.key_id] = (key.sha256, grant)

    async def Lease(self, request: pb.LeaseRequest, context: Any) -> pb.LeaseResponse:
        """As the contract says."""
        self.asked.append(request)
        await self.gate.wait()
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {SIDECAR_KEY}":
            await deny(context, "API_KEY_INVALID")
        if self.errors and not request.credential.startswith("probe"):
            error = self.errors.pop(0)
            if isinstance(error, str):
                await deny(context, error)
            else:
                await context.abort(error)
        tenant, grant = request.tenant, None
        if request.HasField("app_key"):
            sha256, grant = self.grants.get(request.app_key.key_id, (b"", pb.AppGrant()))
            if sha256 != request.app_key.sha256:
                await deny(context, "API_KEY_INVALID")
            tenant = tenant or (grant.tenants[0] if len(grant.tenants) == 1 else "")
            if not (covers(grant.tenants, tenant) and covers(grant.credentials, request.credential)):
                await deny(context, "PERMISSION_DENIED")
        lease = self.leases.get((tenant, request.credential))
        if lease is None:
            await deny(context, "CREDENTIAL_NOT_FOUND")
        assert lease is not None
        if request.rejected_generation == lease.generation and self.refresh is not None:
            self.refresh(lease)
            lease = self.leases[tenant, request.credential]
        return pb.LeaseResponse(lease=lease, app_grant=grant)

    async def Call(self, request: pb.CallRequest, context: Any) -> pb.CallResponse:
        """Not a sidecar's."""
        raise NotImplementedError

    def CallStream(self, request_iterator: Any, context: Any) -> Any:
        """Not a sidecar's."""
        raise NotImplementedError

    async def WatchLeases(self, request: pb.WatchLeasesRequest, context: Any) -> AsyncIterator[pb.WatchLeasesResponse]:
        """Resync first, then what the test tells."""
        if not self.watch_implemented:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED)
        queue: asyncio.Queue[pb.WatchLeasesResponse | None] = asyncio.Queue()
        self.watchers.add(queue)
        try:
            yield pb.WatchLeasesResponse(resync=pb.Resync())
            while (event := await told_next(queue)) is not None:
                yield event
        finally:
            self.watchers.discard(queue)

    async def YieldLease(self, request: pb.YieldLeaseRequest, context: Any) -> pb.YieldLeaseResponse:
        """Noted, or refused as the test says."""
        self.yielded.append(request.hold_id)
        if self.yield_errors:
            error = self.yield_errors.pop(0)
            if isinstance(error, str):
                await deny(context, error)
            else:
                await context.abort(error)
        return pb.YieldLeaseResponse()

    def tell(self, event: pb.WatchLeasesResponse | None) -> None:
        """To every watcher; None ends the streams."""
        for queue in self.watchers:
            queue.put_nowait(event)


async def told_next(queue: asyncio.Queue[pb.WatchLeasesResponse | None]) -> pb.WatchLeasesResponse | None:
    """What a watch says next, which is a heartbeat if a test tells nothing for long."""
    try:
        async with asyncio.timeout(HEARTBEAT):
            return await queue.get()
    except TimeoutError:
        return pb.WatchLeasesResponse(heartbeat=pb.Heartbeat())


def covers(scope: Any, wanted: str) -> bool:
    """As the contract says of scopes."""
    return list(scope) == ["*"] or wanted in scope


async def deny(context: Any, reason: str) -> None:
    """Abort with one ErrorInfo, as the server does."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="connectors", metadata={"secret": "never-shown"}))
    transient = reason == "VAULT_UNAVAILABLE"
    code = code_pb2.UNAVAILABLE if transient else code_pb2.PERMISSION_DENIED
    await context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code, message=reason, details=[info])))


# --- the app


@dataclass(slots=True)
class Answer:
    """One answer as it came."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.head.split(b" ", 2)[1])

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        return Got(0, self.head, b"").all(name)

    @property
    def reason(self) -> str:
        """X-Connectors-Error."""
        values = self.all(b"X-Connectors-Error")
        return values[0].decode() if values else ""

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document."""
        document: dict[str, Any] = json.loads(self.body)
        return document


class App:
    """One connection to the sidecar, raw."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, whole."""
        async with asyncio.timeout(SOON):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if method == "HEAD" or status < 200 or status in (204, 304):
                return Answer(head, b"")
            lower = head.lower()
            if b"\r\ncontent-length:" in lower or b"\r\ntransfer-encoding:" in lower:
                return Answer(head, await read_body(head, self.reader))
            return Answer(head, await self.reader.read())

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """One request, one answer."""
        await self.send(data)
        return await self.answer(method)

    async def closed(self) -> bool:
        """Whether the sidecar ends the connection without another byte."""
        async with asyncio.timeout(SOON):
            try:
                return await self.reader.read(1) == b""
            except OSError:
                return True

    def close(self) -> None:
        """Close."""
        self.writer.close()


@dataclass(slots=True)
class World:
    """All of it, running. `address` is the sidecar's, as in Host."""

    provider: Provider
    server: Leaser
    key: Key
    address: str
    all_addresses: list[str]
    unix: Path | None
    stop: asyncio.Event
    grpc_server: grpc.aio.Server
    probes: int = 0
    apps: list[App] = field(default_factory=list)
    running: asyncio.Task[None] | None = None

    @property
    def host(self) -> bytes:
        """The sidecar's own name."""
        return self.address.encode()

    async def app(self, address: str | None = None, limit: int = 1 << 16) -> App:
        """A new connection to the sidecar."""
        host, _, port = (address or self.address).rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=limit)
        app = App(reader, writer)
        self.apps.append(app)
        return app

    def request(
        self, path: str = "/~acme/notes/v1/pages", lines: bytes = b"", method: str = "GET", body: bytes = b""
    ) -> bytes:
        """A request with the app's key, unless `lines` show one."""
        key = b"" if b"cnk_" in lines or b"asic" in lines else self.key.bearer
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%b\r\n%b" % (
            method.encode(), path.encode(), self.host, key, length, lines, body,
        )  # fmt: skip

    async def ask(
        self, path: str = "/~acme/notes/v1/pages", lines: bytes = b"", method: str = "GET", body: bytes = b""
    ) -> Answer:
        """One request on a connection of its own."""
        app = await self.app()
        try:
            return await app.ask(self.request(path, lines, method, body), method)
        finally:
            app.close()

    def connect(self, tenant: str = "acme", credential: str = "notes", **changes: Any) -> pb.Lease:
        """Let the server know a credential of the provider's."""
        authority = f"127.0.0.1:{self.provider.port}"
        lease = pb.Lease(
            tenant=tenant,
            tenant_uid=f"uid-{tenant}",
            credential=credential,
            integration="notes",
            generation=1,
            base_url=f"http://{authority}",
            allowed_hosts=[authority],
            headers=[
                pb.InjectedField(name="Authorization", value=f"Bearer tok-{tenant}-{credential}-{secrets.token_hex(8)}")
            ],
            allow_private_addresses=True,
        )
        lease.refresh_after_ttl.seconds = 300
        lease.grace_ttl.seconds = 3600
        for name, value in changes.items():
            if isinstance(value, list):
                del getattr(lease, name)[:]
                getattr(lease, name).extend(value)
            else:
                setattr(lease, name, value)
        self.server.leases[tenant, credential] = lease
        return lease

    def token(self, tenant: str = "acme", credential: str = "notes") -> bytes:
        """What must reach the provider."""
        return self.server.leases[tenant, credential].headers[0].value.encode()

    async def told(self) -> None:
        """Until the sidecar has applied every event told so far: one more, about a key of this probe's own, has its effect.

        Nothing else has that effect: what the sidecar holds of the key refuses the key's next text, until that event is there.
        """
        self.probes += 1
        probe = f"probe-{self.probes}"
        path, before, after = f"/~acme/{probe}/x", Key.of(probe), Key.of(probe)
        self.connect("acme", probe)
        self.server.allow(before, ["*"], ["*"])
        assert (await self.ask(path, before.bearer)).status == 200
        self.server.allow(after, ["*"], ["*"])
        self.server.tell(pb.WatchLeasesResponse(api_key_changed=pb.ApiKeyChanged(key_id=probe)))
        async with asyncio.timeout(SOON):
            while (await self.ask(path, after.bearer)).status != 200:
                pass

    async def shows(self, line: str) -> None:
        """Wait until the metrics page has that line, without the sidecar's prefix."""
        wanted = f"connectors_sidecar_{line}\n".encode()
        async with asyncio.timeout(SOON):
            while wanted not in (await self.metrics()).body:
                pass

    async def gauge(self, name: str) -> int:
        """One number of the metrics page, by its name without the sidecar's prefix."""
        page = (await self.metrics()).body
        return int(page.partition(b"\nconnectors_sidecar_%b " % name.encode())[2].split()[0])

    async def metrics(self) -> Answer:
        """The metrics page."""
        where = self.all_addresses[-1]
        app = await self.app(where)
        answer = await app.ask(b"GET /-/metrics HTTP/1.1\r\nHost: %b\r\n\r\n" % where.encode())
        app.close()
        return answer

    async def stop_server(self) -> None:
        """The server is gone."""
        await self.grpc_server.stop(None)

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait on a fact."""
        async with asyncio.timeout(SOON):
            while not fact():  # noqa: ASYNC110 - facts of both sides, none of which has an event
                await asyncio.sleep(0.005)


def aged(lease: pb.Lease, seconds: float) -> pb.Lease:
    """A refreshable lease whose token was obtained so long ago."""
    lease.refreshable = True
    lease.issue_time.FromMilliseconds(int((time.time() - seconds) * 1000))
    return lease


@dataclass(slots=True)
class Peers:
    """What a sidecar talks to: a provider, and a server that knows one app's key. `address` is the server's."""

    provider: Provider
    server: Leaser
    key: Key
    grpc_server: grpc.aio.Server
    address: str

    def world(self, addresses: list[str], **more: Any) -> World:
        """With a sidecar at these addresses, its own in front."""
        more = {"unix": None, "stop": asyncio.Event(), **more}
        address = addresses[0] if addresses else ""
        return World(self.provider, self.server, self.key, address, addresses, grpc_server=self.grpc_server, **more)


@contextlib.asynccontextmanager
async def peers(tls: Any = None) -> AsyncIterator[Peers]:
    """Both, on loopback and free ports."""
    provider, leaser, key = Provider(), Leaser(), Key()
    upstream = await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=tls)
    provider.port = upstream.sockets[0].getsockname()[1]
    server = grpc.aio.server()
    stubs.add_ProxyServiceServicer_to_server(leaser, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    leaser.allow(key, ["acme", "globex"], ["*"])
    try:
        yield Peers(provider, leaser, key, server, f"127.0.0.1:{port}")
    finally:
        await server.stop(None)
        upstream.close()
        for task in list(provider.tasks):
            task.cancel()
        await asyncio.gather(*provider.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def process(
    folder: Path, *, stderr: int | None = asyncio.subprocess.DEVNULL, descriptors: int | None = None
) -> AsyncIterator[tuple[World, asyncio.subprocess.Process]]:
    """A sidecar as it is run, with what it talks to. It ends by SIGTERM, if it has not ended, and well.

    A shell bounds its file descriptors: Python may not run between fork and exec in a process that has threads of gRPC.
    """
    bounded = () if descriptors is None else ("sh", "-c", f'ulimit -n {descriptors} && exec "$0" "$@"')
    async with peers() as there:
        (folder / "key").write_text(SIDECAR_KEY)
        running = await asyncio.create_subprocess_exec(
            *bounded, sys.executable, "-m", "sidecar", "--listen", "127.0.0.1:0", "--server", there.address,
            "--key-file", str(folder / "key"), "--log-level", "debug",
            stdout=asyncio.subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
        try:
            w = there.world([await address_of(running)])
            w.connect()
            yield w, running
            for app in w.apps:
                app.close()
            if running.returncode is None:
                running.terminate()
            assert await asyncio.wait_for(running.wait(), SOON) == 0
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()


async def address_of(running: asyncio.subprocess.Process) -> str:
    """Where a sidecar says that it listens, once it does."""
    assert running.stdout is not None
    line = (await asyncio.wait_for(running.stdout.readline(), SOON)).decode()
    return line.strip().rpartition("http://")[2]


@contextlib.asynccontextmanager
async def world(
    *,
    limits: Limits | None = None,
    open_door: bool = False,
    unix: Path | None = None,
    fixed: tuple[str, str] | None = None,
    tls: Any = None,
    upstream_ca: Path | None = None,
    watched: bool = True,
    quota: Quota | None = None,
    observing: Observing | None = None,
    client_certificates: Mapping[str, ClientCertificate] | None = None,
    retried: frozenset[str] = frozenset(),
    clock: Clock | None = None,
) -> AsyncIterator[World]:
    """Everything on loopback and free ports; the sidecar by that clock, if one is given."""
    dedicated = (Dedicated(Tcp("127.0.0.1", 0), Fixed(Tenant(fixed[0]), Credential(fixed[1]))),) if fixed else ()
    async with peers(tls) as there:
        there.server.watch_implemented = watched
        settings = SidecarSettings(
            listen=Unix(unix) if unix else Tcp("127.0.0.1", 0),
            server=Address(there.address, Secret(SIDECAR_KEY)),
            open_door=open_door,
            upstream_ca=upstream_ca,
            dedicated=dedicated,
            metrics_listen=Tcp("127.0.0.1", free_port()),
            limits=limits or QUICK,
            quota=quota or Quota(),
            observing=observing or Observing(),
            client_certificates=client_certificates or {},
            retried=retried,
        )
        addresses: list[str] = []
        stop = asyncio.Event()
        running = asyncio.create_task(run(settings, addresses.append, stop, clock=clock))
        w = there.world(addresses, unix=unix, stop=stop, running=running)
        await w.until(lambda: len(addresses) == 1 + len(dedicated) or running.done())
        if running.done():
            running.result()
        w.all_addresses[:] = [address.removeprefix("http://") for address in addresses]
        w.all_addresses.append(str(settings.metrics_listen))
        w.address = w.all_addresses[0]
        if watched:  # the first event makes everything doubtful: tests begin behind it
            await w.shows("watch_up 1")
        w.connect()
        try:
            yield w
        finally:
            for app in w.apps:
                app.close()
            stop.set()
            there.server.gate.set()
            async with asyncio.timeout(SOON):
                await running
