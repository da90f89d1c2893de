"""The cache of leases and grants. A hit is a dict get: no lock, no await. What is not held is asked for once, however many wait.

It knows no socket: `Source` is asked, `tasks` owns what runs in the background.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.inject import CallNotAllowed, HostNotAllowed, RuleRefused, Target
from connectors_grpc.logs import get
from sidecar.door import AppKey
from sidecar.framing import RequestHead
from sidecar.held import NOTHING_CHOSEN, Chosen, Grant, Held, TooNew, grant, hold
from sidecar.holds import Hold, Holds
from sidecar.problem import TEXT, Problem
from sidecar.route import Credential, Tenant
from sidecar.server import Denied, Unreachable

log = get("sidecar.leases")

MOST_LEASES = 10_000
MOST_GRANTS = 1_000
MOST_DENIALS = 1_000
MOST_FILLS = 256
DENIAL_TTL = 1.0
"""Seconds for which a refusal is believed without asking again."""
GRACE = 3600.0
"""Seconds for which a grant outlives its time while the server can't be reached."""
UNWATCHED_TTL = 4.0
"""Seconds for which a lease or grant is believed, at most, while no watch tells what changes: below the 5 s of the promise."""
TOO_OLD = "The server narrows this in a way that this sidecar does not know: update the sidecar."
TRY_AGAIN = 1.0
"""Seconds between attempts at renewing while the server can't be reached."""


class Source(Protocol):
    """Who hands out leases."""

    async def lease(self, request: pb.LeaseRequest) -> pb.LeaseResponse:
        """One lease. Raises: Denied, Unreachable."""


class Spawner(Protocol):
    """Who owns background tasks: a TaskGroup."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it."""


class Ask(NamedTuple):
    """What a request needs: whose credential, and the key that was shown."""

    tenant: Tenant | None
    credential: Credential
    key: AppKey | None


