"""A refresh that ends the old token waits for calls under way here: what the sidecar does when the server says so."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from sidecar import holds
from sidecar.holds import TRIES, Holds
from tests.sidecar.harness import Answer, App, Got, World, aged

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
GRANT = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
ASK = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n"


def hold(w: World, *, generation: int = 1, uid: str = "uid-acme", credential: str = "notes", ttl: float = 30) -> str:
    """Tell the sidecar; the id it is to answer with."""
    held = pb.CredentialHeld(
        tenant="acme", tenant_uid=uid, credential=credential, generation=generation, hold_id=secrets.token_hex(8)
    )
    held.ttl.FromMilliseconds(int(ttl * 1000))
    w.server.tell(pb.WatchLeasesResponse(credential_held=held))
    return held.hold_id


def over(w: World, hold_id: str) -> None:
    """Tell it that a hold is over."""
    w.server.tell(pb.WatchLeasesResponse(credential_held=pb.CredentialHeld(
        tenant="acme", tenant_uid="uid-acme", credential="notes", generation=1, hold_id=hold_id
    )))  # fmt: skip


def refreshed(w: World) -> None:
    """The server has the next generation, and says so."""
    w.connect(generation=2)
    changed = pb.CredentialChanged(tenant="acme", credential="notes")
    w.server.tell(pb.WatchLeasesResponse(credential_changed=changed))


async def asked(w: World, times: int) -> None:
    """Until the server was asked for leases so many times: each call that comes in a hold asks, unless one asks just then."""
    await w.until(lambda: len(w.server.asked) >= times)


async def answered(w: World, *ids: str) -> None:
    """Until the sidecar has said so of these, and of nothing else."""
    await w.until(lambda: len(w.server.yielded) >= len(ids))
    assert w.server.yielded == list(ids)


async def slow_upload(w: World) -> App:
    """A call whose body is not whole yet: no resend could cure it."""
    app = await w.app()
    before = w.provider.connections
    await app.send(w.request(method="POST", lines=b"Content-Length: 8\r\n") + b"half")
    await w.until(lambda: w.provider.connections > before)
    return app


async def finished(app: App) -> Answer:
    """The rest of it."""
    return await app.ask(b"body")


async def test_calls_under_way_end_first_and_later_ones_have_the_new_token(w: World) -> None:
    """The upload ends with the old token before the hold is answered; calls that come meanwhile go out with the new one."""
    old = w.token()
    upload = await slow_upload(w)
    hold_id = hold(w)
    await w.shows("leases_held 1")
    later = [asyncio.create_task(w.ask()) for _ in range(5)]
    await w.shows("requests_in_flight 6")
    await asked(w, 2)
    assert w.server.yielded == []
    assert (await finished(upload)).status == 200
    await answered(w, hold_id)
    refreshed(w)
    over(w, hold_id)
    assert {(await call).status for call in later} == {200}
    tokens = [got.all(b"authorization") for got in w.provider.got]
    assert tokens == [[old], *[[w.token()]] * 5]
    assert await w.gauge("leases_held") == 0


async def test_a_download_is_let_end(w: World) -> None:
    """Its answer has begun; the hold is answered after its last byte."""
    begun, rest = asyncio.Event(), asyncio.Event()

    async def slow(_: Got, writer: asyncio.StreamWriter) -> bytes:
        writer.write(ANSWER + b"ha")
        begun.set()
        await rest.wait()
        return b"lf"

    w.provider.replies = [slow]
    call = asyncio.create_task(w.ask())
    await begun.wait()
    hold_id = hold(w)
    await w.shows("leases_held 1")
    assert w.server.yielded == []
    rest.set()
    assert (await call).body == b"half"
    await answered(w, hold_id)


async def test_who_has_nothing_under_way_answers_at_once(w: World) -> None:
    """Without the lease, with another generation of it, with another tenant's of that name, and with one that is idle."""
    first = hold(w)
    await answered(w, first)
    refreshed(w)
    assert (await w.ask()).status == 200
    ids = [first]
    for other in ({"generation": 1}, {"generation": 2, "uid": "uid-before"}, {"generation": 2}):
        ids.append(hold(w, **other))
        await answered(w, *ids)


async def test_a_hold_is_of_one_generation_of_one_tenant(w: World) -> None:
    """Calls with other material begin as ever, with what is held."""
    w.connect(generation=2)
    assert (await w.ask()).status == 200
    before = len(w.server.asked)
    for other in ({"generation": 1}, {"generation": 3}, {"generation": 2, "uid": "uid-before"}):
        hold(w, **other)
        await w.until(lambda: bool(w.server.yielded))
        w.server.yielded.clear()
        assert (await w.ask()).status == 200
    assert len(w.server.asked) == before


