"""Attack 26 and what belongs to it: replicas that share nothing but a Vault refresh a token once, whoever asks."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from connectors_grpc import app
from connectors_grpc.circuit import FAILURES, OPEN_FOR
from connectors_grpc.credentials.sweeping import HELD_FOR, PAUSE, Sweeping
from connectors_grpc.embedded import EmbeddedVault
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.metrics import Metrics
from connectors_grpc.settings import ServerSettings
from connectors_grpc.simulator import Simulator, SimulatorSettings
from connectors_grpc.simulator.misbehaviour import Endpoint, Misbehaviour, Queued
from connectors_grpc.vault import connect
from tests.openbao import SETTINGS, OpenBao, copy_state, opened
from tests.providers import running_simulator
from tests.replicas import STATIC, Account, make_account
from tests.running import Refused, Server, refused, running_server
from tests.vault_gate import VaultGate, vault_gate
from tests.worlds import ShiftedClock, gated, until

REPLICAS = 3
CALLERS = 20


@dataclass
class Fleet:
    """Replicas by one clock, each behind a gate of its own, over one OpenBao; and a provider."""

    servers: list[Server]
    gates: list[VaultGate]
    clock: ShiftedClock
    sim: Simulator
    openbao: OpenBao
    keys: Path

    async def account(self, **fields: object) -> Account:
        """A credential whose token ends after an hour."""
        return await make_account(self.servers[0], self.sim, **fields)  # type: ignore[arg-type]

    def lines(self, pattern: str) -> list[str]:
        """What all replicas together asked the Vault."""
        return [line for gate in self.gates for line in gate.lines(pattern)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(
    short_tmp: Path, openbao_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    """Three replicas and an OpenBao for this file."""
    clock, keys = ShiftedClock(), tmp_path_factory.mktemp("fleet") / "keys"
    async with AsyncExitStack() as stack:
        vault = EmbeddedVault(copy_state(openbao_template, short_tmp / "fleet"), SETTINGS)
        openbao = opened(await stack.enter_async_context(vault))
        sim = await stack.enter_async_context(running_simulator(SimulatorSettings(clients=()), clock))
        servers, gates = [], []
        for _ in range(REPLICAS):
            gate = await stack.enter_async_context(
                vault_gate(openbao.socket_path, Path(tempfile.mkdtemp(dir=short_tmp)) / "g")
            )
            server = running_server(openbao, keys, clock=clock, vault_addr=gate.address)
            servers.append(await stack.enter_async_context(server))
            gates.append(gate)
        yield Fleet(servers, gates, clock, sim, openbao, keys)


async def test_one_refresh_however_many_ask_at_however_many_replicas(fleet: Fleet) -> None:
    """Sixty callers a credential, three replicas, four credentials: four provider calls, and all have the one new token."""
    accounts = [await fleet.account() for _ in range(4)]
    readers = [await account.reader(fleet.servers[0]) for account in accounts]
    old = [await read(fleet.servers[0]) for read in readers]
    fleet.clock.advance(3601)
    for account, read, before in zip(accounts, readers, old, strict=True):
        tokens = await asyncio.gather(*(read(server) for server in fleet.servers for _ in range(CALLERS)))
        assert len(set(tokens)) == 1
        assert tokens[0] != before
        assert len(account.asked()) == 1
    fleet.clock.advance(3601)
    everyone = [read(server) for read in readers for server in fleet.servers for _ in range(5)]
    assert len(set(await asyncio.gather(*everyone))) == len(accounts)
    assert [len(account.asked()) for account in accounts] == [2] * len(accounts)


async def test_a_slow_holder_is_waited_for(fleet: Fleet) -> None:
    """The provider takes its time: the others look again and again, ask nothing, and read what the holder wrote."""
    async with gated(fleet.sim) as gate:
        account = await fleet.account(oauth={"token_endpoint": f"{gate.url}/token"})
        read = await account.reader(fleet.servers[0])
        fleet.clock.advance(3601)
        gate.shut()
        calls = [asyncio.create_task(read(server)) for server in fleet.servers for _ in range(3)]
        await gate.reached(1)
        looks = f"GET connectors/data/refresh/{account.tenant}"
        await until(lambda: _counted(fleet, looks, 12))
        assert len(account.asked()) == 1
        gate.open.set()
        assert len(set(await asyncio.gather(*calls))) == 1
    assert len(account.asked()) == 1


async def _counted(fleet: Fleet, pattern: str, count: int) -> bool:
    return len(fleet.lines(pattern)) >= count


async def test_a_standby_that_is_behind_makes_nobody_send_a_used_token(fleet: Fleet) -> None:
    """Three reads of the credential are answered from before the refresh: the lease says that there must be more to see."""
    account = await fleet.account()
    one, two, _ = fleet.servers
    behind = fleet.gates[1].remember(f"GET secret/data/{account.tenant}/")
    assert (await account.read(two)).generation == 1
    assert (await account.refresh(one)).generation == 2
    behind.times = 3
    assert (await account.refresh(two)).generation == 2
    assert behind.times == 0
    assert len(account.asked()) == 1


KV_AND_TRANSIT = re.compile(
    r"(GET|POST) (secret/data/[^/?]+/[^/?]+|connectors/data/[^?]+)"
    r"|POST (transit/(encrypt|decrypt|datakey/plaintext)/[^/?]+|connectors-transit/decrypt/platform)"
    r"|GET connectors/metadata/changes\?list=true.*"
)
"""What OpenBao and HashiCorp Vault have alike. The change feed's list is the only one with parameters, which Vault ignores."""