class Leases:
    """Leases by (tenant, credential), grants by key id. A lease fetched with one app's key proves nothing for another's."""

    def __init__(
        self,
        source: Source,
        tasks: Spawner,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        chosen: Chosen = NOTHING_CHOSEN,
    ) -> None:
        self._source = source
        self._tasks = tasks
        self._clock = clock
        self._wall = wall
        self._chosen = chosen
        self._leases: dict[tuple[str, str], Held] = {}
        self._grants: dict[str, Grant] = {}
        self._denials: dict[Ask, tuple[float, Problem]] = {}
        self._fills: dict[tuple[Ask, int], asyncio.Future[Held]] = {}
        self.holds = Holds(clock)
        self._epoch = 0
        self._quiet_until = 0.0
        self.watched = False
        self.ruled = False
        self.bounded = False
        self.hits = 0
        self.misses = 0
        self.answers: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._leases)

    # --- the hit path: sync

    def find(self, ask: Ask, now: float) -> Held | None:
        """The lease to use at once, or None: await `get`. Raises: Problem (the key's scope, a recent refusal)."""
        tenant, credential, key = ask
        known: Grant | None = None
        fresh = True
        if key is not None:
            known = self._grants.get(key.key_id)
            if known is None or not ((fresh := known.fresh(now)) or known.usable(now)):
                self._missed(ask, now)
                return None
            if not known.proves(key.sha256):
                raise Problem("API_KEY_INVALID")
            tenant = tenant or known.only_tenant()
        if tenant is None:
            raise Problem("MALFORMED_REQUEST", "Say the tenant: in the path as /~{tenant}/..., or by X-Tenant-Id.")
        if known is not None and not known.covers(tenant, credential):
            raise Problem("PERMISSION_DENIED")
        held = self._leases.get((tenant, credential))
        if held is not None and fresh and held.fresh(now):  # nearly always; what is fresh is usable
            self.hits += 1
            return held
        if held is None or not held.usable(now):
            self._missed(ask, now)
            return None
        stale = held.stale or (known is not None and known.stale)
        if self._must_ask(stale, now) or self.holds.on(held, now) is not None:
            self._missed(ask, now)
            return None
        self._renew_soon(held, ask, now)
        self.hits += 1
        return held

    def stands(self, ask: Ask, now: float) -> bool:
        """Whether an exchange under way may go on without asking; it counts as no hit. Raises: as `find`."""
        found = self.find(ask, now) is not None
        self.hits -= found
        return found

    def _must_ask(self, stale: bool, now: float) -> bool:
        """Whether what is not fresh has to be confirmed before it is used: if it may have changed, and the server answers."""
        return (stale or not self.watched) and now >= self._quiet_until

    def _missed(self, ask: Ask, now: float) -> None:
        denial = self._denials.get(ask)
        if denial is not None:
            if now < denial[0]:
                raise denial[1]
            del self._denials[ask]

    def _renew_soon(self, held: Held, ask: Ask, now: float) -> None:
        if held.renewing or now < self._quiet_until:
            return
        held.renewing = True
        self._tasks.create_task(self._renew(held, ask))

    async def _renew(self, held: Held, ask: Ask) -> None:
        try:
            await self.fill(ask)
        except Problem as problem:
            log.info("lease.renewal_failed", tenant=held.tenant, credential=held.credential, reason=problem.reason)
        finally:
            held.renewing = False

    def judge(self, ask: Ask, head: RequestHead, target: Target) -> None:
        """Hold a call to its key's rules; only asked once any key had some (`ruled`). Raises: Problem."""
        if ask.key is None:
            return
        known = self._grants.get(ask.key.key_id)
        if known is None or not known.proves(ask.key.sha256):
            raise Problem("PERMISSION_DENIED")
        if known.rules is not None:
            try:
                known.rules.check(ask.credential, head.method, target, (name for name, _ in head.fields))
            except CallNotAllowed:
                raise Problem("PERMISSION_DENIED", "No rule of the key allows this method and path.") from None

    # --- asking

    async def get(self, ask: Ask) -> Held:
        """What `find` gives by now (somebody may have asked since), or what `fill` does. Raises: Problem.

        A lease whose token a refresh is about to end is not for new calls: then what comes of the refresh.
        """
        while True:
            held = self.find(ask, self._clock()) or await self.fill(ask)
            held_up = self.holds.on(held, self._clock())
            if held_up is None:
                return held
            await self.holds.passed(held_up)

    async def fill(self, ask: Ask) -> Held:
        """Ask the server, or wait for who asks already; what is held serves while it can't be reached. Raises: Problem."""
        try:
            return await self._asked(ask, 0)
        except Unreachable as error:
            now = self._clock()
            self._quiet_until = now + TRY_AGAIN
            held = self._still(ask, now)
            if held is None:
                raise Problem(error.reason, retry_after=error.retry_after) from None
            return held

    def _still(self, ask: Ask, now: float) -> Held | None:
        """What may serve while the server can't be reached."""
        tenant = ask.tenant
        if ask.key is not None:
            known = self._grants.get(ask.key.key_id)
            if known is None or not known.proves(ask.key.sha256) or not known.usable(now):
                return None
            tenant = tenant or known.only_tenant()
            if tenant is None or not known.covers(tenant, ask.credential):
                return None
        held = self._leases.get((tenant or "", ask.credential))
        return held if held is not None and held.usable(now) else None

    async def reject(self, held: Held, key: AppKey | None) -> Held | None:
        """The upstream answered 401: ask for a newer generation, once. None if there is none to be had."""
        if not held.curable(self._clock()):
            current = self._leases.get((held.tenant, held.credential))
            return current if current is not None and current.renews(held) else None
        try:
            fresh = await self._asked(Ask(held.tenant, held.credential, key), held.generation)
        except Unreachable:
            return None
        except Problem:
            held.rejected = True
            return None
        held.rejected = True
        if fresh.generation == held.generation:
            fresh.rejected = True
        return fresh if fresh.renews(held) else None

    async def _asked(self, ask: Ask, rejected: int) -> Held:
        fill = self._fills.get((ask, rejected))
        if fill is None:
            if len(self._fills) >= MOST_FILLS:
                raise Problem("LIMIT_EXCEEDED", "Too many leases are being asked for at once.")
            fill = asyncio.get_running_loop().create_future()
            fill.add_done_callback(_seen)
            self._fills[ask, rejected] = fill
            self.misses += 1
            self._tasks.create_task(self._fetch(ask, rejected, fill))
        return await asyncio.shield(fill)

    async def _fetch(self, ask: Ask, rejected: int, fill: asyncio.Future[Held]) -> None:
        """One RPC for all who wait; belongs to the cache, so that a caller who leaves does not cancel it for the rest."""
        try:
            fill.set_result(await self._lease(ask, rejected))
            self.answers["granted"] += 1
        except (Problem, Unreachable) as error:
            self.answers[error.reason if error.reason in TEXT else "OTHER"] += 1
            fill.set_exception(error)
        except Exception as error:  # the boundary of a background task: one lease's bug must not end the others
            log.error("lease.failed", error=type(error).__name__, credential=ask.credential)  # noqa: TRY400 - its text may quote
            fill.set_exception(Problem("INTERNAL"))
        finally:
            if not fill.done():
                fill.cancel()
            del self._fills[ask, rejected]

    async def _lease(self, ask: Ask, rejected: int) -> Held:
        proof = pb.AppKeyProof(key_id=ask.key.key_id, sha256=ask.key.sha256) if ask.key is not None else None
        request = pb.LeaseRequest(
            tenant=ask.tenant or "", credential=ask.credential, app_key=proof, rejected_generation=rejected
        )
        epoch = self._epoch
        try:
            response = await self._source.lease(request)
        except Denied as denied:
            raise self._deny(ask, denied) from None
        return self._keep(ask, response, stale=epoch != self._epoch)

    def _deny(self, ask: Ask, denied: Denied) -> Problem:
        """Forget what was refused. PERMISSION_DENIED may be about the key alone: the lease is then confirmed by its next user."""
        problem = Problem(denied.reason, metadata=denied.metadata, retry_after=denied.retry_after)
        known = None if ask.key is None else self._grants.get(ask.key.key_id)
        if known is not None and ask.key is not None and not known.proves(ask.key.sha256):
            known = None
        tenant = ask.tenant or (None if known is None else known.only_tenant())
        if known is not None and denied.reason in ("API_KEY_INVALID", "API_KEY_MISSING", "PERMISSION_DENIED"):
            del self._grants[known.key_id]
        if denied.reason not in ("API_KEY_INVALID", "API_KEY_MISSING") and tenant is not None:
            held = self._leases.get((tenant, ask.credential))
            if held is not None and ask.key is not None and denied.reason == "PERMISSION_DENIED":
                held.stale = True
            elif held is not None:
                del self._leases[tenant, ask.credential]
        _bound(self._denials, MOST_DENIALS)
        self._denials[ask] = (self._clock() + DENIAL_TTL, problem)
        return problem

    def _keep(self, ask: Ask, response: pb.LeaseResponse, *, stale: bool) -> Held:
        """Check that the answer is what was asked for, then hold it. Raises: Problem (fail closed)."""
        now, wall = self._clock(), self._wall()
        lease = response.lease
        if lease.credential != ask.credential or lease.tenant != (ask.tenant or lease.tenant) or not lease.tenant:
            raise Problem("INTERNAL")
        if ask.key is not None:
            try:
                granted = grant(response.app_grant, ask.key.sha256, wall=wall, now=now, grace=GRACE)
            except (RuleRefused, TooNew):
                raise Problem("PERMISSION_DENIED", TOO_OLD) from None
            self.ruled = self.ruled or granted.rules is not None
            if granted.key_id != ask.key.key_id or not granted.covers(lease.tenant, lease.credential):
                raise Problem("PERMISSION_DENIED")
            granted.stale = stale
            granted.refresh_at = self._believed_until(granted.refresh_at, now)
            _bound(self._grants, MOST_GRANTS)
            self._grants[granted.key_id] = granted
        try:
            held = hold(lease, wall=wall, now=now, chosen=self._chosen)
        except HostNotAllowed:
            self._leases.pop((lease.tenant, lease.credential), None)
            raise Problem("HOST_NOT_ALLOWED") from None
        except TooNew:
            self._leases.pop((lease.tenant, lease.credential), None)
            raise Problem("PERMISSION_DENIED", TOO_OLD) from None
        before = self._leases.pop((held.tenant, held.credential), None)
        if before is not None and before.generation == held.generation:
            held.rejected = before.rejected
        self.bounded = self.bounded or bool(held.quota)
        held.stale = stale or self.holds.on(held, now) is not None
        held.refresh_at = self._believed_until(held.refresh_at, now)
        _bound(self._leases, MOST_LEASES)
        self._leases[held.tenant, held.credential] = held
        return held

    # --- events

    def apply(self, event: pb.WatchLeasesResponse) -> None:
        """Believe what the watch says, before the next use."""
        kind = event.WhichOneof("event")
        if kind == "heartbeat":
            return
        self._epoch += 1
        self._quiet_until = 0.0
        self._denials.clear()
        if kind == "credential_changed":
            held = self._leases.get((event.credential_changed.tenant, event.credential_changed.credential))
            if held is not None:
                held.stale = True
        elif kind == "tenant_changed":
            self._forget_tenant(event.tenant_changed.tenant)
        elif kind == "api_key_changed":
            self._grants.pop(event.api_key_changed.key_id, None)
        else:
            self.doubt_all()

    def hold(self, event: pb.CredentialHeld) -> Hold | None:
        """From now on no call begins with that generation, or it may again. None: there is nothing to answer."""
        begun = self.holds.hear(event)
        held = self._leases.get((event.tenant, event.credential))
        if begun is not None and held is not None and begun.concerns(held):
            held.stale = True
        return begun

    def _forget_tenant(self, tenant: str) -> None:
        """Grants that name it too: they are for the tenant as it was, and another may have its name now (attack 38)."""
        for name in [name for name in self._leases if name[0] == tenant]:
            del self._leases[name]
        for key_id in [known.key_id for known in self._grants.values() if tenant in known.tenants]:
            del self._grants[key_id]

    def unwatched(self) -> None:
        """The watch broke: from now on everything held is confirmed soon, not when the server's longer time is over."""
        self.watched = False
        self.holds.end_all()
        now = self._clock()
        for held in self._leases.values():
            held.refresh_at = self._believed_until(held.refresh_at, now)
        for known in self._grants.values():
            known.refresh_at = self._believed_until(known.refresh_at, now)

    def _believed_until(self, refresh_at: float, now: float) -> float:
        return refresh_at if self.watched else min(refresh_at, now + UNWATCHED_TTL)

    def doubt_all(self) -> None:
        """Ask again about whatever is used next."""
        self._epoch += 1
        for held in self._leases.values():
            held.stale = True
        for known in self._grants.values():
            known.stale = True


def _bound(table: dict[Any, Any], most: int) -> None:
    """Make room for one more: the entry that was renewed longest ago goes."""
    while len(table) >= most:
        del table[next(iter(table))]


def _seen(future: asyncio.Future[Held]) -> None:
    """Take note of an exception that nobody may be waiting for any more."""
    if not future.cancelled():
        future.exception()
