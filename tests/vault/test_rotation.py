"""Rotating keys: all the while everything can be read, and in the end nothing of the old version is left."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc import rotating
from connectors_grpc.audit import LogAudit
from connectors_grpc.changes import ChangeFeed
from connectors_grpc.credentials.flows import Flow, Flows, Stage, digest, new_handle
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost, binding
from connectors_grpc.credentials.refresh_lease import LONG_DEAD, RefreshLeases, Watched
from connectors_grpc.domain.definition import Api, Integration, OAuthClient, Source
from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId, TenantUid
from connectors_grpc.domain.operation import Operation, Rotation
from connectors_grpc.domain.records import (
    ApiKey,
    Credential,
    CredentialKind,
    CredentialState,
    Material,
    Role,
    Scope,
    Tenant,
    TenantState,
)
from connectors_grpc.errors import Conflict, ConnectorsError, Reason, Undecipherable
from connectors_grpc.grammar import sealed_version
from connectors_grpc.integrations import Integrations
from connectors_grpc.memory import MemoryCiphers, MemoryDocuments
from connectors_grpc.operations import Operations
from connectors_grpc.ports import Document, DocumentPage, Json, KeyVersions, Sealed
from connectors_grpc.rotating import Rotating
from connectors_grpc.sealed_clients import PLATFORM_KEY
from connectors_grpc.secret import Secret
from connectors_grpc.shelves import sealed_texts
from connectors_grpc.tenants import Tenants
from tests.clock import ManualClock

ADMIN = ApiKey(KeyId("admin"), "", frozenset((Role.ADMIN,)), Scope(None), "", ManualClock().now())
ACME = TenantId("acme")
WIKI = IntegrationId("wiki")
Hook = Callable[[str, str], Awaitable[None]]


@dataclass
class Calls:
    """What is called of the stores, in order: a test may act before any call, and sees how many ran at once."""

    hook: Hook | None = None
    made: list[tuple[str, str]] = field(default_factory=list)
    now: int = 0
    most: int = 0

    async def around(self, what: str, where: str, work: Awaitable[Any]) -> Any:
        """Make the call."""
        self.made.append((what, where))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.hook is not None:
                await self.hook(what, where)
            await asyncio.sleep(0)
            return await work
        finally:
            self.now -= 1
            if asyncio.iscoroutine(work):
                work.close()


class Docs(MemoryDocuments):
    """Documents whose calls are seen."""

    def __init__(self, calls: Calls, shared: MemoryDocuments) -> None:
        super().__init__()
        self._calls = calls
        self._stored = shared._stored

    async def read(self, path: str) -> Document | None:
        """See ports.Documents."""
        found: Document | None = await self._calls.around("read", path, super().read(path))
        return found

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        """See ports.Documents."""
        version: int = await self._calls.around("write", path, super().write(path, data, cas=cas))
        return version

    async def list(self, folder: str, *, after: str = "", limit: int = 1000) -> DocumentPage:
        """See ports.Documents."""
        page: DocumentPage = await self._calls.around("list", folder, super().list(folder, after=after, limit=limit))
        return page


class Keys(MemoryCiphers):
    """Ciphers whose calls are seen."""

    def __init__(self, calls: Calls, shared: MemoryCiphers) -> None:
        super().__init__()
        self._calls = calls
        self._rings = shared._rings

    async def rotate(self, name: str) -> None:
        """See ports.Ciphers."""
        await self._calls.around("rotate", name, super().rotate(name))

    async def rewrap(self, name: str, items: Sequence[Sealed]) -> Sequence[str | None]:
        """See ports.Ciphers."""
        done: Sequence[str | None] = await self._calls.around("rewrap", name, super().rewrap(name, items))
        return done

    async def retire(self, name: str, version: int) -> None:
        """See ports.Ciphers."""
        await self._calls.around("retire", name, super().retire(name, version))

    async def key_versions(self, name: str) -> KeyVersions:
        """See ports.Ciphers."""
        found: KeyVersions = await self._calls.around("key_versions", name, super().key_versions(name))
        return found


class World:
    """One store and any number of replicas over it; what is asked outside of them is not seen as a call."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.secrets, self.records = MemoryDocuments(), MemoryDocuments()
        self.cipher, self.platform = MemoryCiphers(), MemoryCiphers()
        self.audit, self.changes = LogAudit(), ChangeFeed()
        self.keeper = Keeper(self.secrets, self.cipher, self.clock)
        self.tenants = Tenants(self.records, self.cipher, self.changes, self.audit, self.clock)
        self.integrations = Integrations(self.records, self.platform, {}, self.changes, self.audit, self.clock)
        self.flows = Flows(self.records, self.clock)

    async def tenant(self, name: TenantId = ACME) -> Tenant:
        """A tenant with its key."""
        return await self.tenants.create(ADMIN, name, display_name="", labels={}, request_id="", validate_only=False)

    async def store(self, tenant: Tenant, name: str, generation: int = 1, ciphertext: str | None = None) -> Held:
        """A credential, over whatever is there; its token says whose it is, and which."""
        credential_id = CredentialId(name)
        now = self.clock.now()
        record = Credential(
            tenant.id, credential_id, WIKI, CredentialKind.API_KEY, CredentialState.ACTIVE, generation, now, now,
            version=(await self.keeper.place(tenant, credential_id))[1],
        )  # fmt: skip
        sealed = await self.sealed(tenant, name, generation) if ciphertext is None else ciphertext
        return await self.keeper.write(tenant, Held(record, sealed))

    async def sealed(self, tenant: Tenant, name: str, generation: int = 1) -> str:
        """Its material, under the key as it is now."""
        material = Material(WIKI, {"api_key": Secret(f"{name}/{generation}")}, ("api.example",))
        return await self.keeper.seal(tenant, CredentialId(name), material)

    async def token(self, tenant: Tenant, name: str) -> str:
        """What opens. Raises: MaterialLost."""
        held = await self.keeper.read(tenant, CredentialId(name))
        assert held is not None
        return (await self.keeper.open(tenant, held)).fields["api_key"].reveal()

    async def version_of(self, name: str) -> int:
        """The key's version that sealed what is stored."""
        document = await self.secrets.read(f"acme/{name}")
        assert document is not None
        return sealed_version(str(document.data["ciphertext"]))

    def replica(self, calls: Calls | None = None, settle: float = 0) -> tuple[Rotating, Operations]:
        """One more replica."""
        calls = calls or Calls()
        operations = Operations(Docs(Calls(), self.records), self.clock)
        rotating = Rotating(
            self.tenants, Docs(calls, self.secrets), Docs(calls, self.records), Keys(calls, self.cipher),
            Keys(calls, self.platform), operations, self.audit, self.clock, settle=settle,
        )  # fmt: skip
        return rotating, operations

    async def rotated(self, calls: Calls | None = None) -> Operation:
        """Rotate acme's key to the end."""
        rotating, operations = self.replica(calls)
        return await finished(operations, await rotating.tenant(ADMIN, ACME))


