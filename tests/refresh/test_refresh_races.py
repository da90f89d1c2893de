"""What happens beside a refresh that is in flight: the provider has answered, and something else changes first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.simulator import SimulatorSettings
from tests.http.test_connect_page import begin, consented, query
from tests.openbao import OpenBao
from tests.providers import running_simulator
from tests.running import Refused, refused, running_server
from tests.worlds import Gate, ShiftedClock, State, Timed, World, gated, make_world, until


@dataclass
class Race:
    """A connected world whose token answers can be held."""

    world: World
    gate: Gate

    @contextlib.asynccontextmanager
    async def in_flight(self) -> AsyncIterator[asyncio.Task[int]]:
        """A call that needs a refresh; in the block the provider has rotated and its answer is held. Gives the call."""
        before = len(self.world.asked())
        count = self.gate._answered + 1
        self.world.expire()
        self.gate.shut()
        call = asyncio.create_task(self.world.whoami())
        try:
            await self.gate.reached(count)
            assert len(self.world.asked()) == before + 1
            yield call
        finally:
            self.gate.open.set()

    async def update(self, **changes: object) -> None:
        """UpdateCredential."""
        credential = pb.Credential(tenant=self.world.tenant, id=self.world.integration, **changes)  # type: ignore[arg-type]
        request = pb.UpdateCredentialRequest(credential=credential, update_mask=FieldMask(paths=list(changes)))
        await self.world.admin.call("UpdateCredential", request)


@pytest.fixture
async def race(timed: Timed) -> AsyncIterator[Race]:
    """A world of this test's own, connected through a gate."""
    async with gated(timed.sim) as gate:
        world = await make_world(timed.server, timed.sim, timed.clock, token_endpoint=f"{gate.url}/token")
        page = await world.connect()
        assert page.status_code == 200, page.text
        yield Race(world, gate)


async def test_fifty_calls_at_expiry_are_one_refresh(race: Race) -> None:
    """Attack 26 on one replica: all get through with the one new token."""
    race.world.expire()
    assert await asyncio.gather(*(race.world.whoami() for _ in range(50))) == [200] * 50
    assert len(race.world.asked()) == 1
    assert (await race.world.credential()).generation == 2


async def test_a_caller_that_leaves_does_not_stop_the_refresh(race: Race) -> None:
    """The provider has rotated: the answer is stored though nobody waits for it any more."""
    async with race.in_flight() as call:
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await until(lambda: _generation(race.world, 2))
    assert await race.world.whoami() == 200
    assert len(race.world.asked()) == 1


async def _generation(world: World, wanted: int) -> bool:
    return bool((await world.credential()).generation == wanted)


async def test_labels_and_tokens_both_survive(race: Race) -> None:
    """Compare-and-set fails once; the new token goes in over the new labels."""
    async with race.in_flight() as call:
        await race.update(labels={"team": "blue"})
    assert await call == 200
    credential = await race.world.credential()
    assert (dict(credential.labels), credential.generation) == ({"team": "blue"}, 2)
    race.world.expire()
    assert await race.world.whoami() == 200


async def test_a_credential_switched_off_meanwhile_is_not_used(race: Race) -> None:
    """The token is stored, the call that waited is refused, and switching on again needs no person."""
    async with race.in_flight() as call:
        await race.update(enabled=False)
    with refused("CREDENTIAL_DISABLED"):
        await call
    assert (await race.world.credential()).generation == 2
    await race.update(enabled=True)
    assert await race.world.whoami() == 200


async def test_a_credential_revoked_meanwhile_stays_revoked(race: Race) -> None:
    """The answer that comes late is dropped: no token comes back to life, and none is in the Vault."""
    async with race.in_flight() as call:
        request = pb.RevokeCredentialRequest(tenant=race.world.tenant, credential=race.world.integration)
        await race.world.admin.call("RevokeCredential", request)
    with refused("CREDENTIAL_REVOKED"):
        await call
    credential = await race.world.credential()
    assert (credential.state, credential.refreshable) == (State.STATE_REVOKED, False)
    with refused("CREDENTIAL_REVOKED"):
        await race.world.whoami()


async def test_a_reconnect_meanwhile_wins(race: Race) -> None:
    """A person's new consent is not overwritten by the answer to the old refresh token."""
    async with race.in_flight() as call:
        race.gate.open.set()
        assert (await race.world.connect("bob")).status_code == 200
    with contextlib.suppress(Refused):
        await call
    answer = await race.world.app.proxied(race.world.tenant, race.world.integration, "/v1/whoami")
    assert b'"bob"' in answer.body
    race.world.expire()
    assert await race.world.whoami() == 200


async def test_a_tenant_suspended_meanwhile_makes_no_call(race: Race) -> None:
    """The token is stored, for the tenant may be resumed; the call that waited does not go out."""
    world = race.world
    async with race.in_flight() as call:
        await world.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=world.tenant))
    with refused("TENANT_SUSPENDED"):
        await call
    assert not [seen for seen in world.sim.record.on("/v1/whoami") if seen.client_id == world.client_id]
    await world.admin.call("ResumeTenant", tenants.ResumeTenantRequest(tenant=world.tenant))
    assert await world.whoami() == 200
    assert len(world.asked()) == 1


