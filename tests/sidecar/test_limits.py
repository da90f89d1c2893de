"""What one credential, one head or one crowd of apps may use of the sidecar; each bound has its own answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.tenant_service_pb2 import Quota as Bounds
from connectors_grpc.quota import Quota
from sidecar.problem import Problem
from sidecar.quota import Quotas
from tests.sidecar.harness import OK, QUICK, SOON, Clock, Got, world


def over(quotas: Quotas, now: float, tenant: str = "acme") -> Problem | None:
    """Why a call can't begin; None, and it ended, if it can."""
    try:
        quotas.enter(tenant, "notes", now).leave()
    except Problem as problem:
        return problem
    return None


# --- pure


def test_calls_a_second_come_back_with_time() -> None:
    """A burst of one second's, then as they refill; the answer says when."""
    quotas = Quotas(Quota(rate=4))
    assert [over(quotas, 100.0) for _ in range(4)] == [None] * 4
    problem = over(quotas, 100.0)
    assert problem is not None
    assert (problem.status, problem.retry_after, problem.metadata) == (429, 0.25, {"limit": "calls a second"})
    assert over(quotas, 100.25) is None
    assert over(quotas, 100.25) is not None
    assert over(quotas, 100.25, "globex") is None


def test_bytes_are_paid_afterwards() -> None:
    """A large body passes whole; the debt is waited for."""
    quotas = Quotas(Quota(volume=1000))
    share = quotas.enter("acme", "notes", 0.0)
    share.pay(15_000)
    share.leave()
    problem = over(quotas, 1.0)
    assert problem is not None
    assert problem.retry_after == 4.0
    assert over(quotas, 5.0) is None


def test_a_clock_that_steps_back_gives_nothing() -> None:
    """Nor takes it."""
    quotas = Quotas(Quota(rate=1))
    assert over(quotas, 100.0) is None
    assert over(quotas, 50.0) is not None
    assert over(quotas, 51.0) is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60))
def test_the_table_is_bounded_and_never_forgets_who_has_calls_open(steps: list[tuple[str, bool]]) -> None:
    """Whatever comes: at most `most` entries; calls open are counted right."""
    quotas, open_calls = Quotas(Quota(concurrent=2), most=3), {name: [] for name in "abcdef"}  # type: ignore[var-annotated]
    for name, begins in steps:
        if begins:
            try:
                open_calls[name].append(quotas.enter(name, "notes", 0.0))
            except Problem:
                busy = sum(1 for shares in open_calls.values() if shares)
                assert len(open_calls[name]) == 2 or busy >= 3
        elif open_calls[name]:
            open_calls[name].pop().leave()
        assert len(quotas) <= 3
        assert all(use.shares[0].open == len(uses) for uses in open_calls.values() for use in uses)


# --- through the sidecar


async def test_calls_at_once_are_bounded_by_credential() -> None:
    """The third is 429; another tenant's is not; once one ended there is room again."""
    async with world(limits=QUICK, quota=Quota(concurrent=2)) as w:
        gate = asyncio.Event()

        async def wait(_got: Got, _writer: object) -> bytes:
            await gate.wait()
            return OK

        w.connect("globex", "notes")
        w.provider.reply = wait
        calls = [asyncio.create_task(w.ask()) for _ in range(2)]
        await w.until(lambda: len(w.provider.got) > 1)
        answer = await w.ask()
        assert (answer.status, answer.reason) == (429, "LIMIT_EXCEEDED")
        assert answer.problem["limit"] == "calls at once"
        assert answer.all(b"Retry-After") == [b"1"]
        other = asyncio.create_task(w.ask("/~globex/notes/v1"))
        await w.until(lambda: len(w.provider.got) > 2)
        gate.set()
        assert [(await call).status for call in [*calls, other]] == [200] * 3
        assert (await w.ask()).status == 200


async def test_an_app_that_leaves_gives_its_call_back() -> None:
    """Aborted mid-call, and refused before it began."""
    async with world(limits=QUICK, quota=Quota(concurrent=1)) as w:
        stuck = asyncio.Event()

        async def wait(_got: Got, _writer: object) -> bytes:
            await stuck.wait()
            return OK

        w.provider.replies = [wait]
        app = await w.app()
        await app.send(w.request())
        await w.until(lambda: bool(w.provider.got))
        assert (await w.ask()).status == 429
        app.close()
        async with asyncio.timeout(SOON):
            while (await w.ask()).status != 200:
                pass
        w.connect(refused_urls=[f"http://127.0.0.1:{w.provider.port}/oauth/token"])
        await w.told()
        stuck.set()


