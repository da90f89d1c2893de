"""Two whole servers over one OpenBao: what changes at one is known at the other, and at its sidecars, within five seconds.

`two` has a clock that stands still for its caches: what it once read stays there until a change makes it forget. So a lease that
it refuses right after an event was refused by what is stored, and not because a second was over.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest_asyncio

from connectors_grpc.domain.ids import TenantId
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.journals import JournaledChanges, Pace
from connectors_grpc.journals.journal import CAPACITY
from connectors_grpc.ports import Change
from connectors_grpc.vault import VaultDocuments, VaultSettings, connect
from connectors_grpc.vault.packing import unpack
from tests.openbao import OpenBao
from tests.providers import recording_upstream
from tests.replicas import ReplicaProcess, replica_process, sidecar_at
from tests.running import Client, Refused, Server, fresh_id, refused, running_server

SAME_REPLICA, ACROSS = 2.0, 5.0
"""The promise, in seconds. Events are waited for `SLACK` times as long: the machine may be busy."""
SLACK = 6
API: Mapping[str, Any] = {
    "base_url": "https://api.notes.example",
    "placement": {"headers": {"authorization": "Bearer {api_key}"}},
}


class StandingClock:
    """`ports.Clock`: the system's time of day, and a monotonic time that stands still."""

    def now(self) -> datetime:
        """See ports.Clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See ports.Clock."""
        return 0.0


class Watch:
    """A sidecar's stream of events, past its first resync."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def until(self, kind: str, within: float = ACROSS, **fields: str) -> None:
        """Wait for that very event, which is the promise."""
        async with asyncio.timeout(within * SLACK):
            while True:
                event = await self._call.read()
                assert event is not grpc.aio.EOF, "the stream ended"
                said = getattr(event, kind) if event.WhichOneof("event") == kind else None
                if said is not None and all(getattr(said, name) == value for name, value in fields.items()):
                    return

    async def cut(self, within: float) -> None:
        """Wait until the stream is ended because its key is no longer good."""
        with refused("API_KEY_INVALID"):
            async with asyncio.timeout(within * SLACK):
                while await self._call.read() is not grpc.aio.EOF:
                    pass
                await self._call.initial_metadata()


@asynccontextmanager
async def watching(client: Client) -> AsyncIterator[Watch]:
    """A stream that is up: its first event was a resync."""
    stub: Any = proxy_service_pb2_grpc.ProxyServiceStub(client.channel)
    call = stub.WatchLeases(proxy.WatchLeasesRequest(), metadata=client.metadata)
    async with asyncio.timeout(60):
        first = await call.read()
    assert first.WhichOneof("event") == "resync"
    try:
        yield Watch(call)
    finally:
        call.cancel()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(server: Server, openbao: OpenBao) -> AsyncIterator[Server]:
    """The second replica: the same Vault, the same keys."""
    async with running_server(openbao, server.keys, clock=StandingClock()) as found:
        yield found


class Place:
    """A tenant with one credential."""

    def __init__(self, tenant: str, integration: str) -> None:
        self.tenant = tenant
        self.integration = integration

    async def lease(self, server: Server, **fields: Any) -> proxy.Lease:
        """Lease it as the sidecar."""
        request = proxy.LeaseRequest(tenant=self.tenant, credential=self.integration, **fields)
        found: proxy.Lease = (await server.sidecar.call("Lease", request)).lease
        return found


@pytest_asyncio.fixture(loop_scope="session")
async def place(server: Server, two: Server) -> Place:
    """A place of the test's own, which the second replica has in its caches. The events of its making are over."""
    made = Place(fresh_id("rep"), fresh_id("notes"))
    async with watching(two.sidecar) as there:
        await server.admin.create_integration(made.integration, api=API)
        await server.admin.create_tenant(made.tenant)
        await server.admin.store(made.tenant, made.integration, api_key={"api_key": "k-1"})
        await there.until("credential_changed", tenant=made.tenant, credential=made.integration)
    await made.lease(server)
    await made.lease(two)
    return made


def test_the_pace_keeps_the_promise() -> None:
    """A change is written within a gap and read within a poll; a Vault may take as long as it may at one of the two."""
    pace = Pace()
    assert pace.gap + pace.poll + pace.deadline < ACROSS


async def test_a_suspension_is_known_everywhere(server: Server, two: Server, place: Place) -> None:
    """And the resumption: events at both, and no lease from a cache after either."""
    suspend = tenants.SuspendTenantRequest(tenant=place.tenant)
    async with watching(server.sidecar) as here, watching(two.sidecar) as there:
        await server.admin.call("SuspendTenant", suspend)
        await here.until("tenant_changed", SAME_REPLICA, tenant=place.tenant)
        await there.until("tenant_changed", ACROSS, tenant=place.tenant)
        for replica in (server, two):
            with refused("TENANT_SUSPENDED"):
                await place.lease(replica)
        await server.admin.call("ResumeTenant", tenants.ResumeTenantRequest(tenant=place.tenant))
        await there.until("tenant_changed", ACROSS, tenant=place.tenant)
        await place.lease(two)


