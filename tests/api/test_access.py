"""API keys: made, proven, listed and revoked, within the caller's scope. The use case over the memory, by its own clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from connectors_grpc.access import Access, NewKey
from connectors_grpc.audit import LogAudit
from connectors_grpc.changes import ChangeFeed
from connectors_grpc.domain.ids import CredentialId, KeyId, TenantId, TenantUid
from connectors_grpc.domain.records import ApiKey, Role, Scope
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.memory import MemoryDocuments
from connectors_grpc.ports import Change, Json
from connectors_grpc.secret import Secret
from tests.clock import ManualClock

ACME, ZOO = TenantId("acme"), TenantId("zoo")
ACMES, ZOOS = {ACME: TenantUid("u-acme")}, {ZOO: TenantUid("u-zoo")}


class Desk:
    """Where keys are handed out."""

    def __init__(self) -> None:
        self.documents = MemoryDocuments()
        self.clock = ManualClock()
        self.changes = ChangeFeed()
        self.access = Access(self.documents, self.changes, LogAudit(), self.clock)

    def caller(self, role: Role, scope: Scope | None = None) -> ApiKey:
        """Somebody with a key of that role, for everything unless a scope is given."""
        return ApiKey(KeyId("caller"), "", frozenset((role,)), scope or Scope(None), "", self.clock.now())

    async def key(self, caller: ApiKey, name: str | None = None, **fields: object) -> tuple[ApiKey, Secret]:
        """A new key, role `app` for acme unless something else is wanted."""
        new = NewKey(None if name is None else KeyId(name), "", frozenset((Role.APP,)), ACMES, None, None)
        return await self.access.create(caller, replace(new, **fields))  # type: ignore[arg-type]

    async def listed(self, caller: ApiKey, limit: int = 50) -> list[str]:
        """Every id that the caller sees, page by page."""
        found: list[str] = []
        after = ""
        while True:
            page = await self.access.list(caller, after=after, limit=limit)
            assert len(page.keys) <= limit
            found += [key.id for key in page.keys]
            after = page.next
            if not after:
                return found


@pytest.fixture
def desk() -> Desk:
    """An empty one."""
    return Desk()


async def refusal(attempt: object) -> Reason:
    """Why it was refused."""
    with pytest.raises(ConnectorsError) as caught:
        await attempt  # type: ignore[misc]
    return caught.value.reason


async def test_a_keys_text_proves_it_and_is_kept_nowhere(desk: Desk) -> None:
    """Only its hash is stored; what comes back is the record."""
    made, text = await desk.key(desk.caller(Role.ADMIN), "mine")
    assert await desk.access.authenticate(text) == made
    assert await desk.access.prove(made.id, hashlib.sha256(text.reveal().encode()).digest()) == made
    everything = json.dumps(list(desk.documents._stored.items()))
    assert text.reveal() not in everything
    assert text.reveal().removeprefix(f"cnk_{made.id}_") not in everything
    assert text.reveal() not in repr((made, text))


async def test_what_is_no_live_key_is_refused_in_one_way(desk: Desk) -> None:
    """Malformed, unknown, of another key, one letter off, expired."""
    admin = desk.caller(Role.ADMIN)
    _, text = await desk.key(admin, "mine")
    _, other = await desk.key(admin, "other")
    soon = desk.clock.now() + timedelta(seconds=5)
    _, ends = await desk.key(admin, "ends", expire_time=soon)
    good = text.reveal()
    wrong = [
        *("", "cnk_", "nonsense", good[:-1], good + "A", f" {good}", good.upper(), good.replace("mine", "gone")),
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        f"cnk_mine_{other.reveal().rsplit('_', 1)[1]}",
    ]
    for one in wrong:
        assert await refusal(desk.access.authenticate(Secret(one))) is Reason.API_KEY_INVALID, one
    await desk.access.authenticate(ends)
    desk.clock.advance(timedelta(seconds=5))
    assert await refusal(desk.access.authenticate(ends)) is Reason.API_KEY_INVALID


async def test_a_revoked_key_is_refused_at_once_and_everybody_is_told(desk: Desk) -> None:
    """Though it was proven a moment ago; the record stays, and revoking again changes nothing."""
    admin = desk.caller(Role.ADMIN)
    made, text = await desk.key(admin, "mine")
    await desk.access.authenticate(text)
    told = desk.changes.subscribe()
    revoked = await desk.access.revoke(admin, made.id)
    assert revoked.revoke_time == desk.clock.now()
    assert await refusal(desk.access.authenticate(text)) is Reason.API_KEY_INVALID
    assert await anext(told) == Change(key=made.id)
    desk.clock.advance(timedelta(seconds=9))
    assert await desk.access.revoke(admin, made.id) == revoked
    assert await desk.listed(admin) == ["mine"]


async def test_another_replicas_revocation_is_seen_when_it_is_told_or_after_a_second(desk: Desk) -> None:
    """Two of them over one store: the cache forgets by the change, or by its age."""
    admin = desk.caller(Role.ADMIN)
    there = Access(desk.documents, ChangeFeed(), LogAudit(), desk.clock)
    forgets: tuple[Callable[[], None], ...] = (
        lambda: there.forget(Change(key=KeyId("k"))),
        lambda: there.forget(None),
        lambda: desk.clock.advance(1.0),
    )
    for forget in forgets:
        await desk.documents.purge("keys/k")
        there.forget(None)
        _, text = await desk.key(admin, "k")
        await there.authenticate(text)
        await desk.access.revoke(admin, KeyId("k"))
        await there.authenticate(text)
        there.forget(Change(key=KeyId("another")))
        await there.authenticate(text)
        forget()
        assert await refusal(there.authenticate(text)) is Reason.API_KEY_INVALID


@pytest.mark.parametrize("role", list(Role))
async def test_only_admins_make_every_key_and_operators_those_of_apps(desk: Desk, role: Role) -> None:
    """Roles that can do neither make none."""
    for caller_role in Role:
        attempt = desk.key(desk.caller(caller_role), roles=frozenset((role,)))
        if caller_role is Role.ADMIN or (caller_role is Role.OPERATOR and role is Role.APP):
            made, _ = await attempt
            assert made.roles == {role}
        else:
            assert await refusal(attempt) is Reason.PERMISSION_DENIED


def scopes() -> Iterable[tuple[Scope, dict[str, Any], bool]]:
    """A caller's scope, what is wanted, and whether it lies within."""
    mine = frozenset((CredentialId("notion"),))
    yield Scope(None), {"tenants": None}, True
    yield Scope(ACMES), {"tenants": None}, False
    yield Scope(ACMES), {"tenants": ACMES}, True
    yield Scope(ACMES), {"tenants": ZOOS}, False
    yield Scope(ACMES), {"tenants": ACMES | ZOOS}, False
    yield Scope(ACMES), {"tenants": {ACME: TenantUid("an earlier one")}}, False
    yield Scope(ACMES, mine), {"tenants": ACMES}, False
    yield Scope(ACMES, mine), {"tenants": ACMES, "credentials": frozenset(("notion",))}, True
    yield Scope(ACMES, mine), {"tenants": ACMES, "credentials": frozenset(("notion", "github"))}, False