async def test_a_refresh_that_failed_lets_them_go_on(w: World) -> None:
    """The hold is over: the sidecar asks, and it is the same generation still, and good. Another change ends no hold."""
    assert (await w.ask()).status == 200
    hold_id = hold(w)
    await w.shows("leases_held 1")
    waiting = asyncio.create_task(w.ask())
    await asked(w, 2)
    changed = pb.CredentialChanged(tenant="acme", credential="notes")
    for event in ({"credential_changed": changed}, {"resync": pb.Resync()}):
        w.server.tell(pb.WatchLeasesResponse(**event))
    over(w, "of an earlier one")
    await w.told()
    assert await w.gauge("leases_held") == 1
    assert not waiting.done()
    over(w, hold_id)
    assert (await waiting).status == 200


async def test_a_hold_that_nobody_ends_ends_by_itself(w: World) -> None:
    """The event that would end it never came; and a call that outlasts it is not answered for."""
    upload = await slow_upload(w)
    hold(w, ttl=0.2)
    await w.told()  # else the upload could end before the hold began, and rightly be answered for
    assert (await w.ask()).status == 200
    assert (await finished(upload)).status == 200
    assert w.server.yielded == []
    later = hold(w)
    await answered(w, later)


async def test_a_watch_that_breaks_ends_what_was_held(w: World) -> None:
    """Its end can't be heard: the server makes those wait that lease meanwhile."""
    assert (await w.ask()).status == 200
    hold(w)
    await w.shows("leases_held 1")
    waiting = asyncio.create_task(w.ask())
    await asked(w, 2)
    w.server.tell(None)
    assert (await waiting).status == 200
    assert await w.gauge("leases_held") == 0


async def test_a_call_that_is_being_cured_does_not_wait_for_itself(w: World) -> None:
    """Its 401 is what the refresh is for: the hold that comes of it is answered at once, and then the call is cured."""
    aged(w.connect(), 60)
    assert (await w.ask()).status == 200
    w.server.gate.clear()
    w.server.refresh = lambda _: refreshed(w)
    w.provider.replies = [b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"]
    call = asyncio.create_task(w.ask())
    await asked(w, 2)
    await answered(w, hold(w))
    w.server.gate.set()
    assert (await call).status == 200


async def test_what_has_no_end_of_its_own_is_not_waited_for(w: World) -> None:
    """A WebSocket, and a stream of events: both go on over the refresh."""
    open_ended = asyncio.Event()

    async def forever(_: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS)
        await open_ended.wait()

    w.provider.replies = [forever, GRANT]
    events, socket = await w.app(), await w.app()
    await events.send(w.request())
    await events.reader.readuntil(b"data: 1\n\n")
    await socket.send(w.request(lines=ASK))
    assert b" 101 " in await socket.reader.readuntil(b"\r\n\r\n")
    hold_id = hold(w)
    await answered(w, hold_id)
    open_ended.set()


async def test_an_answer_is_given_a_few_times_and_then_no_more(w: World) -> None:
    """A balancer may bring it to a replica that does not know it. What is refused for good ends nothing."""
    w.server.yield_errors = ["PERMISSION_DENIED", "VAULT_UNAVAILABLE"]
    first = hold(w)
    await answered(w, first, first, first)
    refreshed(w)
    w.server.yielded.clear()
    w.server.yield_errors = ["PERMISSION_DENIED"] * (TRIES + 1)
    second = hold(w, generation=2)
    await answered(w, *[second] * TRIES)
    third = hold(w, generation=2, credential="other")
    await answered(w, *[second] * TRIES, *[third] * 2)


def test_holds_are_bounded_and_the_old_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the bound none begins, so that the server is not answered; what is over counts no more; a length is capped."""
    monkeypatch.setattr(holds, "MOST", 2)
    now = 0.0
    table = Holds(lambda: now)

    def begin(name: str, seconds: int = 5) -> holds.Hold | None:
        held = pb.CredentialHeld(tenant="acme", tenant_uid="u", credential=name, generation=1)
        held.ttl.seconds = seconds
        return table.hear(held)

    first, second = begin("a"), begin("b", 10_000)
    assert first is not None
    assert second is not None
    assert begin("c") is None
    assert second.until == holds.LONGEST
    again = begin("a")
    assert again is not None
    assert first.over.is_set()
    now = 6.0
    assert begin("c") is not None
    assert again.over.is_set()
    assert len(table) == 2