async def test_calls_a_second_are_bounded_and_come_back() -> None:
    """429 with Retry-After, and the connection goes on."""
    clock = Clock()
    async with world(limits=QUICK, quota=Quota(rate=4), clock=clock) as w:
        app = await w.app()
        answers = [await app.ask(w.request()) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 4 + [429] * 2
        assert answers[-1].all(b"Retry-After") == [b"1"]
        assert len(w.provider.got) == 4
        clock.advance(0.25)
        assert [(await app.ask(w.request())).status for _ in range(2)] == [200, 429]


async def test_bytes_a_second_are_bounded() -> None:
    """Both bodies count; what passed is whole."""
    clock = Clock()
    async with world(limits=QUICK, quota=Quota(volume=10_000), clock=clock) as w:
        answer = await w.ask(method="POST", body=b"x" * (150_000 - len(b"ok")))
        assert answer.status == 200
        answer = await w.ask()
        assert (answer.status, answer.problem["limit"]) == (429, "bytes a second")
        assert answer.all(b"Retry-After") == [b"5"]
        clock.advance(5)
        assert (await w.ask()).status == 200


async def test_a_tenants_own_quota_comes_with_its_leases_and_bounds_all_its_credentials() -> None:
    """Another tenant's is not bounded; once the tenant has another quota, the next lease brings it."""
    async with world(limits=QUICK, clock=Clock()) as w:
        quota = Bounds(calls_per_second=2)
        for name in ("notes", "tasks"):
            w.connect("acme", name).quota.CopyFrom(quota)
        w.connect("globex", "notes")
        answers = [await w.ask(f"/~acme/{name}/v1") for name in ("notes", "tasks") * 3]
        assert [answer.status for answer in answers] == [200] * 2 + [429] * 4
        over = answers[-1]
        assert (over.reason, over.problem["limit"], over.all(b"Retry-After")) == (
            "LIMIT_EXCEEDED",
            "calls a second",
            [b"1"],
        )
        assert [(await w.ask("/~globex/notes/v1")).status for _ in range(6)] == [200] * 6
        for name in ("notes", "tasks"):
            w.connect("acme", name)
        w.server.tell(pb.WatchLeasesResponse(tenant_changed=pb.TenantChanged(tenant="acme")))
        await w.told()
        assert [(await w.ask()).status for _ in range(6)] == [200] * 6


async def test_bytes_of_a_tenant_are_paid_by_both_bodies() -> None:
    """A large upload passes; the tenant's next call waits, whichever credential it is with."""
    async with world(limits=QUICK) as w:
        for name in ("notes", "tasks"):
            w.connect("acme", name).quota.CopyFrom(Bounds(bytes_per_second=100))
        assert (await w.ask(method="POST", body=b"x" * 5000)).status == 200
        answer = await w.ask("/~acme/tasks/v1")
        assert (answer.status, answer.problem["limit"]) == (429, "bytes a second")
        assert (await w.ask("/~globex/notes/v1")).status != 429


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X-A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX-A: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n", 408),
    ],
)
async def test_a_head_that_is_too_long_too_large_or_too_slow_has_its_own_answer(data: bytes, status: int) -> None:
    """414, 431 and 408, and the connection closes."""
    async with world(limits=replace(QUICK, head=0.1) if status == 408 else QUICK) as w:
        app = await w.app()
        await app.send(data)
        answer = await app.answer()
        assert (answer.status, answer.all(b"Connection")) == (status, [b"close"])


async def test_a_crowd_of_connections_is_told_to_come_again() -> None:
    """503, at once and without a request."""
    async with world(limits=replace(QUICK, connections=2)) as w:
        first, second = await w.app(), await w.app()
        assert (await first.ask(w.request())).status == 200
        assert (await second.ask(w.request())).status == 200
        third = await w.app()
        answer = await third.answer()
        assert (answer.status, answer.reason) == (503, "LIMIT_EXCEEDED")
        assert answer.all(b"Retry-After") == [b"1"]
        assert await third.closed()