async def finished(operations: Operations, operation: Operation) -> Operation:
    """Wait for its end."""
    async with asyncio.timeout(60):
        found = await operations.wait(operation, 20)
    assert found.done
    return found


def receipt(operation: Operation) -> Rotation:
    """What it did."""
    assert isinstance(operation.work, Rotation)
    return operation.work


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world; what is waited for is asked for often."""
    monkeypatch.setattr(rotating, "POLL", 0.002)
    return World()


async def test_everything_is_rewrapped_and_the_old_version_ends(world: World) -> None:
    """Pages of it, by at most eight calls at a time; what lies elsewhere is untouched."""
    tenant, other = await world.tenant(), await world.tenant(TenantId("other"))
    names = [f"c-{number:03d}" for number in range(230)]
    for name in names:
        await world.store(tenant, name)
    await world.store(other, "c-000")
    old = [
        str((document := await world.secrets.read(f"acme/{name}")) and document.data["ciphertext"]) for name in names
    ]
    calls = Calls()
    operation = await world.rotated(calls)
    done = receipt(operation)
    assert (operation.error, operation.items_done, operation.items_total) == ("", 230, 230)
    assert (done.from_version, done.to_version, done.rewrapped, done.unreadable_count) == (1, 2, 230, 0)
    assert [await world.token(tenant, name) for name in names] == [f"{name}/1" for name in names]
    for name, ciphertext in zip(names, old, strict=True):
        with pytest.raises(Undecipherable):
            await world.cipher.decrypt(ACME, binding(tenant, CredentialId(name)), ciphertext)
    assert await world.cipher.key_versions(ACME) == KeyVersions(2, 2)
    assert await world.cipher.key_versions(other.id) == KeyVersions(1, 1)
    assert calls.most <= 8
    assert [what for what, _ in calls.made if what in ("rotate", "rewrap", "retire")] == [
        "rotate", "rewrap", "rewrap", "rewrap", "retire",
    ]  # fmt: skip


async def test_it_can_be_rotated_again_and_again(world: World) -> None:
    """Each time one version is left; a tenant without credentials too."""
    tenant = await world.tenant()
    for number in range(1, 5):
        assert receipt(await world.rotated()).to_version == number + 1
        await world.store(tenant, "wiki", number)
        assert await world.token(tenant, "wiki") == f"wiki/{number}"
    assert await world.cipher.key_versions(ACME) == KeyVersions(5, 5)


async def test_a_suspended_tenants_key_is_rotated_and_a_deleted_ones_is_not(world: World) -> None:
    """Suspension freezes use, not care; who is being deleted is gone."""
    tenant = await world.tenant()
    await world.store(tenant, "wiki")
    await world.tenants.set_state(ADMIN, ACME, TenantState.SUSPENDED, "SuspendTenant")
    assert (await world.rotated()).error == ""
    assert await world.token(tenant, "wiki") == "wiki/1"
    await world.tenants.set_state(ADMIN, ACME, TenantState.DELETING, "DeleteTenant")
    with pytest.raises(ConnectorsError) as refused:
        await world.replica()[0].tenant(ADMIN, ACME)
    assert refused.value.reason is Reason.TENANT_NOT_FOUND


async def test_a_tenant_that_is_deleted_meanwhile_ends_the_rotation(world: World) -> None:
    """With its reason, and no key is made anew."""
    tenant = await world.tenant()
    await world.store(tenant, "wiki")

    async def shred(what: str, _where: str) -> None:
        if what == "rewrap":
            await world.tenants.shred(tenant)

    assert (await world.rotated(Calls(shred))).error == "TENANT_NOT_FOUND"


async def test_killed_at_any_step_it_is_finished_by_another(world: World) -> None:
    """At each call of the Vault in turn; all can be read at once after the kill, and the key gains one version only."""
    for step in range(1000):
        world = World()
        tenant = await world.tenant()
        for name in ("a", "b", "c"):
            await world.store(tenant, name)
        calls, reached = Calls(), asyncio.Event()

        async def stop(_what: str, _where: str, step: int = step, calls: Calls = calls, at: Any = reached) -> None:
            if len(calls.made) > step:
                at.set()
                await asyncio.Event().wait()

        calls.hook = stop
        rotating, operations = world.replica(calls)
        begun = await operations.begin(ADMIN, ACME, tenant.uid, Rotation("rotate-tenant-key"))
        kill = asyncio.ensure_future(reached.wait())
        done = asyncio.ensure_future(operations.wait(begun, 10))
        await asyncio.wait({kill, done}, return_when=asyncio.FIRST_COMPLETED)
        if not reached.is_set():
            kill.cancel()
            assert step > 15
            return
        await operations.__aexit__()
        assert [await world.token(tenant, name) for name in "abc"] == ["a/1", "b/1", "c/1"]
        rotating, operations = world.replica()
        again = await finished(operations, await rotating.tenant(ADMIN, ACME))
        assert (again.id, again.error) == (begun.id, "")
        assert [await world.token(tenant, name) for name in "abc"] == ["a/1", "b/1", "c/1"]
        assert await world.cipher.key_versions(ACME) == KeyVersions(2, 2)


async def test_whoever_writes_meanwhile_wins_and_is_kept(world: World) -> None:
    """A refresh lands between reading and rewrapping: its material stays, under the new version."""
    tenant = await world.tenant()
    await world.store(tenant, "wiki")

    async def refresh(what: str, where: str) -> None:
        if (what, where) == ("write", "acme/wiki"):
            await world.store(tenant, "wiki", 2)

    await world.rotated(Calls(refresh))
    assert await world.token(tenant, "wiki") == "wiki/2"
    assert await world.version_of("wiki") == 2


async def test_what_was_sealed_before_and_is_written_late_is_found(world: World) -> None:
    """A store that sealed before the rotation lands after the first going-over, as a new credential: it is rewrapped too."""
    tenant = await world.tenant()
    early = await world.sealed(tenant, "late")
    landed = False

    async def land(what: str, where: str) -> None:
        nonlocal landed
        if (what, where) == ("list", "refresh") and not landed:
            landed = True
            await world.store(tenant, "late", ciphertext=early)

    assert receipt(await world.rotated(Calls(land))).rewrapped == 1
    assert await world.token(tenant, "late") == "late/1"
    assert await world.version_of("late") == 2


async def test_who_read_before_the_end_of_the_old_version_opens_after_it(world: World) -> None:
    """What was read is looked up again, once; what is really damaged stays lost."""
    tenant = await world.tenant()
    held = await world.store(tenant, "wiki")
    await world.rotated()
    assert (await world.keeper.open(tenant, held)).fields["api_key"].reveal() == "wiki/1"
    damaged = await world.store(tenant, "bad", ciphertext="vault:v2:" + "A" * 64)
    with pytest.raises(MaterialLost):
        await world.keeper.open(tenant, damaged)


async def test_what_is_damaged_is_reported_and_holds_nothing_up(world: World) -> None:
    """It did not open before either. Bare records of revoked credentials, and an earlier tenant's leftovers, are no damage."""
    tenant = await world.tenant()
    await world.store(tenant, "good")
    moved = await world.sealed(tenant, "good")
    for name, ciphertext in (("bad", "vault:v1:" + "A" * 64), ("moved", moved), ("none", "nonsense"), ("revoked", "")):
        await world.store(tenant, name, ciphertext=ciphertext)
    await world.store(replace(tenant, uid=tenant.uid[::-1]), "foreign")  # type: ignore[arg-type]
    await world.secrets.write("acme/odd", {"tenant_uid": tenant.uid, "ciphertext": 7}, cas=0)
    done = receipt(await world.rotated())
    assert (done.unreadable, done.unreadable_count) == (("bad", "moved", "none", "odd"), 4)
    assert await world.token(tenant, "good") == "good/1"
    assert await world.cipher.key_versions(ACME) == KeyVersions(2, 2)