@pytest.mark.parametrize(("scope", "wanted", "fine"), list(scopes()))
async def test_nobody_hands_out_more_than_they_have(
    desk: Desk, scope: Scope, wanted: dict[str, Any], fine: bool
) -> None:
    """Tenants, by their uid too (attack 38), and credentials."""
    for role in (Role.ADMIN, Role.OPERATOR):
        attempt = desk.key(desk.caller(role, scope), **wanted)
        if fine:
            await attempt
        else:
            assert await refusal(attempt) is Reason.PERMISSION_DENIED


async def test_a_key_without_roles_is_refused(desk: Desk) -> None:
    """It could never do anything: a slip, which is named."""
    assert await refusal(desk.key(desk.caller(Role.ADMIN), roles=frozenset())) is Reason.INVALID_FIELD


async def test_a_taken_id_is_told_only_to_who_may_see_that_key(desk: Desk) -> None:
    """To others it is the one denial (attack 29): the id of another tenant's key is not theirs to learn."""
    admin = desk.caller(Role.ADMIN)
    _, first = await desk.key(admin, "taken", tenants=ZOOS)
    assert await refusal(desk.key(admin, "taken")) is Reason.ALREADY_EXISTS
    operator = desk.caller(Role.OPERATOR, Scope(ACMES))
    assert await refusal(desk.key(operator, "taken")) is Reason.PERMISSION_DENIED
    await desk.access.authenticate(first)


