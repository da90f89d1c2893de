"""Rotates a key while everything under it stays in use: a tenant's, or the platform's own.

1. Add a version: it seals from now on, and the old ones still open. 2. Rewrap all that an older one sealed, each by
compare-and-set over the version that was read: whoever else writes wins, and is looked at again. 3. Wait until nothing is under
way that was sealed before: a writer may have sealed just before the rotation and write just after our look. 4. Go over all of
it again; back to 3 if anything old was found. 5. End the old versions, for good.

What does not open even now is damaged: it is reported, and holds nothing up, for ending the old version takes nothing from it.
What opens and yet can't be rewrapped ends the rotation with the old versions kept. Every step may be
repeated, by another replica too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from connectors_grpc.domain.ids import TenantId, TenantUid
from connectors_grpc.domain.operation import Operation, Rotation
from connectors_grpc.domain.records import ApiKey, TenantState
from connectors_grpc.errors import Conflict, ConnectorsError, KeyMissing, Reason, Undecipherable, VaultUnavailable
from connectors_grpc.grammar import MAX_BATCH, MAX_BATCH_SIZE, sealed_version
from connectors_grpc.operation_run import Run
from connectors_grpc.operations import Operations
from connectors_grpc.ports import Audit, Ciphers, Clock, Documents, Sealed
from connectors_grpc.sealed_clients import PLATFORM_KEY
from connectors_grpc.several import several
from connectors_grpc.shelves import ClientShelf, CredentialShelf, Shelf, Slot
from connectors_grpc.tenants import Tenants

SETTLE = 15.0
"""Seconds from a seal to the end of the write that stores it, at the most: two calls' deadlines at the Vault, and a half."""
POLL = 1.0
STEP = 60.0
"""Seconds for one page."""
MOST_PASSES = 20
MOST_NAMED = 100
AT_ONCE = 1.0


@dataclass(slots=True)
class Pass:
    """What one going over found. `old`: under an older version, rewrapped now or to be looked at again."""

    seen: int = 0
    old: int = 0
    rewrapped: int = 0
    unreadable: list[str] = field(default_factory=list)