async def test_what_opens_but_cannot_be_rewrapped_keeps_the_old_version(world: World) -> None:
    """Nothing that can be read is ever made unreadable: the rotation ends with a reason instead."""
    tenant = await world.tenant()
    await world.store(tenant, "wiki")

    class Stubborn(Keys):
        async def rewrap(self, name: str, items: Sequence[Sealed]) -> Sequence[str | None]:
            """It can't be had."""
            await super().rewrap(name, items)
            return [None] * len(items)

    operations = Operations(world.records, world.clock)
    made = Rotating(
        world.tenants, world.secrets, world.records, Stubborn(Calls(), world.cipher), world.platform, operations,
        world.audit, world.clock, settle=0,
    )  # fmt: skip
    operation = await finished(operations, await made.tenant(ADMIN, ACME))
    assert operation.error == "CONFLICT"
    assert await world.token(tenant, "wiki") == "wiki/1"
    assert await world.cipher.key_versions(ACME) == KeyVersions(2, 1)


async def test_a_refresh_under_way_holds_the_old_version_until_it_is_over(world: World) -> None:
    """Its data key is the old version's, and may have sealed what lies on a disk. A refresh that began later holds nothing."""
    tenant = await world.tenant()
    await world.store(tenant, "wiki")
    leases = RefreshLeases(world.records, world.clock, "replica-a")
    grip = await leases.acquire(tenant, CredentialId("wiki"), 1, Watched())
    later = CredentialId("later")
    assert grip is not None
    key = await world.keeper.data_key(tenant, CredentialId("wiki"))
    looked = asyncio.Event()

    async def look(what: str, where: str) -> None:
        if (what, where) == ("read", "refresh/acme.wiki"):
            looked.set()

    calls = Calls(look)
    _, operations = world.replica(calls)
    operation = await operations.begin(ADMIN, ACME, tenant.uid, Rotation("rotate-tenant-key"))
    for _ in range(5):
        looked.clear()
        await looked.wait()
    assert (await operations.get(ADMIN, operation.id)).step == "waiting for what is under way"
    assert await world.keeper.unwrap(tenant, CredentialId("wiki"), key.wrapped) == key.plaintext
    assert await leases.acquire(tenant, later, 1, Watched()) is not None
    await leases.release(grip)
    assert (await finished(operations, operation)).error == ""
    assert ("retire", "acme") in calls.made


