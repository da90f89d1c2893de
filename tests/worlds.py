"""A server and a simulated provider that share one clock, and how a tenant of theirs connects.

`timed` is the server, one for the session; `world` is a tenant, an integration and an OAuth client of the test's own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from connectors_grpc.embedded import EmbeddedVault
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.simulator import Client as OAuthClient
from connectors_grpc.simulator import Simulator, SimulatorSettings
from connectors_grpc.simulator.misbehaviour import Misbehaviour, Queued
from connectors_grpc.simulator.record import SeenRequest
from connectors_grpc.vault import VaultSettings
from tests.browser import Browser, browser
from tests.openbao import SETTINGS, copy_state, opened
from tests.providers import UpstreamRequest, recording_upstream, running_simulator
from tests.running import Client, Refused, Server, fresh_id, running_server

State = pb.Credential
LIFETIME = 3600.0


class ShiftedClock:
    """`ports.Clock`: the system's time, moved forward by a test. It stands still only in a block that says so."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._stopped: tuple[datetime, float] | None = None

    def _system(self) -> tuple[datetime, float]:
        return self._stopped or (datetime.now(UTC), time.monotonic())

    def now(self) -> datetime:
        """See ports.Clock."""
        return self._system()[0] + timedelta(seconds=self.offset)

    def monotonic(self) -> float:
        """See ports.Clock."""
        return self._system()[1] + self.offset

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """In the block only `advance` moves it: what must happen within a pause may take the machine as long as it likes."""
        self._stopped = self._system()
        try:
            yield
        finally:
            self._stopped = None

    def __call__(self) -> float:
        """Seconds since the epoch, for the simulator."""
        return self.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.offset += seconds


@dataclass
class Timed:
    """A server, its clock, and a simulator by the same clock."""

    server: Server
    clock: ShiftedClock
    sim: Simulator
    vault: VaultSettings


