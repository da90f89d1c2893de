"""A migration that dies before, or right after, each single thing that it does, and goes on from there."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.migration.checking import check
from connectors_grpc.migration.copying import copy
from connectors_grpc.migration.cutting import cut_over
from connectors_grpc.migration.finishing import finish
from connectors_grpc.migration.work import Migration
from connectors_grpc.vault import VaultSettings
from tests.migrating import OldBao, OldPlace, migrated, place_of, results, secret
from tests.migration.test_migration import three
from tests.migration.test_migration_rollback import issued, undo
from tests.worlds import World

Work = Callable[[Migration], Awaitable[object]]
EFFECTS = frozenset(
    ("create_tenant", "delete_tenant", "send", "switch", "replace", "forget", "write", "delete", "note")
)
"""What a migration does to the world."""
MOST = 200


class Killed(BaseException):
    """As if the process had died."""


class Life:
    """Ends with the effect of a certain number: before it, or right after."""

    def __init__(self, number: int, *, after: bool) -> None:
        self.left = number
        self.after = after

    def lived(self, target: object) -> Any:
        """The same object, each of whose effects counts."""
        return _Mortal(target, self)

    def passed(self) -> bool:
        """Count one; whether it is the last."""
        self.left -= 1
        return self.left == 0


class _Mortal:
    def __init__(self, target: object, life: Life) -> None:
        self._target = target
        self._life = life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in EFFECTS:
            return found
        life = self._life

        if inspect.iscoroutinefunction(found):

            async def effect(*arguments: Any, **named: Any) -> Any:
                last = life.passed()
                if last and not life.after:
                    raise Killed
                result = await found(*arguments, **named)
                if last:
                    raise Killed
                return result

            return effect

        def at_once(*arguments: Any, **named: Any) -> Any:
            last = life.passed()
            if last and not life.after:
                raise Killed
            result = found(*arguments, **named)
            if last:
                raise Killed
            return result

        return at_once


async def killed_everywhere(
    run: Callable[[Work], Awaitable[Any]],
    step: Work,
    *,
    after: bool,
) -> int:
    """Run the step again and again, each time killed one effect later; says how often, till it lived to its end."""
    for number in range(1, MOST):
        life = Life(number, after=after)

        async def mortal(migration: Migration, life: Life = life) -> None:
            for part in ("old", "new", "journal"):
                setattr(migration, part, life.lived(getattr(migration, part)))
            await step(migration)

        try:
            await run(mortal)
        except Killed:
            continue
        return number - 1
    raise AssertionError("it never came to its end")


async def prepared(world: World, place: OldPlace) -> dict[str, tuple[str, str, dict[str, str]]]:
    """A credential with a refresh token, one with a key under a key of its own, one of a tenant that is not there yet."""
    kinds, tokens = await three(world.admin), issued(world)
    other = f"other-{world.tenant}"
    assert tokens.refresh_token is not None
    wanted = {
        "oauth": (
            world.tenant,
            world.integration,
            {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token},
        ),
        "key": (world.tenant, kinds.key, {"api_key": secret()}),
        "basic": (other, kinds.basic, {"username": secret(), "password": secret()}),
    }
    for number, (tenant, integration, fields) in enumerate(wanted.values()):
        if number % 2:
            fields_written = {name: await place.seal(tenant, integration, text) for name, text in fields.items()}
        else:
            fields_written = fields
        await place.write(tenant, integration, **fields_written)
    return wanted


@pytest.mark.parametrize(("version", "after"), [(1, False), (2, True)], ids=["kv1-before", "kv2-after"])
async def test_a_migration_killed_at_every_single_step_loses_nothing(
    world: World, old_bao: OldBao, timed_vault: VaultSettings, tmp_path: Path, version: int, after: bool
) -> None:
    """Copied, cut over, refreshed, rolled back with the newest tokens in the old record, all of it in pieces."""
    place, journal = place_of(old_bao, version), tmp_path / "j"
    wanted = await prepared(world, place)
    source = await place.source("rollback", fresh=True)

    async def run(step: Work) -> Any:
        return await migrated(source, world.server, journal, step, old_stopped=True)

    assert await killed_everywhere(run, copy, after=after) > 3
    assert set(results(await run(check)).values()) == {"verified"}
    assert await killed_everywhere(run, cut_over, after=after) > 3
    assert set(results(await run(check)).values()) == {"in use"}
    await world.refresh()
    newest = (await world.token()).access_token
    assert await killed_everywhere(run, undo(timed_vault), after=after) > 5
    stored = await place.read(world.tenant, world.integration)
    assert stored["access_token"] == newest
    assert stored["refresh_token"] not in (wanted["oauth"][2]["refresh_token"], "")
    assert (await world.credential()).state == pb.Credential.STATE_REVOKED
    assert [seen for seen in world.sim.record.on("/revoke") if seen.client_id == world.client_id] == []
    for step in (copy, cut_over):
        await run(step)
    assert (await world.refresh()).state == pb.Credential.STATE_ACTIVE


@pytest.mark.parametrize(("version", "after"), [(1, False), (2, True)], ids=["kv1-before", "kv2-after"])
async def test_a_finish_killed_at_every_single_step_deletes_what_it_began(
    world: World, old_bao: OldBao, tmp_path: Path, version: int, after: bool
) -> None:
    """Records and keys, and nothing of the new layout."""
    place, journal = place_of(old_bao, version), tmp_path / "j"
    wanted = await prepared(world, place)
    source = await place.source("finish", fresh=True)

    async def run(step: Work) -> Any:
        return await migrated(source, world.server, journal, step, old_stopped=True)

    for step in (copy, cut_over):
        await run(step)
    assert await killed_everywhere(run, lambda migration: finish(migration, destroy=True), after=after) > 2
    for tenant, integration, _ in wanted.values():
        assert await place.read(tenant, integration) == {}
        assert not (await old_bao.call("GET", f"transit/keys/{integration}-{tenant}")).get("data")
    assert (await world.refresh()).state == pb.Credential.STATE_ACTIVE


async def test_what_the_old_system_writes_while_it_is_finished_is_not_deleted(
    world: World, old_bao: OldBao, tmp_path: Path
) -> None:
    """It may be the only good refresh token."""
    place, journal = place_of(old_bao), tmp_path / "j"
    wanted = await prepared(world, place)
    source = await place.source("finish", fresh=True)
    for step in (copy, cut_over):
        await migrated(source, world.server, journal, step, old_stopped=True)
    tenant, integration, _ = wanted["oauth"]

    class Late:
        """Compares, and then the old system writes once more."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def send(self, *arguments: Any, **named: Any) -> Any:
            found = await self.inner.send(*arguments, **named)
            await place.write(tenant, integration, access_token="newer", refresh_token="newest")
            return found

    async def late(migration: Migration) -> None:
        migration.new = cast(Any, Late(migration.new))
        await finish(migration, destroy=True)

    told = await migrated(source, world.server, journal, late)
    assert told[f"{tenant}/{integration}"].result == "left alone"
    assert (await place.read(tenant, integration))["refresh_token"] == "newest"
    assert results(await migrated(source, world.server, journal, check))[f"{tenant}/{integration}"] == "old is newer"