async def test_a_lease_of_one_long_dead_holds_nothing(world: World) -> None:
    """Nobody comes back for it."""
    tenant = await world.tenant()
    leases = RefreshLeases(world.records, world.clock, "replica-a")
    await leases.acquire(tenant, CredentialId("wiki"), 1, Watched())
    world.clock.advance(LONG_DEAD + timedelta(minutes=1))
    assert (await world.rotated()).error == ""


async def with_clients(world: World) -> Tenant:
    """An integration with the platform's client, and acme's own beside it."""
    await world.platform.create_key(PLATFORM_KEY)
    tenant = await world.tenant()
    wanted = Integration(
        id=WIKI, display_name="", source=Source.CREATED, oauth=None, api=Api(base_url="https://api.example"),
        client=OAuthClient("id", Secret("platforms")),
    )  # fmt: skip
    await world.integrations.create(ADMIN, wanted, request_id="", validate_only=False)
    await world.integrations.tenant_clients.set(ADMIN, tenant, WIKI, OAuthClient("own", Secret("tenants")))
    return tenant


async def test_the_platforms_key_is_rotated_under_all_clients(world: World) -> None:
    """The platform's and tenants' own still open, by the new version alone."""
    tenant = await with_clients(world)
    other = await world.tenant(TenantId("other"))
    rotating, operations = world.replica()
    operation = await finished(operations, await rotating.platform(ADMIN))
    assert (operation.error, operation.tenant, receipt(operation).rewrapped) == ("", "", 2)
    world.integrations.forget(None)
    for whose, secret in ((tenant, "tenants"), (other, "platforms")):
        client = await world.integrations.client_for(await world.integrations.get(WIKI), whose)
        assert client.secret is not None
        assert client.secret.reveal() == secret
    assert await world.platform.key_versions(PLATFORM_KEY) == KeyVersions(2, 2)