CHORES = re.compile(r"GET connectors/metadata/(flows|operations|revocations|tenants)\?")
"""What replicas look through now and then, whether anybody refreshes or not."""


async def test_refreshing_needs_nothing_that_only_openbao_has(fleet: Fleet) -> None:
    """A refresh is six calls of KV v2 and transit: no `metadata_cas`, no PATCH, no list, whoever wins or loses."""
    account = await fleet.account()
    read = await account.reader(fleet.servers[0])
    await asyncio.gather(*(read(server) for server in fleet.servers))
    fleet.clock.advance(3601)
    before = [len(gate.seen) for gate in fleet.gates]
    await asyncio.gather(*(read(server) for server in fleet.servers))
    lines = [line for gate, since in zip(fleet.gates, before, strict=True) for line in gate.seen[since:]]
    assert [line for line in lines if not KV_AND_TRANSIT.fullmatch(line) and not CHORES.match(line)] == []
    kinds = {re.sub(r"/[^/]*$", "", line) for line in lines if account.tenant in line and not line.startswith("GET")}
    assert kinds == {
        f"POST secret/data/{account.tenant}",
        "POST connectors/data/refresh",
        "POST transit/datakey/plaintext",
        "POST transit/decrypt",
        "POST transit/encrypt",
    }


async def test_401s_at_every_replica_are_one_refresh_a_generation(fleet: Fleet) -> None:
    """Attack 33 by Lease: none for a young token, one for an older one, and a rejected generation that is over drives nothing."""
    account = await fleet.account()

    async def rejected(generation: int) -> set[int]:
        request = proxy.LeaseRequest(
            tenant=account.tenant, credential=account.integration, rejected_generation=generation
        )
        calls = [server.sidecar.call("Lease", request) for server in fleet.servers for _ in range(10)]
        return {reply.lease.generation for reply in await asyncio.gather(*calls)}

    assert await rejected(1) == {1}
    assert account.asked() == []
    fleet.clock.advance(31)
    assert await rejected(1) == {2}
    assert await rejected(1) == {2}
    assert await rejected(2) == {2}
    assert len(account.asked()) == 1
    fleet.clock.advance(31)
    assert await rejected(1) == {2}
    assert await rejected(2) == {3}
    assert len(account.asked()) == 2


