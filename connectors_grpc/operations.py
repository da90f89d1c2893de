"""Long work that outlives its call, its process and its replica: how far it is stands in `operations/{id}`, and whoever has
its document may go on with it.

One process works at an operation: its `owner`, which writes at every beat (`operation_run`) by compare-and-set. Whose document
has not changed while we watched it for `TTL` seconds is dead, and another takes over; two machines' clocks are never
compared, and time in which the Vault was away counts for nothing. Work is written so that it can be begun again at any point.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

from connectors_grpc import logs, policy
from connectors_grpc.domain.ids import OperationId, TenantId, TenantUid
from connectors_grpc.domain.operation import Operation, Work
from connectors_grpc.domain.records import ApiKey, Role
from connectors_grpc.errors import Conflict, ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.operation_run import Lost, Run, store, stored
from connectors_grpc.paging import pages
from connectors_grpc.ports import Clock, Documents

KEPT = timedelta(days=1)
TTL = 15.0
POLL = 3.0
MOST_RUNS = 16
"""Operations that one process works at; others wait, or are another's."""
MOST_REMEMBERED = 10_000
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0

log = logs.get("operations")


@dataclass(slots=True)
class _Watched:
    version: int
    since: float


class Operations:
    """Begins, carries out, takes over and tells. Enter it to have it work; leaving hands all over to others."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._owner = secrets.token_hex(8)
        self._works: dict[str, Callable[[Run], Awaitable[None]]] = {}
        self._runs: dict[OperationId, tuple[Run, asyncio.Task[None]]] = {}
        self._watched: dict[OperationId, _Watched] = {}
        self._ended: dict[OperationId, None] = {}
        self._looked = 0.0
        self._wake = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def carry_out(self, kind: str, work: Callable[[Run], Awaitable[None]]) -> None:
        """Who does that kind of work. It may be called again after any of its steps, and must then finish what is left.

        It raises ConnectorsError to end the operation with that reason; after VaultUnavailable it is called again.
        """
        self._works[kind] = work

    async def begin(self, caller: ApiKey, tenant: TenantId, uid: TenantUid, work: Work) -> Operation:
        """A new operation, or the one of that kind that runs already for that very tenant. Raises: CONFLICT."""
        slot = hashlib.sha256(f"{work.kind}/{tenant}/{uid}".encode()).hexdigest()[:20]
        for _ in range(8):
            latest = await self._latest(f"op-{slot}-")
            if latest is not None and not latest.done:
                return await self._taken_up(latest) if not latest.owner else latest
            number = 1 if latest is None else int(latest.id.rpartition("-")[2]) + 1
            operation = Operation(
                id=OperationId(f"op-{slot}-{number:06d}"),
                tenant=tenant,
                uid=uid,
                caller=caller.id,
                work=work,
                create_time=self._clock.now(),
                owner=self._owner if self._has_room() else "",
            )
            with contextlib.suppress(Conflict):
                operation = replace(operation, version=await store(self._documents, operation))
                if operation.owner:
                    self._start(operation)
                return operation
        raise ConnectorsError(Reason.CONFLICT)

    async def _latest(self, prefix: str) -> Operation | None:
        latest = ""
        async for names in pages(self._documents, "operations", prefix=prefix, limit=100):
            latest = names[-1] if names else latest
        return await stored(self._documents, OperationId(latest)) if latest else None

    async def wait(self, operation: Operation, seconds: float) -> Operation:
        """As it stands when it has ended here, or after so many seconds."""
        found = self._runs.get(operation.id)
        if found is None:
            return operation
        run, task = found
        await asyncio.wait({task}, timeout=seconds)
        return run.operation

    async def get(self, caller: ApiKey, operation_id: OperationId) -> Operation:
        """How it stands; a receipt is kept for a day. Raises: OPERATION_NOT_FOUND, PERMISSION_DENIED."""
        found = self._runs.get(operation_id)
        operation = found[0].operation if found else await stored(self._documents, operation_id)
        scope = caller.scope.tenants
        if scope is not None and (operation is None or scope.get(operation.tenant) != operation.uid):
            raise policy.denied()
        if operation is None or self._old(operation):
            raise ConnectorsError(Reason.OPERATION_NOT_FOUND)
        if not operation.tenant and Role.ADMIN not in caller.roles:
            raise policy.denied()
        return operation

    def _old(self, operation: Operation) -> bool:
        return operation.done_time is not None and operation.done_time + KEPT < self._clock.now()

    async def look(self) -> None:
        """Take up what nobody works at. Raises: VaultUnavailable."""
        now = self._clock.monotonic()
        if now - self._looked > 3 * POLL:
            self._watched.clear()  # the Vault was away, or we slept: watching begins anew
        for name in await self._names():
            if name in self._ended or name in self._runs:
                continue
            operation = await stored(self._documents, name)
            if operation is None or operation.done:
                self._remember(name)
            elif self._has_room() and self._free(operation, now):
                with contextlib.suppress(Conflict):
                    await self._taken_up(operation)
        self._looked = now

    async def _names(self) -> Sequence[OperationId]:
        names: list[OperationId] = []
        async for page in pages(self._documents, "operations", limit=500):
            names += map(OperationId, page)
        present = set(names)
        self._watched = {name: seen for name, seen in self._watched.items() if name in present}
        self._ended = {name: None for name in self._ended if name in present}
        return names

    def _free(self, operation: Operation, now: float) -> bool:
        if not operation.owner:
            return True
        seen = self._watched.get(operation.id)
        if seen is None or seen.version != operation.version:
            self._watched[operation.id] = _Watched(operation.version, now)
            return False
        return now - seen.since >= TTL

    def _remember(self, name: OperationId) -> None:
        self._watched.pop(name, None)
        self._ended[name] = None
        if len(self._ended) > MOST_REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def _has_room(self) -> bool:
        return len(self._runs) < MOST_RUNS

    async def _taken_up(self, operation: Operation) -> Operation:
        """Ours, if there is room and no other was first; else as it was."""
        if not self._has_room() or operation.id in self._runs or operation.work.kind not in self._works:
            return operation
        ours = replace(operation, owner=self._owner)
        try:
            ours = replace(ours, version=await store(self._documents, ours))
        except Conflict:
            return operation
        log.info("operation_taken_up", target=ours.id, action=ours.work.kind)
        self._start(ours)
        return ours

    def _start(self, operation: Operation) -> None:
        if operation.id in self._runs:
            return
        run = Run(operation, self._documents)
        task = asyncio.create_task(self._drive(run))
        self._runs[operation.id] = run, task
        task.add_done_callback(lambda _: self._left(operation.id))

    def _left(self, operation_id: OperationId) -> None:
        self._runs.pop(operation_id, None)
        self._wake.set()

    async def _drive(self, run: Run) -> None:
        """Work until it has ended, or is another's. A Vault that is away is waited for."""
        pause = FIRST_PAUSE
        while True:
            try:
                error = await self._attempt(run)
                await run.save(error=error, step="", done_time=self._clock.now(), owner="")
            except VaultUnavailable:
                run.note(owner=self._owner, done_time=None)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Lost:
                log.warning("operation_lost", target=run.operation.id)
                return
            else:
                return

    async def _attempt(self, run: Run) -> str:
        """Carry it out beside its beat; says why it failed, empty if it did not. Raises: Lost, VaultUnavailable."""
        beating = asyncio.ensure_future(run.beat())
        working = asyncio.ensure_future(self._works[run.operation.work.kind](run))
        try:
            await asyncio.wait({beating, working}, return_when=asyncio.FIRST_COMPLETED)
            await (working if working.done() else beating)
        except (VaultUnavailable, Lost):
            raise
        except ConnectorsError as error:
            return error.reason.value
        except Exception as error:
            log.error("operation_failed", target=run.operation.id, error=type(error).__name__)  # noqa: TRY400
            return Reason.INTERNAL.value
        finally:
            beating.cancel()
            working.cancel()
            await asyncio.gather(beating, working, return_exceptions=True)
        return ""

    async def sweep(self) -> None:
        """Remove what ended more than a day ago, and what is no operation."""
        for name in await self._names():
            operation = await stored(self._documents, name)
            if operation is None or self._old(operation):
                await self._documents.purge(f"operations/{name}")

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(VaultUnavailable):
                await self.look()
            # Not `wait_for`, which Python 3.11 lets swallow a cancellation that comes together with the waking.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._wake.wait()
            self._wake.clear()

    async def __aexit__(self, *_exc: object) -> None:
        """Stop, and say so in the documents, so that others go on at once."""
        left = list(self._runs.values())
        tasks = [task for _, task in left] + ([self._watching] if self._watching else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run, _ in left:
            if not run.operation.done:
                with contextlib.suppress(VaultUnavailable, Lost):
                    await run.save(owner="")
