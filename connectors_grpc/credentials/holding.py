"""Holds: before a refresh ends an access token, calls under way with it end first, here, at other replicas and in sidecars.

While a hold stands no call begins with that generation: who wants one waits for what comes of the refresh. A replica yields once
its own calls have ended and every sidecar that watches it, and may see the credential, has said the same. All of it is bounded,
and nothing of it is needed: who can't be told, or does not answer, meets a dead token as it might have anyway.
Knows neither how a token is refreshed nor how anybody is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

from connectors_grpc import logs, policy
from connectors_grpc.credentials.inflight import LONGEST, InFlight, Use
from connectors_grpc.domain.records import ApiKey, Credential, Scope, Tenant
from connectors_grpc.ports import Hold, Replicas, Said, Told

FEED = 2.0
"""Seconds that a hold and the answer to it may take between replicas."""
LIFE = 9.0
"""Seconds for which a hold stands at most. Below the ten that a sidecar waits for a lease."""
MOST = 512
"""Holds at once, heard and our own. A refresh above that waits for nobody."""
MOST_TOLD = 20_000
"""Of sidecars that were told of holds, all holds together. Those above that are not waited for."""

log = logs.get("refresh")


@dataclass(eq=False, slots=True)
class _Watch:
    caller: ApiKey
    tell: Callable[[Told], None]


@dataclass(eq=False, slots=True)
class _Standing:
    """A hold in force. `told`: by hold id; `silent`: those that have not answered. `missing`: replicas that have not."""

    hold: Hold
    until: float
    told: dict[str, _Watch] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    said: bool = True
    yielded: bool = False
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def use(self) -> Use:
        """What no call begins with."""
        return self.hold.uid, self.hold.credential, self.hold.generation

    def tell(self, hold_id: str, watch: _Watch, left: float) -> None:
        """Tell a sidecar, under an id of its own."""
        self.told[hold_id] = watch
        self.silent.add(hold_id)
        self._look()
        watch.tell(Told(self.hold, hold_id, left))

    def answered(self, hold_id: str) -> None:
        """One sidecar has no call left, or is gone."""
        self.silent.discard(hold_id)
        self._look()

    def heard_of(self, missing: set[str]) -> None:
        """These replicas have yet to answer."""
        self.missing = missing
        self._look()

    def _look(self) -> None:
        for event, awaited in ((self.quiet, self.silent), (self.complete, self.missing)):
            if awaited:
                event.clear()
            else:
                event.set()


class Holding:
    """One for the process. As an async context manager it owns the tasks that wait for our calls on others' behalf."""

    def __init__(self, replicas: Replicas, calls: InFlight) -> None:
        self._replicas = replicas
        self._calls = calls
        self._own: dict[str, _Standing] = {}
        self._heard: dict[str, _Standing] = {}
        self._uses: dict[Use, _Standing] = {}
        self._watches: set[_Watch] = set()
        self._told: dict[str, _Standing] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        replicas.on_heard(self._reconcile)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- who begins calls

    def stands(self, use: Use) -> bool:
        """Whether no call is to begin with it now."""
        standing = self._uses.get(use)
        return standing is not None and asyncio.get_running_loop().time() < standing.until

    async def over(self, use: Use) -> None:
        """Wait until it no longer stands."""
        standing = self._uses.get(use)
        if standing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(standing.until):
                    await standing.over.wait()

    # --- who refreshes

    @contextlib.asynccontextmanager
    async def held(self, tenant: Tenant, credential: Credential, longest: float) -> AsyncIterator[None]:
        """The block begins once calls with the credential's token have ended everywhere, after `longest` seconds at most.

        Until it is left none begins. Alone, and with no sidecar that watches, nothing is said and only our own are waited for.
        """
        if len(self._own) >= MOST:
            yield
            return
        standing = self._stand(Hold(secrets.token_hex(16), tenant.id, tenant.uid, credential.id, credential.generation))
        standing.heard_of(set(self._replicas.others()))
        standing.said = bool(standing.missing)
        self._own[standing.hold.id] = standing
        self._say()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(longest):
                    await self._ended(standing)
                    await standing.complete.wait()
            if standing.silent or standing.missing:
                log.info("refresh_waited_in_vain", tenant=tenant.id, credential=credential.id)
            yield
        finally:
            del self._own[standing.hold.id]
            self._end(standing)
            self._say()

    # --- who watches

    @contextlib.contextmanager
    def watch(self, caller: ApiKey, tell: Callable[[Told], None]) -> Iterator[None]:
        """For the block, `tell` that sidecar of holds within its scope: of those that stand now too."""
        watch = _Watch(caller, tell)
        self._watches.add(watch)
        for standing in self._all():
            self._tell(standing, watch)
        try:
            yield
        finally:
            self._watches.discard(watch)
            gone = [(one, hold_id) for one in self._all() for hold_id, to in one.told.items() if to is watch]
            for standing, hold_id in gone:
                del standing.told[hold_id], self._told[hold_id]
                standing.answered(hold_id)

    def answer(self, caller: ApiKey, hold_id: str) -> None:
        """A sidecar has no call left with what it was told of. Again is no error.

        Raises: PERMISSION_DENIED, whether it was another key that was told, or nobody, or the hold is over.
        """
        standing = self._told.get(hold_id)
        if standing is None or standing.told[hold_id].caller.id != caller.id:
            raise policy.denied()
        standing.answered(hold_id)

    # --- inside

    def _all(self) -> Iterator[_Standing]:
        return itertools.chain(self._own.values(), self._heard.values())

    def _stand(self, hold: Hold) -> _Standing:
        standing = _Standing(hold, asyncio.get_running_loop().time() + LIFE)
        self._uses[standing.use] = standing
        standing.heard_of(set())
        for watch in self._watches:
            self._tell(standing, watch)
        return standing

    def _tell(self, standing: _Standing, watch: _Watch) -> None:
        left = standing.until - asyncio.get_running_loop().time()
        if left > 0 and len(self._told) < MOST_TOLD and _covers(watch.caller.scope, standing.hold):
            hold_id = secrets.token_hex(16)
            self._told[hold_id] = standing
            standing.tell(hold_id, watch, left)

    def _end(self, standing: _Standing) -> None:
        """It stands no longer, and who was told of it is told so."""
        standing.over.set()
        if self._uses.get(standing.use) is standing:
            del self._uses[standing.use]
        for hold_id, watch in standing.told.items():
            del self._told[hold_id]
            watch.tell(Told(standing.hold, hold_id, 0.0))
        standing.told.clear()

    async def _ended(self, standing: _Standing) -> None:
        """Wait for our own calls and our sidecars', within the bound."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST):
                await self._calls.ended(standing.use, LONGEST)
                await standing.quiet.wait()

    async def _yield(self, standing: _Standing) -> None:
        await self._ended(standing)
        standing.yielded = True
        self._say()

    def _reconcile(self) -> None:
        """Make of what the other replicas say now what is to be done here."""
        others = self._replicas.others()
        there = {hold.id: hold for said in others.values() for hold in said.holds}
        for name in [name for name in self._heard if name not in there]:
            self._end(self._heard.pop(name))
        for name, hold in there.items():
            if name not in self._heard and len(self._heard) < MOST:
                self._heard[name] = self._stand(hold)
                task = asyncio.create_task(self._yield(self._heard[name]), name="hold")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        for standing in self._own.values():
            left = {name for name in standing.missing if name in others}
            standing.heard_of({name for name in left if standing.hold.id not in others[name].yielded})
        self._say()

    def _say(self) -> None:
        holds = tuple(standing.hold for standing in self._own.values() if standing.said)
        yielded = tuple(name for name, standing in self._heard.items() if standing.yielded)
        self._replicas.say(Said(holds, yielded))


def _covers(scope: Scope, hold: Hold) -> bool:
    """Whether a key may know of it: of the credential, and of this very tenant (attack 38)."""
    if not policy.covers_credential(scope, hold.credential):
        return False
    return scope.tenants is None or scope.tenants.get(hold.tenant) == hold.uid