async def test_the_platforms_key_waits_for_people_who_are_connecting(world: World) -> None:
    """A begun flow is used once and never written over; when it has ended or expired, the old version does too."""
    tenant = await with_clients(world)
    handle = new_handle()
    verifier = await world.platform.encrypt(PLATFORM_KEY, digest(handle).encode(), b"verifier")
    flow = Flow(
        Stage.BEGUN, ACME, tenant.uid, WIKI, CredentialId("wiki"), (), KeyId("k"),
        world.clock.now() + timedelta(minutes=10), verifier=verifier,
    )  # fmt: skip
    await world.flows.put(handle, flow)
    waited = asyncio.Event()

    async def wait(what: str, where: str) -> None:
        if (what, where) == ("list", "flows"):
            waited.set()

    _, operations = world.replica(Calls(wait))
    begun = await operations.begin(ADMIN, TenantId(""), TenantUid(""), Rotation("rotate-platform-key"))
    for _ in range(5):
        waited.clear()
        await waited.wait()
    assert await world.platform.decrypt(PLATFORM_KEY, digest(handle).encode(), verifier) == b"verifier"
    assert (await world.flows.take(handle, Stage.BEGUN)).verifier == verifier
    assert (await finished(operations, begun)).error == ""


async def test_a_second_call_while_one_runs_is_that_same_rotation(world: World) -> None:
    """At another replica as well; the key gains one version."""
    tenant = await world.tenant()
    leases = RefreshLeases(world.records, world.clock, "replica-a")
    grip = await leases.acquire(tenant, CredentialId("wiki"), 1, Watched())
    assert grip is not None
    (one, operations), (two, _) = world.replica(), world.replica()
    first, second = await asyncio.gather(one.tenant(ADMIN, ACME), two.tenant(ADMIN, ACME))
    assert first.id == second.id
    await leases.release(grip)
    await finished(operations, first)
    assert await world.cipher.key_versions(ACME) == KeyVersions(2, 2)