async def test_a_deleted_tenant_is_gone_everywhere(server: Server, two: Server, place: Place) -> None:
    """No lease at the other replica once its sidecar heard of it."""
    async with watching(two.sidecar) as there:
        await server.admin.call("DeleteTenant", tenants.DeleteTenantRequest(tenant=place.tenant, force=True))
        await there.until("tenant_changed", ACROSS, tenant=place.tenant)
        with refused("TENANT_NOT_FOUND"):
            await place.lease(two)


async def test_a_revoked_credential_is_refused_everywhere(server: Server, two: Server, place: Place) -> None:
    """The event names tenant and credential."""
    revoke = credentials.RevokeCredentialRequest(tenant=place.tenant, credential=place.integration)
    async with watching(server.sidecar) as here, watching(two.sidecar) as there:
        await server.admin.call("RevokeCredential", revoke)
        named = {"tenant": place.tenant, "credential": place.integration}
        await here.until("credential_changed", SAME_REPLICA, **named)
        await there.until("credential_changed", ACROSS, **named)
        with refused("CREDENTIAL_REVOKED"):
            await place.lease(two)


async def test_a_new_generation_is_leased_everywhere(server: Server, two: Server, place: Place) -> None:
    """What was stored at one replica is what the other hands out after the event."""
    async with watching(two.sidecar) as there:
        await server.admin.store(place.tenant, place.integration, api_key={"api_key": "k-2"})
        await there.until("credential_changed", ACROSS, tenant=place.tenant, credential=place.integration)
        lease = await place.lease(two)
        assert lease.generation == 2
        assert [field.value for field in lease.headers] == ["Bearer k-2"]


async def test_changes_go_both_ways(server: Server, two: Server, place: Place) -> None:
    """The second replica's changes reach the first."""
    async with watching(server.sidecar) as here:
        await two.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=place.tenant))
        await here.until("tenant_changed", ACROSS, tenant=place.tenant)
        with refused("TENANT_SUSPENDED"):
            await place.lease(server)


async def test_a_changed_integration_makes_sidecars_lease_again(server: Server, two: Server, place: Place) -> None:
    """A resync, since only the sidecar could know which leases hang on it; the definition in force is the new one."""
    changed = integrations.Integration(
        id=place.integration,
        api=integrations.Api(**API, default_headers={"Notes-Version": "2"}),
    )
    async with watching(two.sidecar) as there:
        await server.admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=changed))
        await there.until("resync", ACROSS)
        lease = await place.lease(two)
        assert [(header.name, header.value) for header in lease.default_headers] == [("Notes-Version", "2")]


async def test_a_revoked_app_key_proves_nothing_anywhere(server: Server, two: Server, place: Place) -> None:
    """Its grant is dropped by the event, and the other replica's cache of keys too."""
    made = await server.admin.call(
        "CreateApiKey",
        access.CreateApiKeyRequest(api_key=access.ApiKey(roles=[access.ROLE_APP], tenants=[place.tenant])),
    )
    proof = proxy.AppKeyProof(key_id=made.api_key.id, sha256=hashlib.sha256(made.secret.encode()).digest())
    await place.lease(two, app_key=proof)
    async with watching(two.sidecar) as there:
        await server.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=made.api_key.id))
        await there.until("api_key_changed", ACROSS, key_id=made.api_key.id)
        with refused("API_KEY_INVALID"):
            await place.lease(two, app_key=proof)


async def test_attack_40_a_revoked_sidecar_keys_streams_are_cut_everywhere(server: Server, two: Server) -> None:
    """Open streams too, on both replicas, and no new one is opened."""
    made = await server.admin.call(
        "CreateApiKey", access.CreateApiKeyRequest(api_key=access.ApiKey(roles=[access.ROLE_SIDECAR], tenants=["*"]))
    )
    async with watching(server.client(made.secret)) as here, watching(two.client(made.secret)) as there:
        await server.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=made.api_key.id))
        await asyncio.gather(here.cut(SAME_REPLICA), there.cut(ACROSS))
    for replica in (server, two):
        with refused("API_KEY_INVALID"):
            await replica.client(made.secret).call("Lease", proxy.LeaseRequest(tenant="t", credential="c"))