class Rotating:
    """The use cases. `settle` is shorter only in tests."""

    def __init__(
        self,
        tenants: Tenants,
        secrets: Documents,
        records: Documents,
        cipher: Ciphers,
        platform_cipher: Ciphers,
        operations: Operations,
        audit: Audit,
        clock: Clock,
        *,
        settle: float | None = None,
    ) -> None:
        self._tenants = tenants
        self._secrets = secrets
        self._records = records
        self._cipher = cipher
        self._platform_cipher = platform_cipher
        self._operations = operations
        self._audit = audit
        self._clock = clock
        self._settle = SETTLE if settle is None else settle
        operations.carry_out("rotate-tenant-key", self._rotate_tenant)
        operations.carry_out("rotate-platform-key", self._rotate_platform)

    async def tenant(self, caller: ApiKey, tenant_id: TenantId) -> Operation:
        """Rotate a tenant's key, or say how the rotation that runs is getting on. Raises: TENANT_NOT_FOUND."""
        tenant = await self._tenants.get(caller, tenant_id, fresh=True)
        if tenant.state is TenantState.DELETING:
            raise ConnectorsError(Reason.TENANT_NOT_FOUND, {"tenant": tenant_id})
        return await self._begin(caller, tenant_id, tenant.uid, Rotation("rotate-tenant-key"))

    async def platform(self, caller: ApiKey) -> Operation:
        """Rotate the platform's key, or say how the rotation that runs is getting on."""
        return await self._begin(caller, TenantId(""), TenantUid(""), Rotation("rotate-platform-key"))

    async def _begin(self, caller: ApiKey, tenant_id: TenantId, uid: TenantUid, rotation: Rotation) -> Operation:
        operation = await self._operations.begin(caller, tenant_id, uid, rotation)
        return await self._operations.wait(operation, AT_ONCE)

    async def _rotate_tenant(self, run: Run) -> None:
        tenant = await self._tenants.of_uid(run.operation.tenant, run.operation.uid)
        gone = ConnectorsError(Reason.TENANT_NOT_FOUND)
        if tenant is None or tenant.state is TenantState.DELETING:
            raise gone
        shelf = CredentialShelf(tenant, self._secrets, self._records, self._clock)
        try:
            await self._planned(run, self._cipher, tenant.id)
            await self._rotate(run, self._cipher, shelf)
        except KeyMissing:
            raise gone from None

    async def _rotate_platform(self, run: Run) -> None:
        try:
            rotation = await self._planned(run, self._platform_cipher, PLATFORM_KEY)
            shelf = ClientShelf(self._records, self._clock, rotation.to_version)
            await self._rotate(run, self._platform_cipher, shelf)
        except KeyMissing:
            raise ConnectorsError(Reason.INTERNAL, {"missing": "platform key"}) from None

    @staticmethod
    async def _planned(run: Run, ciphers: Ciphers, key: str) -> Rotation:
        """The rotation with its goal, which is stored before anything is done: done again, it is the same goal."""
        rotation = _rotation(run)
        if not rotation.to_version:
            latest = (await ciphers.key_versions(key)).latest
            rotation = replace(rotation, from_version=latest, to_version=latest + 1)
            await run.save(work=rotation, step="rotating")
        return rotation

    async def _rotate(self, run: Run, ciphers: Ciphers, shelf: Shelf) -> None:
        goal = _rotation(run).to_version
        versions = await ciphers.key_versions(shelf.key)
        if versions.latest < goal:
            await ciphers.rotate(shelf.key)
        if versions.readable < goal:
            run.note(step="rewrapping", items_done=0, items_total=await shelf.count())
            await self._go_over(run, ciphers, shelf)
            for _ in range(MOST_PASSES):
                await self._still(run, shelf)
                if not await self._go_over(run, ciphers, shelf):
                    break
            else:
                raise ConnectorsError(Reason.CONFLICT)
            await run.save(step="ending old versions")
            await ciphers.retire(shelf.key, goal)
        action = "RotatePlatformKey" if shelf.key == PLATFORM_KEY and not run.operation.tenant else "RotateTenantKey"
        self._audit.record(
            action, caller=run.operation.caller, tenant=run.operation.tenant, generation=goal, result="rotated"
        )

    async def _still(self, run: Run, shelf: Shelf) -> None:
        """Wait until nothing is under way that an older version sealed."""
        run.note(step="waiting for what is under way")
        while True:
            while await shelf.busy():  # noqa: ASYNC110 - of other replicas: nobody tells us
                await asyncio.sleep(POLL)
            await asyncio.sleep(self._settle)
            if not await shelf.busy():
                return

    async def _go_over(self, run: Run, ciphers: Ciphers, shelf: Shelf) -> int:
        """Rewrap what is under an older version; how many were. Raises: VaultUnavailable, KeyMissing."""
        before, found = _rotation(run), Pass()
        async for page in shelf.pages():
            try:
                async with asyncio.timeout(STEP):
                    await self._page(ciphers, shelf, page, before.to_version, found)
            except TimeoutError:
                raise VaultUnavailable from None
            rotation = replace(
                before,
                rewrapped=before.rewrapped + found.rewrapped,
                unreadable_count=len(found.unreadable),
                unreadable=tuple(found.unreadable[:MOST_NAMED]),
            )
            total = max(found.seen, run.operation.items_total)
            run.note(work=rotation, items_done=max(found.seen, run.operation.items_done), items_total=total)
        return found.old

    async def _page(self, ciphers: Ciphers, shelf: Shelf, page: Sequence[Slot], goal: int, found: Pass) -> None:
        found.seen += len(page)
        old = {slot.path: [item for item in slot.sealed if sealed_version(item.ciphertext) < goal] for slot in page}
        rewrapped: dict[Sealed, str | None] = {}
        for batch in _batches([item for items in old.values() for item in items]):
            rewrapped |= zip(batch, await ciphers.rewrap(shelf.key, batch), strict=True)

        async def put(slot: Slot) -> None:
            await self._put(ciphers, shelf, slot, {item: rewrapped[item] for item in old[slot.path]}, found)

        await several(put, [slot for slot in page if old[slot.path]])

    @staticmethod
    async def _put(
        ciphers: Ciphers, shelf: Shelf, slot: Slot, rewrapped: Mapping[Sealed, str | None], found: Pass
    ) -> None:
        news = {item.ciphertext: new for item, new in rewrapped.items() if new is not None}
        failed = [item for item, new in rewrapped.items() if new is None]
        stubborn = [item for item in failed if await _opens(ciphers, shelf.key, item)]
        if len(failed) > len(stubborn):
            found.unreadable.append(slot.name)
        if not news and not stubborn:
            return
        found.old += 1
        if not news:
            return
        try:
            await shelf.documents.write(slot.path, slot.holding(news), cas=slot.document.version)
        except Conflict:
            return  # somebody wrote meanwhile: it is looked at again
        found.rewrapped += len(news)


async def _opens(ciphers: Ciphers, key: str, item: Sealed) -> bool:
    try:
        await ciphers.decrypt(key, item.context, item.ciphertext)
    except Undecipherable:
        return False
    return True


def _batches(items: Sequence[Sealed]) -> Iterator[Sequence[Sealed]]:
    """As the port takes them."""
    batch: list[Sealed] = []
    size = 0
    for item in items:
        if batch and (size + len(item.ciphertext) > MAX_BATCH_SIZE or len(batch) == MAX_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.ciphertext)
    if batch:
        yield batch


def _rotation(run: Run) -> Rotation:
    assert isinstance(run.operation.work, Rotation)
    return run.operation.work
