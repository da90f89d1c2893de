"""Several replicas over one OpenBao, as tasks of the test or as processes to be killed, and credentials for them to refresh.

A credential is made without a browser: the simulator issues a grant, and its tokens are stored by import.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx2

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.secret import Secret
from connectors_grpc.simulator import Client as OAuthClient
from connectors_grpc.simulator import Simulator
from connectors_grpc.simulator.book import Code, digest
from connectors_grpc.simulator.misbehaviour import Misbehaviour, Queued
from connectors_grpc.simulator.protocol import Chance, Issued, exchange_code, new_code
from connectors_grpc.simulator.record import SeenRequest
from connectors_grpc.simulator.settings import RotatingAtOnce, RotatingWithGrace, Rotation, Static
from sidecar.main import run
from sidecar.server import Address
from sidecar.settings import SidecarSettings, Tcp
from tests.ports import free_port
from tests.running import Client, Server, fresh_id

STATIC, GRACE, AT_ONCE = Static(), RotatingWithGrace(grace=600), RotatingAtOnce()
NAMED: dict[str, Rotation] = {"static": STATIC, "with grace": GRACE, "at once": AT_ONCE}
_CLASSES = {
    Static: integrations.REFRESH_ROTATION_STATIC,
    RotatingWithGrace: integrations.REFRESH_ROTATION_WITH_GRACE,
    RotatingAtOnce: integrations.REFRESH_ROTATION_AT_ONCE,
}
CALLBACK = "http://127.0.0.1/callback"
SCOPE = "notes.read notes.write offline_access"


def granted(sim: Simulator, client: OAuthClient, account: str = "alice") -> Issued:
    """The tokens of a new consent."""
    now = sim.clock()
    code = new_code(sim.book, Code(client.client_id, CALLBACK, None, account, SCOPE, now + 60), sim.mint)
    issued = exchange_code(sim.book, client, code, redirect_uri=CALLBACK, verifier=None, by=Chance(now, sim.mint))
    assert isinstance(issued, Issued)
    return issued


@dataclass
class Account:
    """One credential of one tenant, under an OAuth client of its own."""

    sim: Simulator
    client: OAuthClient
    tenant: str
    integration: str
    app_key: str = field(default="", repr=False)
    refresh_tokens: list[str] = field(default_factory=list, repr=False)

    def asked(self) -> list[SeenRequest]:
        """What its refreshes asked the provider."""
        return [seen for seen in self.sim.record.on("/token") if seen.client_id == self.client.client_id]

    def rotations(self) -> int:
        """How often its refresh token was exchanged for another, by the provider's own book. Not for static ones."""
        book = self.sim.book
        grant = book.refresh[digest(self.refresh_tokens[-1])].grant
        return sum(1 for entry in book.refresh.values() if entry.grant == grant) - 1

    def next(self, *what: Misbehaviour) -> None:
        """How its next token requests are answered."""
        self.sim.next_replies.extend(Queued(each, self.client.client_id) for each in what)

    async def store(self, admin: Client, integration: str = "", account: str = "alice") -> None:
        """Import tokens of a new grant."""
        issued = granted(self.sim, self.client, account)
        material = pb.OAuthMaterial(access_token=issued.access_token, refresh_token=issued.refresh_token or "")
        if issued.expires_in is not None:
            material.expire_time.FromSeconds(int(self.sim.clock() + issued.expires_in))
        material.scopes.extend(issued.scope.split())
        await admin.store(self.tenant, integration or self.integration, oauth=material)
        self.refresh_tokens.append(str(issued.refresh_token))

    async def sibling(self, server: Server) -> Account:
        """A credential of another tenant's, under the same integration and client."""
        made = Account(self.sim, self.client, fresh_id("acc"), self.integration)
        await made.set_up(server.admin)
        return made

    async def set_up(self, admin: Client) -> None:
        """Its tenant, an app's key, and its first tokens."""
        await admin.create_tenant(self.tenant)
        self.app_key = await admin.create_key([access.ROLE_APP], [self.tenant])
        await self.store(admin)

    async def refresh(self, server: Server, timeout: float = 20) -> pb.Credential:
        """RefreshCredential."""
        request = pb.RefreshCredentialRequest(tenant=self.tenant, credential=self.integration)
        found: pb.Credential = (await server.admin.call("RefreshCredential", request, timeout)).credential
        return found

    async def read(self, server: Server) -> pb.Credential:
        """GetCredential."""
        request = pb.GetCredentialRequest(tenant=self.tenant, credential=self.integration)
        found: pb.Credential = (await server.admin.call("GetCredential", request)).credential
        return found

    async def whoami(self, server: Server) -> int:
        """A call with its token; the provider's status."""
        reply = await server.client(self.app_key).proxied(self.tenant, self.integration, "/v1/whoami")
        return int(reply.http_status)

    async def reader(self, server: Server) -> Callable[[Server], Any]:
        """FetchAccessToken at any replica, by a new key."""
        key = await server.admin.create_key([access.ROLE_TOKEN_READER], [self.tenant])
        request = pb.FetchAccessTokenRequest(tenant=self.tenant, credential=self.integration)

        async def fetch(at: Server) -> str:
            return str((await at.client(key).call("FetchAccessToken", request)).access_token)

        return fetch