async def test_reads_and_stores_go_on_through_several_rotations(world: World) -> None:
    """Every read opens what was last stored, whatever the rotation is at; half of the writers seal long before they write."""
    tenant = await world.tenant()
    names = [f"c-{number}" for number in range(12)]
    written = dict.fromkeys(names, 1)
    for name in names:
        await world.store(tenant, name)
    stop, reads = asyncio.Event(), 0

    async def read(name: str) -> None:
        nonlocal reads
        while not stop.is_set():
            held = await world.keeper.read(tenant, CredentialId(name))
            least = written[name]
            assert held is not None
            await asyncio.sleep(0)
            token = (await world.keeper.open(tenant, held)).fields["api_key"].reveal()
            assert int(token.partition("/")[2]) >= least - 1
            reads += 1
            await asyncio.sleep(0)

    async def write(name: str) -> None:
        while not stop.is_set():
            sealed = await world.sealed(tenant, name, written[name] + 1)
            for _ in range(3):
                await asyncio.sleep(0)
            try:
                await world.store(tenant, name, written[name] + 1, ciphertext=sealed)
            except Conflict:
                continue
            written[name] += 1
            await asyncio.sleep(0)

    made, operations = world.replica(settle=0.02)
    async with asyncio.timeout(60), asyncio.TaskGroup() as traffic:
        for name in names:
            traffic.create_task(read(name))
        for name in names[:6]:
            traffic.create_task(write(name))
        for _ in range(4):
            assert (await finished(operations, await made.tenant(ADMIN, ACME))).error == ""
        while reads <= 100:  # noqa: ASYNC110 - theirs to count
            await asyncio.sleep(0)
        stop.set()
    assert await world.cipher.key_versions(ACME) == KeyVersions(5, 5)
    assert [await world.version_of(name) for name in names] == [5] * 12


async def test_every_secret_of_a_client_is_rewrapped_however_many_there_are(world: World) -> None:
    """Wherever in the client they stand; one that is damaged is reported, and keeps no other from it."""
    tenant = await with_clients(world)
    path, context = "clients/acme.wiki", f"{tenant.uid}/wiki".encode()
    document = await world.records.read(path)
    assert document is not None
    more = [await world.platform.encrypt(PLATFORM_KEY, context, text) for text in (b"next", b"last")]
    client = {**document.data["client"], "others": [{"ciphertext": text} for text in (*more, "vault:v1:AAAA")]}  # type: ignore[dict-item]
    await world.records.write(path, {**document.data, "client": client}, cas=document.version)
    made, operations = world.replica()
    done = receipt(await finished(operations, await made.platform(ADMIN)))
    assert (done.rewrapped, done.unreadable) == (4, (path,))
    document = await world.records.read(path)
    assert document is not None
    found = list(sealed_texts(document.data))
    assert [sealed_version(text) for text in found] == [2, 2, 2, 1]
    opened = [await world.platform.decrypt(PLATFORM_KEY, context, text) for text in found[:3]]
    assert opened == [b"tenants", b"next", b"last"]


def test_every_place_that_seals_is_known_to_the_shelves() -> None:
    """What is sealed where no rotation looks could not be read after one: whoever seals anew says so in shelves.py."""
    root = Path(rotating.__file__).parent
    sealing = re.compile(r"\.(encrypt|data_key)\(|PLATFORM_KEY")
    parts = ("vault", "memory.py", "embedded", "simulator", "gen")
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] not in parts and sealing.search(path.read_text())
    }
    assert found <= {
        "checking/stage.py",  # in memory only
        "credentials/connecting.py",  # the PKCE verifiers of flows
        "credentials/devices.py",  # device codes, in flows too
        "credentials/keeping.py",  # credentials, and the data keys of refreshes and consents under way
        "credentials/granting.py",  # asks for those of consents
        "credentials/renewing.py",  # asks for those of refreshes
        "credentials/sealing.py",  # uses them, without the Vault
        "sealed_clients.py",  # OAuth clients
        "rotating.py",
        "shelves.py",
    }
