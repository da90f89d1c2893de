"""The old system goes on refreshing rotating tokens while it is migrated: no refresh token is used twice, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.migration.checking import check
from connectors_grpc.migration.copying import copy
from connectors_grpc.migration.cutting import cut_over
from connectors_grpc.simulator import protocol
from tests.migrating import OldBao, OldPlace, migrated, place_of, results
from tests.migration.test_migration_rollback import issued
from tests.running import fresh_id
from tests.worlds import World

MANY = 24
LEAD = 300
"""Seconds before its end in which the old system refreshes a token: less than the tool's window of fifteen minutes."""


class OldSystem:
    """Refreshes whatever is about to end, and writes what it got into the old record. Never anything else."""

    def __init__(self, world: World, place: OldPlace, names: list[str]) -> None:
        self.world = world
        self.place = place
        self.names = names
        self.refreshed = 0

    async def refresh_what_is_due(self) -> None:
        """One round over all records."""
        client = self.world.sim.clients[self.world.client_id]
        for name in self.names:
            record = await self.place.read(name, self.world.integration)
            now = datetime.now(UTC).timestamp()
            if record["expires_at"] - now > LEAD:
                continue
            by = protocol.Chance(self.world.sim.clock(), self.world.sim.mint)
            got = protocol.refresh(self.world.sim.book, client, record["refresh_token"], scope=None, by=by)
            assert isinstance(got, protocol.Issued), "the old system lost its refresh token"
            self.refreshed += 1
            await asyncio.sleep(0)  # the provider has rotated, and nobody has written it down yet
            await self.place.write(
                name, self.world.integration,
                access_token=got.access_token, refresh_token=got.refresh_token, expires_at=int(now + 3600),
            )  # fmt: skip

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """It runs beside the block, and ends the round that it is in."""
        stop = asyncio.Event()

        async def work() -> None:
            while not stop.is_set():
                await self.refresh_what_is_due()

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            stop.set()
            await task


async def test_two_systems_that_keep_to_the_window_never_share_a_refresh_token(
    world: World, old_bao: OldBao, tmp_path: Path
) -> None:
    """Half of the tokens are about to end: those the old system refreshes first. Then the new side refreshes every one."""
    place, journal = place_of(old_bao), tmp_path / "j"
    names = [fresh_id("corp") for _ in range(MANY)]
    now = int(datetime.now(UTC).timestamp())
    for number, name in enumerate(names):
        tokens = issued(world)
        await place.write(
            name, world.integration,
            access_token=tokens.access_token, refresh_token=tokens.refresh_token,
            expires_at=now + (60 if number % 2 else 3600),
        )  # fmt: skip
    source, old = await place.source(fresh=True), OldSystem(world, place, names)
    seen: set[str] = set()
    async with asyncio.timeout(240), old.at_work():
        while True:
            await migrated(source, world.server, journal, copy)
            told = set(results(await migrated(source, world.server, journal, cut_over)).values())
            seen |= told
            if told == {"cut over"}:
                break
    assert old.refreshed == MANY / 2
    assert seen <= {"cut over", "due", "changing"}
    assert set(results(await migrated(source, world.server, journal, check)).values()) == {"in use"}
    for name in names:
        request = pb.RefreshCredentialRequest(tenant=name, credential=world.integration)
        renewed = (await world.admin.call("RefreshCredential", request)).credential
        assert renewed.state == pb.Credential.STATE_ACTIVE
    assert set(results(await migrated(source, world.server, journal, check)).values()) == {"renewed here"}