async def test_a_page_walk_gives_each_key_of_the_scope_once(desk: Desk) -> None:
    """Whatever the page's size, and whoever's keys lie between them."""
    admin = desk.caller(Role.ADMIN)
    for number in range(9):
        await desk.key(admin, f"k{number}", tenants=ACMES if number % 3 else ZOOS)
    operator = desk.caller(Role.OPERATOR, Scope(ACMES))
    for limit in (1, 2, 5, 6, 50):
        assert await desk.listed(admin, limit) == [f"k{number}" for number in range(9)]
        assert await desk.listed(operator, limit) == [f"k{number}" for number in range(9) if number % 3]


async def test_revoking_is_within_the_scope_and_the_denial_says_nothing(desk: Desk) -> None:
    """Who has no platform scope hears the same of a foreign key and of none; an operator ends only apps' keys."""
    admin = desk.caller(Role.ADMIN)
    await desk.key(admin, "theirs", tenants=ZOOS)
    await desk.key(admin, "reader", roles=frozenset((Role.TOKEN_READER,)))
    await desk.key(admin, "app")
    operator = desk.caller(Role.OPERATOR, Scope(ACMES))
    for name in ("theirs", "absent", "reader"):
        assert await refusal(desk.access.revoke(operator, KeyId(name))) is Reason.PERMISSION_DENIED
    assert (await desk.access.revoke(operator, KeyId("app"))).revoke_time is not None
    assert await refusal(desk.access.revoke(admin, KeyId("absent"))) is Reason.API_KEY_NOT_FOUND


async def test_a_revocation_that_loses_its_race_is_a_conflict() -> None:
    """It says so, and the key goes on until the next attempt."""

    class Raced(MemoryDocuments):
        async def write(self, path: str, data: Json, *, cas: int | None) -> int:
            if cas:
                await super().write(path, data, cas=None)
            return await super().write(path, data, cas=cas)

    desk = Desk()
    desk.access = Access(Raced(), desk.changes, LogAudit(), desk.clock)
    admin = desk.caller(Role.ADMIN)
    await desk.key(admin, "mine")
    assert await refusal(desk.access.revoke(admin, KeyId("mine"))) is Reason.CONFLICT


async def test_the_first_keys_are_made_once(desk: Desk) -> None:
    """A second start finds them, and leaves them as they are."""
    text = desk.access.new_text(KeyId("admin"))
    assert await desk.access.bootstrap(KeyId("admin"), Role.ADMIN, text)
    other = desk.access.new_text(KeyId("admin"))
    assert not await desk.access.bootstrap(KeyId("admin"), Role.ADMIN, other)
    made = await desk.access.authenticate(text)
    assert made.roles == {Role.ADMIN}
    assert made.scope == Scope(None)
    assert await refusal(desk.access.authenticate(other)) is Reason.API_KEY_INVALID


async def test_while_the_vault_is_away_no_key_is_good(desk: Desk) -> None:
    """Fail closed, with the reason; what was proven within the last second still is."""
    _, text = await desk.key(desk.caller(Role.ADMIN), "mine")
    await desk.access.authenticate(text)
    desk.documents.outage.down = True
    await desk.access.authenticate(text)
    desk.clock.advance(timedelta(seconds=1))
    assert await refusal(desk.access.authenticate(text)) is Reason.VAULT_UNAVAILABLE