async def test_a_call_that_is_always_answered_401_drives_one_refresh(fleet: Fleet) -> None:
    """Attack 33 by Call, at all replicas at once."""
    account = await fleet.account()
    fleet.clock.advance(31)
    wrong = Queued(Misbehaviour.UNAUTHORIZED, account.client.client_id, Endpoint.API)
    fleet.sim.next_replies.extend([wrong] * 30)
    statuses = await asyncio.gather(*(account.whoami(server) for server in fleet.servers for _ in range(5)))
    assert set(statuses) == {401}
    assert len(account.asked()) == 1
    assert (await account.read(fleet.servers[0])).generation == 2


async def test_a_tenant_deleted_at_another_replica_stays_deleted(fleet: Fleet) -> None:
    """Attack 30: the provider's answer comes after the deletion. No document, no key and no file of it come back."""
    one, two, _ = fleet.servers
    async with gated(fleet.sim) as gate:
        account = await fleet.account(oauth={"token_endpoint": f"{gate.url}/token"})
        fleet.clock.advance(3601)
        gate.shut()
        call = asyncio.create_task(account.whoami(one))
        await gate.reached(1)
        await two.admin.call("DeleteTenant", tenants.DeleteTenantRequest(tenant=account.tenant, force=True))
        await until(lambda: _denied(account, two))
        gate.open.set()
        with pytest.raises(Refused):
            await call
    token = await fleet.openbao.login()
    stored = await fleet.openbao.call("GET", f"secret/data/{account.tenant}/{account.integration}", token=token)
    key = await fleet.openbao.call("GET", f"transit/keys/{account.tenant}", token=token)
    assert (stored.status, key.status) == (404, 404)
    assert [path for path in fleet.keys.parent.glob("*/spill/*") if path.name != "replica"] == []
    await two.admin.create_tenant(account.tenant)
    assert await _denied(account, one)
    assert await _denied(account, two)


async def _denied(account: Account, server: Server) -> bool:
    try:
        await account.read(server)
    except Refused as error:
        return error.reason in ("TENANT_NOT_FOUND", "CREDENTIAL_NOT_FOUND")
    return False


async def test_a_provider_that_is_down_is_asked_seldom_and_found_when_it_is_back(fleet: Fleet) -> None:
    """Twelve credentials of one provider, called without end at one replica: five calls, then one a pause, then all work."""
    server = fleet.servers[0]
    first = await fleet.account(rotation=STATIC)
    accounts = [first, *[await first.sibling(server) for _ in range(11)]]
    fleet.clock.advance(3601)
    down = replace(first.client, misbehaves=(Misbehaviour.UNAVAILABLE,))
    fleet.sim.clients[first.client.client_id] = down

    async def everyone() -> list[object]:
        calls = (account.whoami(server) for account in accounts for _ in range(3))
        return await asyncio.gather(*calls, return_exceptions=True)

    with fleet.clock.still():
        for account in accounts:
            with refused("PROVIDER_UNAVAILABLE"):
                await account.whoami(server)
        assert len(first.asked()) == FAILURES
        for _ in range(3):
            answers = await everyone()
            assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {"PROVIDER_UNAVAILABLE"}
        assert len(first.asked()) == FAILURES, (
            "nobody asks while the circuit is open, and asking in vain does not prolong it"
        )
        fleet.clock.advance(OPEN_FOR)
        await everyone()
        assert len(first.asked()) == FAILURES + 1, "half open: one probe"
        fleet.clock.advance(OPEN_FOR)
        await everyone()
        assert len(first.asked()) == FAILURES + 1, "the pause has doubled"
        fleet.sim.clients[first.client.client_id] = first.client
        fleet.clock.advance(OPEN_FOR)
        await everyone()
        assert await everyone() == [200] * 36
        assert len(first.asked()) == FAILURES + 1 + len(accounts)


IDLE = 90 * 86400.0
NEARLY_IDLE = IDLE * 0.86
"""Past where the sweep refreshes (80 to 85 % of the idle life), and before its end."""


