"""How long leases and grants are believed: the server's time with a live watch, four seconds without one."""

from __future__ import annotations

import asyncio
import hashlib

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from sidecar.door import AppKey
from sidecar.leases import UNWATCHED_TTL, Ask, Leases
from sidecar.route import Credential, Tenant

TTL = 60
KEY = AppKey("app-1", hashlib.sha256(b"a key").digest())


class Answers:
    """A `Source` whose leases and grants are good for a minute."""

    def __init__(self) -> None:
        self.asked = 0

    async def lease(self, request: pb.LeaseRequest) -> pb.LeaseResponse:
        """See Source."""
        self.asked += 1
        lease = pb.Lease(
            tenant="acme",
            tenant_uid="u",
            credential="notes",
            integration="notes",
            generation=1,
            base_url="https://api.notes.example",
            allowed_hosts=["api.notes.example"],
            headers=[pb.InjectedField(name="authorization", value="Bearer t")],
        )
        lease.refresh_after_ttl.seconds = TTL
        lease.grace_ttl.seconds = 3600
        grant = pb.AppGrant(key_id=request.app_key.key_id, tenants=["*"], credentials=["*"])
        grant.ttl.seconds = TTL
        return pb.LeaseResponse(lease=lease, app_grant=grant)


ASK = Ask(Tenant("acme"), Credential("notes"), KEY)


async def test_with_a_watch_the_servers_time_holds() -> None:
    """Used for the whole minute without asking; after it, asked for in the background."""
    source, now = Answers(), [100.0]
    async with asyncio.TaskGroup() as tasks:
        leases = Leases(source, tasks, clock=lambda: now[0])
        leases.watched = True
        held = await leases.fill(ASK)
        assert leases.find(ASK, now[0] + TTL - 1) is held
        assert source.asked == 1
        assert leases.find(ASK, now[0] + TTL + 1) is held
    assert source.asked == 2


async def test_without_a_watch_everything_is_confirmed_after_four_seconds() -> None:
    """Whatever the server says: nobody would tell this sidecar of a revocation."""
    source, now = Answers(), [100.0]
    async with asyncio.TaskGroup() as tasks:
        leases = Leases(source, tasks, clock=lambda: now[0])
        held = await leases.fill(ASK)
        assert leases.find(ASK, now[0] + UNWATCHED_TTL - 0.1) is held
        assert leases.find(ASK, now[0] + UNWATCHED_TTL) is None


async def test_a_watch_that_breaks_shortens_what_is_held() -> None:
    """Four seconds from the break, never more than there was left; breaking again does not lengthen it."""
    source, now = Answers(), [100.0]
    async with asyncio.TaskGroup() as tasks:
        leases = Leases(source, tasks, clock=lambda: now[0])
        leases.watched = True
        held = await leases.fill(ASK)
        now[0] += 30
        leases.unwatched()
        assert leases.find(ASK, now[0] + UNWATCHED_TTL - 0.1) is held
        now[0] += 2
        leases.unwatched()
        assert leases.find(ASK, now[0] + UNWATCHED_TTL - 2) is None