async def make_account(
    server: Server, sim: Simulator, rotation: Rotation = AT_ONCE, *, oauth: Any = None, tenant: str = "", **client: Any
) -> Account:
    """An integration, its OAuth client, a tenant, and a credential, all new. `oauth` and `client` change the defaults."""
    integration, secret = fresh_id("notes"), fresh_id("cs-secret")
    registered = OAuthClient(
        fresh_id("client"), secret, (CALLBACK,), **{"rotation": rotation, "require_pkce": False, **client}
    )
    sim.clients[registered.client_id] = registered
    definition = {
        "authorization_endpoint": f"{sim.url}/authorize",
        "token_endpoint": f"{sim.url}/token",
        "revocation_endpoint": f"{sim.url}/revoke",
        "scopes": SCOPE.split(),
        "refresh_rotation": _CLASSES[type(rotation)],
    }
    await server.admin.create_integration(
        integration,
        oauth=definition | (oauth or {}),
        api={"base_url": sim.url, "identity_path": "/v1/whoami"},
        oauth_client={"client_id": registered.client_id, "client_secret": secret},
        allow_private_addresses=True,
    )
    made = Account(sim, registered, tenant or fresh_id("acc"), integration)
    await made.set_up(server.admin)
    return made


@dataclass
class ReplicaProcess:
    """A server as a process."""

    server: Server
    process: asyncio.subprocess.Process
    log: Path

    async def kill(self) -> None:
        """As the kernel's out-of-memory killer does."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@contextlib.asynccontextmanager
async def replica_process(
    vault_addr: str, secret_id_file: Path, keys: Path, state_dir: Path, *, ready: float = 60.0
) -> AsyncIterator[ReplicaProcess]:
    """`python -m connectors_grpc serve`, up; killed at the end."""
    grpc_port, http_port = free_port(), free_port()
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = state_dir / "server.log"
    flags = {
        "grpc-listen": f"127.0.0.1:{grpc_port}",
        "http-listen": f"127.0.0.1:{http_port}",
        "vault-addr": vault_addr,
        "vault-secret-id-file": secret_id_file,
        "state-dir": state_dir,
        "bootstrap-keys": keys,
    }
    command = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTORS_")}
    with log.open("ab") as out:
        start = out.tell()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connectors_grpc", "serve"), *command, stdout=out, stderr=out, env=environment
        )
    try:
        async with asyncio.timeout(ready):
            while b'"event": "ready"' not in log.read_bytes()[start:]:
                assert process.returncode is None, log.read_text()[-2000:]
                await asyncio.sleep(0.02)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            server = Server(f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_port}", keys, channel)
            yield ReplicaProcess(server, process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class SidecarAt:
    """A sidecar beside the test: requests of `app` go to it."""

    app: httpx2.AsyncClient
    metrics: str

    async def until(self, gauge: str, value: int) -> None:
        """Wait until one of its figures is that."""
        async with asyncio.timeout(30):
            while f"connectors_sidecar_{gauge} {value}\n" not in (await self.app.get(self.metrics)).text:
                pass


@contextlib.asynccontextmanager
async def sidecar_at(server: Server) -> AsyncIterator[SidecarAt]:
    """A real sidecar of that replica, its watch up."""
    addresses: list[str] = []
    stop, up = asyncio.Event(), asyncio.Event()
    metrics = Tcp("127.0.0.1", free_port())

    def ready(address: str) -> None:
        addresses.append(address)
        up.set()

    wanted = SidecarSettings(
        listen=Tcp("127.0.0.1", 0),
        server=Address(server.grpc_address, Secret(server.sidecar.key)),
        metrics_listen=metrics,
    )
    running = asyncio.create_task(run(wanted, ready, stop))
    try:
        async with asyncio.timeout(30):
            await up.wait()
        async with httpx2.AsyncClient(trust_env=False, base_url=addresses[0], timeout=30) as app:
            made = SidecarAt(app, f"http://{metrics}/-/metrics")
            await made.until("watch_up", 1)
            yield made
    finally:
        stop.set()
        await running