@asynccontextmanager
async def sweeper(fleet: Fleet, address: str = "") -> AsyncIterator[Sweeping]:
    """A replica without ports: its sweeper runs when it is told to."""
    given: dict[str, Any] = {
        "vault_addr": address or fleet.openbao.address,
        "vault_secret_id_file": fleet.openbao.vault.secret_id_file,
        "state_dir": Path(tempfile.mkdtemp(dir=fleet.keys.parent)),
    }
    settings = ServerSettings(**given)
    async with (
        connect(app.vault_settings(settings)) as vault,
        app.platform(settings, vault, fleet.clock, Metrics()) as built,
    ):
        owners = (getattr(chore, "__self__", None) for chore in built.chores)
        yield next(owner for owner in owners if isinstance(owner, Sweeping))


async def idle_account(fleet: Fleet, tenant: str = "") -> Account:
    """A credential whose refresh token dies if it is not used for ninety days."""
    ttl = Duration(seconds=int(IDLE))
    return await fleet.account(oauth={"refresh_token_idle_ttl": ttl}, refresh_lifetime=IDLE, tenant=tenant)


async def test_an_idle_credential_is_kept_alive_by_one_sweeper(fleet: Fleet) -> None:
    """Two replicas sweep at once, thrice: one refresh each time, and after 230 idle days the credential works."""
    account = await idle_account(fleet)
    async with sweeper(fleet) as one, sweeper(fleet) as two:
        for times in range(1, 4):
            fleet.clock.advance(NEARLY_IDLE)
            assert sum(await asyncio.gather(one.round(), two.round())) >= 1
            assert await one.round() == 0
            assert len(account.asked()) == times
    assert await account.whoami(fleet.servers[0]) == 200


async def test_a_dead_sweepers_shard_is_gone_on_with(fleet: Fleet) -> None:
    """A sweeper dies with the shard in its hands: for five minutes nobody touches it, then the next one does the rest."""
    account = await idle_account(fleet)
    fleet.clock.advance(NEARLY_IDLE)
    gate = fleet.gates[2]
    async with sweeper(fleet, gate.address) as dying, sweeper(fleet) as next_one:
        held = gate.hold(rf"GET secret/metadata/{account.tenant}\?")
        sweep = asyncio.create_task(dying.round())
        await held.reached()
        sweep.cancel()
        await asyncio.gather(sweep, return_exceptions=True)
        await next_one.round()
        assert account.asked() == []
        fleet.clock.advance(HELD_FOR.total_seconds() + 1)
        await next_one.round()
        held.cut()
    assert len(account.asked()) == 1


async def test_a_broken_record_ends_no_sweep(fleet: Fleet) -> None:
    """A document that nobody can read lies beside a credential, before it by name: the credential is kept alive all the same."""
    account = await idle_account(fleet)
    token = await fleet.openbao.login()
    tenant = await fleet.openbao.call("GET", f"connectors/data/tenants/{account.tenant}", token=token)
    uid = tenant.body["data"]["data"]["uid"]
    broken = {"data": {"tenant_uid": uid, "record": {"state": "no such state"}, "ciphertext": ""}}
    await fleet.openbao.call("POST", f"secret/data/{account.tenant}/a-broken-one", broken, token)
    fleet.clock.advance(NEARLY_IDLE)
    async with sweeper(fleet) as one:
        await one.round()
    assert len(account.asked()) == 1


async def test_a_sweep_never_looks_like_an_attack(fleet: Fleet) -> None:
    """Four due at once are refreshed one after another, with a pause after each."""
    first = await idle_account(fleet)
    for _ in range(3):
        await first.sibling(fleet.servers[0])
    fleet.clock.advance(NEARLY_IDLE)
    async with sweeper(fleet) as one:
        began = asyncio.get_running_loop().time()
        refreshed = await one.round()
        assert asyncio.get_running_loop().time() - began >= refreshed * PAUSE >= 4 * PAUSE
    assert len(first.asked()) == 4
