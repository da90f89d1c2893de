"""A migration undone: the old system goes on as before, with the newest tokens that there are."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc.audit import LogAudit
from connectors_grpc.changes import ChangeFeed
from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials.keeping import Held, Keeper
from connectors_grpc.domain.records import Material
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.migration.checking import check
from connectors_grpc.migration.copying import copy
from connectors_grpc.migration.cutting import cut_over
from connectors_grpc.migration.finishing import finish
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.undoing import FromVault, roll_back
from connectors_grpc.migration.work import Migration
from connectors_grpc.simulator import protocol
from connectors_grpc.simulator.book import Code
from connectors_grpc.tenants import Tenants
from connectors_grpc.vault import VaultCiphers, VaultDocuments, VaultSettings, connect
from tests.migrating import OldBao, OldPlace, migrated, place_of, results, secret
from tests.migration.test_migration import credential, fill, three, token_of
from tests.running import Refused, Server, fresh_id, refused
from tests.worlds import Timed, World, gated, make_world, until


async def nothing(item: Item) -> tuple[Held, Material] | None:
    """Nobody needs the newest of what was not renewed."""
    return None


def undo(vault: VaultSettings | None = None) -> Callable[[Migration], Any]:
    """Roll back, with a way into the new Vault or without."""

    async def step(migration: Migration) -> None:
        if vault is None:
            await roll_back(migration, nothing)
            return
        async with connect(vault) as client:
            cipher, clock = VaultCiphers(client), SystemClock()
            records = VaultDocuments(client, mount="connectors")
            of_tenants = Tenants(records, cipher, ChangeFeed(), LogAudit(), clock)
            await roll_back(migration, FromVault(of_tenants, Keeper(VaultDocuments(client), cipher, clock)))

    return step


@pytest.mark.parametrize("live", [False, True], ids=["staged", "cut-over"])
async def test_what_was_made_is_gone_and_what_was_there_stays(
    placed: Server, old_place: OldPlace, tmp_path: Path, live: bool
) -> None:
    """The tenant that was made with its key, the credentials of one that was there; and all can be done again."""
    kinds, made, there, journal = await three(placed.admin), fresh_id("made"), fresh_id("there"), tmp_path / "j"
    await placed.admin.create_tenant(there)
    for tenant in (made, there):
        await fill(old_place, kinds, tenant, sealed=False)
    await placed.admin.store(there, kinds.key, api_key=pb.ApiKeyMaterial(api_key=old_place.planted[-2]))
    before = await old_place.read(there, kinds.oauth)
    source = await old_place.source()
    await migrated(source, placed, journal, copy)
    if live:
        await migrated(source, placed, journal, cut_over)
    told = results(await migrated(source, placed, journal, undo()))
    assert told.pop(f"{there}/{kinds.key}") == "present"
    assert set(told.values()) == {"rolled back"}
    with refused("TENANT_NOT_FOUND"):
        await placed.admin.call("GetTenant", tenants.GetTenantRequest(tenant=made))
    assert not (await old_place.bao.call("GET", f"transit/keys/{made}")).get("data")
    assert (await credential(placed, there, kinds.oauth)).state == pb.Credential.STATE_REVOKED
    assert (await credential(placed, there, kinds.key)).enabled
    assert await old_place.read(there, kinds.oauth) == before
    assert set(results(await migrated(source, placed, journal, undo())).values()) == {"rolled back", "present"}
    again = await migrated(source, placed, journal, copy)
    assert set(results(again).values()) == {"verified", "present"}
    await migrated(source, placed, journal, cut_over)
    assert (await token_of(placed, there, kinds.oauth)).access_token == before["access_token"]


async def test_what_is_finished_is_not_rolled_back(placed: Server, old_place: OldPlace, tmp_path: Path) -> None:
    """There is nothing to go back to; it stays in use."""
    kinds, tenant, journal = await three(placed.admin), fresh_id("acme"), tmp_path / "j"
    await fill(old_place, kinds, tenant, sealed=False)
    source = await old_place.source("finish")
    for step in (copy, cut_over, lambda migration: finish(migration, destroy=True)):
        await migrated(source, placed, journal, step)
    told = await migrated(source, placed, journal, undo())
    assert {outcome.result for outcome in told.values()} == {"finished"}
    assert all(outcome.problem for outcome in told.values())
    assert (await credential(placed, tenant, kinds.key)).enabled


def issued(world: World) -> protocol.Issued:
    """Tokens of the simulator, as an old system has got them."""
    client = world.sim.clients[world.client_id]
    by = protocol.Chance(world.sim.clock(), world.sim.mint)
    code = Code(client.client_id, "https://app.example/cb", None, "alice", "notes.read", by.now + 60)
    value = protocol.new_code(world.sim.book, code, by.mint)
    found = protocol.exchange_code(world.sim.book, client, value, redirect_uri=code.redirect_uri, verifier=None, by=by)
    assert isinstance(found, protocol.Issued)
    return found


LATER = datetime.now(UTC) + timedelta(hours=20)
TIMES: dict[str, dict[str, Any]] = {
    "seconds": {"expires_at": int(LATER.timestamp()), "scope": "notes.read"},
    "text": {"expires_at": str(int(LATER.timestamp())), "scopes": ["notes.read"]},
    "rfc3339": {"expires_at": LATER.isoformat()},
    "relative": {"expires_in": 70000, "obtained_at": int(datetime.now(UTC).timestamp())},
    "none": {},
}


@pytest.mark.parametrize(
    ("times", "how", "version"),
    [
        ("seconds", "plain", 1),
        ("text", "sealed", 2),
        ("rfc3339", "whole", 2),
        ("relative", "sealed", 1),
        ("none", "plain", 2),
    ],
)
async def test_a_token_that_was_refreshed_here_goes_back_into_the_old_record(
    world: World, old_bao: Any, timed_vault: VaultSettings, tmp_path: Path, times: str, how: str, version: int
) -> None:
    """In its own form, under its own key; the provider is told nothing, and takes it. A second migration proves it."""
    place, tokens, journal = place_of(old_bao, version), issued(world), tmp_path / "j"
    tenant, name, item = world.tenant, world.integration, f"{world.tenant}/{world.integration}"
    fields = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token, **TIMES[times]}
    if how == "whole":
        await place.write(tenant, name, ciphertext=await place.seal(tenant, name, json.dumps(fields)))
    elif how == "sealed":
        texts = ("access_token", "refresh_token")
        sealed = {each: await place.seal(tenant, name, str(fields[each])) for each in texts}
        await place.write(tenant, name, **{**fields, **sealed})
    else:
        await place.write(tenant, name, **fields)
    source = await place.source("rollback", fresh=True)
    for step in (copy, cut_over):
        await migrated(source, world.server, journal, step, old_stopped=True)
    await world.refresh()
    assert results(await migrated(source, world.server, journal, check)) == {item: "renewed here"}
    newest = (await world.token()).access_token
    assert newest != tokens.access_token

    assert results(await migrated(source, world.server, journal, undo(timed_vault))) == {item: "rolled back"}
    stored = await place.read(tenant, name)
    if how == "whole":
        assert set(stored) == {"ciphertext"}
        stored = json.loads(await place.open(tenant, name, stored["ciphertext"]))
    elif how == "sealed":
        assert stored["refresh_token"].startswith("vault:v1:")
        stored = {**stored, "access_token": await place.open(tenant, name, stored["access_token"])}
    assert stored["access_token"] == newest
    assert set(fields) <= set(stored)
    assert {type(stored[each]) for each in TIMES[times]} == {type(each) for each in TIMES[times].values()}
    assert [seen for seen in world.sim.record.on("/revoke") if seen.client_id == world.client_id] == []
    assert (await world.credential()).state == pb.Credential.STATE_REVOKED

    for step in (copy, cut_over):
        assert len(await migrated(source, world.server, journal, step, old_stopped=True)) == 1
    assert (await world.token()).access_token == newest
    await world.refresh()
    assert (await world.credential()).state == pb.Credential.STATE_ACTIVE


async def test_without_a_way_to_the_newest_tokens_nothing_is_forgotten(
    world: World, old_bao: Any, timed_vault: VaultSettings, tmp_path: Path
) -> None:
    """It waits, switched off, for a rollback that can read it."""
    place, tokens, journal = place_of(old_bao), issued(world), tmp_path / "j"
    item = f"{world.tenant}/{world.integration}"
    await place.write(
        world.tenant, world.integration, access_token=tokens.access_token, refresh_token=tokens.refresh_token
    )
    source = await place.source("rollback", fresh=True)
    for step in (copy, cut_over):
        await migrated(source, world.server, journal, step, old_stopped=True)
    await world.refresh()
    told = await migrated(source, world.server, journal, undo())
    assert told[item].result == "not rolled back"
    assert "--to-" in told[item].problem
    there = await world.credential()
    assert (there.enabled, there.state) == (False, pb.Credential.STATE_ACTIVE)
    assert results(await migrated(source, world.server, journal, undo(timed_vault))) == {item: "rolled back"}


async def test_a_credential_that_was_connected_anew_here_is_left(
    server: Server, old_place: OldPlace, tmp_path: Path
) -> None:
    """It did not come from the old record, so it does not go there either; and it stays in use."""
    kinds, tenant, journal = await three(server.admin), fresh_id("acme"), tmp_path / "j"
    await old_place.write(tenant, kinds.oauth, access_token=secret(), refresh_token=secret())
    source = await old_place.source()
    for step in (copy, cut_over):
        await migrated(source, server, journal, step, old_stopped=True)
    await server.admin.store(tenant, kinds.oauth, oauth=pb.OAuthMaterial(access_token=(mine := secret())))
    told = await migrated(source, server, journal, undo())
    assert told[f"{tenant}/{kinds.oauth}"].result == "left alone"
    assert (await token_of(server, tenant, kinds.oauth)).access_token == mine


async def test_a_rollback_waits_for_a_refresh_under_way_and_gives_back_what_came_of_it(
    timed: Timed, old_bao: OldBao, timed_vault: VaultSettings, tmp_path: Path
) -> None:
    """The provider has rotated, and its answer is on the way: forgotten now, the one good refresh token would be lost."""
    place, journal = place_of(old_bao), tmp_path / "j"
    async with gated(timed.sim) as gate:
        world = await make_world(timed.server, timed.sim, timed.clock, token_endpoint=f"{gate.url}/token")
        tokens, item = issued(world), f"{world.tenant}/{world.integration}"
        await place.write(
            world.tenant, world.integration, access_token=tokens.access_token, refresh_token=tokens.refresh_token
        )
        source = await place.source("rollback", fresh=True)
        for step in (copy, cut_over):
            await migrated(source, world.server, journal, step, old_stopped=True)
        gate.shut()
        refreshing = asyncio.create_task(world.refresh())
        await gate.reached(1)
        rolling = asyncio.create_task(migrated(source, world.server, journal, undo(timed_vault)))

        async def switched_off() -> bool:
            return not (await world.credential()).enabled

        await until(switched_off)
        gate.open.set()
        assert results(await rolling) == {item: "rolled back"}
        with contextlib.suppress(Refused):  # it was switched off meanwhile
            await refreshing
        newer = await place.read(world.tenant, world.integration)
        assert newer["refresh_token"] != tokens.refresh_token
        for step in (copy, cut_over):
            await migrated(source, world.server, journal, step, old_stopped=True)
        assert (await world.refresh()).state == pb.Credential.STATE_ACTIVE