@dataclass
class World:
    """A tenant with an integration at the simulator, under an OAuth client of its own."""

    server: Server
    clock: ShiftedClock
    sim: Simulator
    tenant: str
    integration: str
    client_id: str
    app: Client
    secrets: list[str] = field(default_factory=list, repr=False)

    @property
    def admin(self) -> Client:
        """The admin."""
        return self.server.admin

    async def link(self, **fields: Any) -> str:
        """A connect link."""
        request = pb.StartAuthorizationRequest(tenant=self.tenant, integration=self.integration, **fields)
        url: str = (await self.admin.call("StartAuthorization", request)).connect_url
        return url

    async def connect(self, account: str = "alice", person: Browser | None = None, **fields: Any) -> httpx2.Response:
        """Connect as a person does; the last page."""
        link = await self.link(**fields)
        if person is not None:
            return await person.consent(link, account=account)
        async with browser() as somebody:
            return await somebody.consent(link, account=account)

    async def credential(self, name: str = "") -> pb.Credential:
        """How the credential is."""
        request = pb.GetCredentialRequest(tenant=self.tenant, credential=name or self.integration)
        found: pb.Credential = (await self.admin.call("GetCredential", request)).credential
        return found

    async def whoami(self, name: str = "", timeout: float = 20) -> int:
        """Call the API with the tenant's token; the HTTP status."""
        reply = await self.app.proxied(self.tenant, name or self.integration, "/v1/whoami")
        return int(reply.http_status)

    async def whoami_refused(self, name: str = "") -> str:
        """Why a call with the tenant's token is refused."""
        with pytest.raises(Refused) as caught:
            await self.whoami(name)
        return str(caught.value.reason)

    async def know_accounts(self) -> None:
        """Let the definition say where the identity call names the account."""
        wanted = integrations.Integration(
            id=self.integration,
            api=integrations.Api(base_url=self.sim.url, identity_path="/v1/whoami", account_pointer="/account"),
        )
        await self.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))

    async def refresh(self, name: str = "") -> pb.Credential:
        """RefreshCredential."""
        request = pb.RefreshCredentialRequest(tenant=self.tenant, credential=name or self.integration)
        found: pb.Credential = (await self.admin.call("RefreshCredential", request)).credential
        return found

    async def token(self, name: str = "") -> pb.FetchAccessTokenResponse:
        """FetchAccessToken, by a token-reader."""
        reader = await self.server.app(self.tenant, role=access.ROLE_TOKEN_READER)
        request = pb.FetchAccessTokenRequest(tenant=self.tenant, credential=name or self.integration)
        got: pb.FetchAccessTokenResponse = await reader.call("FetchAccessToken", request)
        return got

    def next(self, *what: Misbehaviour) -> None:
        """The next token requests of this client are answered so."""
        self.sim.next_replies.extend(Queued(each, self.client_id) for each in what)

    def change_client(self, **changes: Any) -> None:
        """Have the simulator treat this client otherwise."""
        self.sim.clients[self.client_id] = replace(self.sim.clients[self.client_id], **changes)

    def asked(self, grant: str = "refresh_token") -> list[SeenRequest]:
        """The token requests of this client, of one grant."""
        return [
            seen
            for seen in self.sim.record.on("/token")
            if seen.client_id == self.client_id and seen.fields.get("grant_type") == grant
        ]

    def pass_time(self, seconds: float) -> None:
        """Move everybody's clock."""
        self.clock.advance(seconds)

    def near_expiry(self, lifetime: float = LIFETIME) -> None:
        """Move on to where the token still lives and a refresh is due."""
        self.clock.advance(lifetime - 60)

    def expire(self, lifetime: float = LIFETIME) -> None:
        """Move on past the token's end."""
        self.clock.advance(lifetime + 1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def timed(
    short_tmp: Path, openbao_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Timed]:
    """A server over an OpenBao of its own, and a simulator, by one clock that tests move forward."""
    clock = ShiftedClock()
    state = copy_state(openbao_template, short_tmp / "timed")
    async with (
        EmbeddedVault(state, SETTINGS) as vault,
        running_server(opened(vault), tmp_path_factory.mktemp("timed-keys"), clock=clock) as server,
        running_simulator(SimulatorSettings(clients=()), clock) as sim,
    ):
        login = VaultSettings(socket_path=vault.socket_path, secret_id_file=vault.secret_id_file)
        yield Timed(server, clock, sim, login)


async def make_world(
    server: Server, sim: Simulator, clock: ShiftedClock, *, token_endpoint: str = "", **client: Any
) -> World:
    """A tenant, an integration and an OAuth client, all new. `client` changes how the simulator treats it."""
    integration, client_id = fresh_id("notes"), fresh_id("client")
    secret = f"cs-{secrets.token_hex(12)}+%:/"
    settings: dict[str, Any] = {"access_lifetime": LIFETIME} | client
    callback = f"{server.http_url}/oauth/callback/{integration}"
    sim.clients[client_id] = OAuthClient(client_id, secret, (callback,), **settings)
    await server.admin.create_integration(
        integration,
        oauth={
            "authorization_endpoint": f"{sim.url}/authorize",
            "token_endpoint": token_endpoint or f"{sim.url}/token",
            "revocation_endpoint": f"{sim.url}/revoke",
            "issuer": sim.url,
            "iss_required": True,
            "scopes": ["notes.read", "notes.write", "offline_access"],
        },
        api={"base_url": sim.url, "identity_path": "/v1/whoami"},
        oauth_client={"client_id": client_id, "client_secret": secret},
        allow_private_addresses=True,
    )
    tenant = (await server.admin.create_tenant()).id
    return World(server, clock, sim, tenant, integration, client_id, await server.app(tenant), [secret])


@pytest_asyncio.fixture(loop_scope="session")
async def world(timed: Timed) -> World:
    """A world of this test's own, not connected yet."""
    return await make_world(timed.server, timed.sim, timed.clock)


@pytest.fixture
def timed_vault(timed: Timed) -> VaultSettings:
    """How the server of `timed` reaches its Vault."""
    return timed.vault


class Gate:
    """Stands before the simulator's token endpoint: passes requests on at once, and holds the answers while it is shut."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.open = asyncio.Event()
        self.open.set()
        self._answered = 0
        self._changed = asyncio.Condition()

    def shut(self) -> None:
        """Hold answers from now on."""
        self.open.clear()

    async def answered(self) -> None:
        """Note that the provider has answered."""
        async with self._changed:
            self._answered += 1
            self._changed.notify_all()

    async def reached(self, count: int) -> None:
        """Wait until the provider has answered so often, whether or not it got through. Raises: TimeoutError after 60 s."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: self._answered >= count)


@contextlib.asynccontextmanager
async def gated(sim: Simulator) -> AsyncIterator[Gate]:
    """A gate before that simulator."""
    async with recording_upstream() as upstream, httpx2.AsyncClient(trust_env=False, timeout=20) as http:
        gate = Gate(upstream.url)

        async def pass_on(request: UpstreamRequest) -> bytes:
            kept = {name: value for name, value in request.headers if name.lower() in ("authorization", "content-type")}
            reply = await http.request(request.method, sim.url + request.target, content=request.body, headers=kept)
            await gate.answered()
            await gate.open.wait()
            head = f"HTTP/1.1 {reply.status_code} X\r\nContent-Type: application/json\r\nContent-Length: {len(reply.content)}"
            return head.encode() + b"\r\n\r\n" + reply.content

        upstream.reply = pass_on
        yield gate


async def until(fact: Callable[[], Awaitable[bool]], deadline: float = 60.0) -> None:
    """Wait until something has become so. Raises: TimeoutError."""
    async with asyncio.timeout(deadline):
        while not await fact():  # noqa: ASYNC110 - the fact lies on the far side of a channel
            await asyncio.sleep(0.02)


class Canary:
    """Looks for secrets in everything that was written or answered, raw and as base64 at any alignment."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def heard(self, text: object) -> None:
        """Something that others may see: a page, a status, a log."""
        self.texts.append(str(text))

    def find(self, *hidden: str) -> list[str]:
        """Which of them can be seen; empty if all is well."""
        everything = "\n".join(self.texts)
        return [secret for secret in hidden if any(form in everything for form in forms(secret))]


def forms(secret: str) -> Iterator[str]:
    """A secret as it stands, and the part of its base64 that does not depend on what surrounds it."""
    yield secret
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + secret.encode()).decode().rstrip("=")
        inner = encoded[4:-4]
        if len(inner) >= 8:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")


@pytest.fixture
def canary(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Canary:
    """All that is logged at any level, printed, or handed to it."""
    caplog.set_level(logging.DEBUG)
    found = Canary()
    original = found.find

    def find(*hidden: str) -> list[str]:
        printed = capfd.readouterr()
        found.texts += [printed.out, printed.err, *(record.getMessage() for record in caplog.records)]
        found.texts += [str(record.exc_info) for record in caplog.records if record.exc_info]
        return original(*hidden)

    found.find = find  # type: ignore[method-assign]
    return found