async def test_a_sidecar_of_another_replica_obeys_within_five_seconds(server: Server, two: Server) -> None:
    """The promise from end to end: a new key is used, a suspension refuses, a revoked app key opens no door.

    Leases last a minute, so it is the events that do it.
    """
    async with recording_upstream() as up, sidecar_at(two) as side:
        place = Place(fresh_id("rep"), fresh_id("notes"))
        await server.admin.create_integration(
            place.integration, api={**API, "base_url": up.url}, allow_private_addresses=True
        )
        await server.admin.create_tenant(place.tenant)
        await server.admin.store(place.tenant, place.integration, api_key={"api_key": "k-1"})
        key = (await server.app(place.tenant)).key

        async def until(fact: Callable[[httpx2.Response], bool]) -> None:
            async with asyncio.timeout(ACROSS * SLACK):
                while not fact(
                    await side.app.get(f"/~{place.tenant}/{place.integration}/v1", headers={"x-api-key": key})
                ):
                    pass

        async def until_refused(reason: str) -> None:
            await until(lambda answer: answer.headers.get("x-connectors-error") == reason)

        await until(lambda answer: answer.is_success)
        assert (await place.lease(two)).refresh_after_ttl.ToTimedelta().total_seconds() > 10 * ACROSS
        await server.admin.store(place.tenant, place.integration, api_key={"api_key": "k-2"})
        await until(lambda _: up.requests[-1].header("authorization") == ["Bearer k-2"])
        await server.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=place.tenant))
        await until_refused("TENANT_SUSPENDED")
        await server.admin.call("ResumeTenant", tenants.ResumeTenantRequest(tenant=place.tenant))
        await until(lambda answer: answer.is_success)
        await server.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=key.split("_")[1]))
        await until_refused("API_KEY_INVALID")


def process(server: Server, openbao: OpenBao, state: Path) -> AbstractAsyncContextManager[ReplicaProcess]:
    """A replica in a process of its own, to be killed."""
    return replica_process(openbao.address, openbao.vault.secret_id_file, server.keys, state, ready=60)


async def test_a_busy_replica_is_heard(server: Server, openbao: OpenBao) -> None:
    """As many different changes as a journal holds go through a real Vault: the page is not refused, and nobody has a gap."""
    vault = VaultSettings(address=openbao.address, secret_id_file=openbao.vault.secret_id_file)
    async with (
        connect(vault) as client,
        JournaledChanges(VaultDocuments(client, mount="connectors")) as busy,
        watching(server.sidecar) as here,
    ):
        names = [fresh_id("busy") for _ in range(CAPACITY)]
        for name in names:
            busy.publish(Change(tenant=TenantId(name)))
        for name in names:
            await here.until("tenant_changed", ACROSS, tenant=name)


async def test_a_killed_replica_is_a_gap_and_its_next_life_is_heard(
    server: Server, two: Server, openbao: OpenBao, place: Place, tmp_path: Path
) -> None:
    """It may have died with a change unsaid: sidecars of the others lease again. What it says when it is back is heard."""
    async with watching(two.sidecar) as there:
        async with process(server, openbao, tmp_path) as third:
            await third.server.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=place.tenant))
            await there.until("tenant_changed", ACROSS, tenant=place.tenant)
            await third.kill()
            await there.until("resync", ACROSS)
        with refused("TENANT_SUSPENDED"):
            await place.lease(two)
        async with process(server, openbao, tmp_path) as third:
            await third.server.admin.call("ResumeTenant", tenants.ResumeTenantRequest(tenant=place.tenant))
            await there.until("tenant_changed", ACROSS, tenant=place.tenant)
            await place.lease(two)
            third.process.terminate()
            async with asyncio.timeout(60):
                assert await third.process.wait() == 0


async def suspended(server: Server, tenant: str) -> None:
    """Suspend it as soon as the Vault lets us."""
    async with asyncio.timeout(60):
        while True:
            try:
                await server.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=tenant))
            except Refused as error:
                if error.reason != "VAULT_UNAVAILABLE":
                    raise
                await asyncio.sleep(error.retry_after or 0.1)
            else:
                return


async def test_a_vault_outage_loses_no_change(private_openbao: OpenBao, tmp_path: Path) -> None:
    """Killed right after a change was stored, started again: the other replica hears it, and what came after."""
    keys = tmp_path / "keys"
    async with running_server(private_openbao, keys) as one, running_server(private_openbao, keys) as two:
        names = [fresh_id("out"), fresh_id("out")]
        for name in names:
            await one.admin.create_tenant(name)
        async with watching(two.sidecar) as there:
            await one.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=names[0]))
            pid = private_openbao.vault.pid
            assert pid is not None
            os.kill(pid, 9)
            await private_openbao.vault.wait_exit()
            await private_openbao.vault.stop()
            with refused("VAULT_UNAVAILABLE"):
                await one.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=names[1]))
            await private_openbao.vault.start()
            await there.until("tenant_changed", 2 * ACROSS, tenant=names[0])
            await suspended(one, names[1])
            await there.until("tenant_changed", ACROSS, tenant=names[1])


async def test_the_journals_are_where_the_policy_allows_and_hold_no_secret(openbao: OpenBao, server: Server) -> None:
    """One document for each life, readable under the server's own policy; ids and numbers, nothing else."""
    token = await openbao.login()
    listed = await openbao.call("LIST", "connectors/metadata/changes", token=token)
    names = listed.body["data"]["keys"]
    assert names
    for name in names:
        document = await openbao.call("GET", f"connectors/data/changes/{name}", token=token)
        assert set(unpack(document.body["data"]["data"])) == {"floor", "last", "ended", "entries", "said"}