async def test_a_tenant_deleted_meanwhile_leaves_nothing(race: Race) -> None:
    """Nor does a tenant of the same name that comes after inherit (attack 38)."""
    world = race.world
    async with race.in_flight() as call:
        await world.admin.call("DeleteTenant", tenants.DeleteTenantRequest(tenant=world.tenant, force=True))
        await until(lambda: _gone(world))
        await world.admin.create_tenant(world.tenant)
    with pytest.raises(Refused):
        await call
    with refused("CREDENTIAL_NOT_FOUND"):
        await world.credential()


async def _gone(world: World) -> bool:
    try:
        await world.admin.call("GetTenant", tenants.GetTenantRequest(tenant=world.tenant))
    except Refused as error:
        return bool(error.reason == "TENANT_NOT_FOUND")
    return False


async def test_an_exchange_outlives_the_caller_that_began_it(race: Race) -> None:
    """CompleteAuthorization is cancelled after the provider answered: the credential is stored all the same."""
    world = race.world
    own = "https://platform.example/connected"
    world.change_client(redirect_uris=(own,))
    async with httpx2.AsyncClient(trust_env=False) as http:
        link = await world.link(redirect_uri=own, credential="other")
        back = query(await consented(http, link, "bob"))
    count = race.gate._answered + 1
    race.gate.shut()
    request = pb.CompleteAuthorizationRequest(state=back["state"], code=back["code"], iss=back["iss"])
    call = asyncio.create_task(world.admin.call("CompleteAuthorization", request))
    await race.gate.reached(count)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    race.gate.open.set()
    await until(lambda: _connected(world, "other"))
    assert await world.whoami("other") == 200


async def _connected(world: World, name: str) -> bool:
    try:
        return bool((await world.credential(name)).state == State.STATE_ACTIVE)
    except Refused as error:
        if error.reason != "CREDENTIAL_NOT_FOUND":
            raise
        return False


@dataclass
class Own(Race):
    """A race over a server and a Vault of its own."""

    openbao: OpenBao


@pytest.fixture
async def own(private_openbao: OpenBao, tmp_path: Path) -> AsyncIterator[Own]:
    """A connected world over a Vault that may be killed."""
    clock = ShiftedClock()
    async with (
        running_server(private_openbao, tmp_path / "keys", clock=clock) as server,
        running_simulator(SimulatorSettings(clients=()), clock) as sim,
        gated(sim) as gate,
    ):
        world = await make_world(server, sim, clock, token_endpoint=f"{gate.url}/token")
        assert (await world.connect()).status_code == 200
        yield Own(world, gate, private_openbao)


async def test_a_vault_that_dies_after_the_answer_loses_nothing(own: Own) -> None:
    """Attack 27: rotated at once, so that a lost answer would need a person. It is stored once the Vault is back."""
    async with own.in_flight() as call:
        await own.openbao.kill()
    await own.gate.reached(2)
    await own.openbao.vault.start()
    assert await call == 200
    await until(lambda: _refreshed(own.world))
    own.world.expire()
    assert await own.world.whoami() == 200
    assert len(own.world.asked()) == 2


async def _refreshed(world: World) -> bool:
    try:
        return await _generation(world, 2)
    except Refused as error:
        if error.reason != "VAULT_UNAVAILABLE":
            raise
        return False


async def test_a_vault_that_dies_after_the_code_was_used_loses_nothing(own: Own) -> None:
    """A person has consented: the credential is stored once the Vault is back, without asking them again."""
    world = own.world
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        url = await consented(http, await begin(http, await world.link(credential="second")), "bob")
        count = own.gate._answered + 1
        own.gate.shut()
        back = asyncio.create_task(http.get(url))
        await own.gate.reached(count)
        await own.openbao.kill()
        own.gate.open.set()
        await own.openbao.vault.start()
        assert (await back).status_code == 200
    assert await world.whoami("second") == 200


async def test_a_server_that_stops_stores_what_is_under_way(private_openbao: OpenBao, tmp_path: Path) -> None:
    """A graceful stop waits for the flight: the next start finds the rotated token."""
    clock = ShiftedClock()
    async with running_simulator(SimulatorSettings(clients=()), clock) as sim, gated(sim) as gate:
        async with running_server(private_openbao, tmp_path / "keys", clock=clock) as server:
            world = await make_world(server, sim, clock, token_endpoint=f"{gate.url}/token")
            await world.connect()
            race = Race(world, gate)
            async with race.in_flight() as call:
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
        async with running_server(private_openbao, tmp_path / "keys", clock=clock) as again:
            request = pb.GetCredentialRequest(tenant=world.tenant, credential=world.integration)
            assert (await again.admin.call("GetCredential", request)).credential.generation == 2
