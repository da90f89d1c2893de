"""The cache of leases, through the sidecar and a real gRPC server: once however many wait, and no longer than allowed."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from sidecar.leases import DENIAL_TTL, TRY_AGAIN, _bound
from sidecar.server import pause
from tests.sidecar.harness import Clock, Got, Key, World, world

TTL = 300.0
"""Seconds for which the world's leases and grants are good."""


def changed(**event: object) -> pb.WatchLeasesResponse:
    """An event of the watch."""
    return pb.WatchLeasesResponse(**event)  # type: ignore[arg-type]


async def test_50_first_calls_at_once_ask_the_server_once(w: World) -> None:
    """Single flight, and every caller gets its answer."""
    w.server.gate.clear()
    calls = [asyncio.create_task(w.ask()) for _ in range(50)]
    await w.until(lambda: len(w.server.asked) == 1)
    w.server.gate.set()
    assert {(await call).status for call in calls} == {200}
    assert len(w.server.asked) == 1


async def test_a_caller_who_leaves_does_not_take_the_lease_from_the_rest(w: World) -> None:
    """The fill belongs to the cache."""
    w.server.gate.clear()
    app = await w.app()
    await app.send(w.request())
    await w.until(lambda: len(w.server.asked) == 1)
    other = asyncio.create_task(w.ask())
    app.close()
    w.server.gate.set()
    assert (await other).status == 200
    assert len(w.server.asked) == 1


async def test_two_tenants_with_50_calls_each_never_cross(w: World) -> None:
    """Tenant in the path, tenant in the header, on shared connections of both sides."""
    w.connect("globex")

    async def tell(got: Got, writer: asyncio.StreamWriter) -> bytes:
        token = got.all(b"authorization")[0]
        body = token + b" " + got.line.split()[1]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    w.provider.reply = tell
    apps = [await w.app() for _ in range(10)]

    async def ten(number: int) -> None:
        for turn in range(10):
            tenant = ("acme", "globex")[(number + turn) % 2]
            if turn % 3:
                request = w.request(f"/~{tenant}/notes/{number}/{turn}")
            else:
                request = w.request(f"/notes/{number}/{turn}", b"X-Tenant-Id: %b\r\n" % tenant.encode())
            answer = await apps[number].ask(request)
            assert answer.body == w.token(tenant) + f" /{number}/{turn}".encode()

    await asyncio.gather(*(ten(number) for number in range(10)))
    assert len(w.provider.got) == 100


async def test_a_lease_had_with_one_key_proves_nothing_for_another(w: World) -> None:
    """Each key is asked about; its scope is kept."""
    assert (await w.ask()).status == 200
    other = Key.of("app-2")
    assert (await w.ask(lines=other.bearer)).reason == "API_KEY_INVALID"
    narrow = Key.of("app-3")
    w.server.allow(narrow, ["globex"], ["*"])
    assert (await w.ask(lines=narrow.bearer)).reason == "PERMISSION_DENIED"
    good = Key.of("app-4")
    w.server.allow(good, ["acme"], ["notes"])
    assert (await w.ask(lines=good.bearer)).status == 200
    before = len(w.server.asked)
    assert (await w.ask("/~globex/notes/v1", good.bearer)).reason == "PERMISSION_DENIED"
    assert (await w.ask("/~acme/other/v1", good.bearer)).reason == "PERMISSION_DENIED"
    assert len(w.server.asked) == before


async def test_a_key_bound_to_one_tenant_needs_no_tenant(w: World) -> None:
    """One of two tenants does not; and neither varies."""
    assert (await w.ask()).status == 200
    assert (await w.ask("/notes/v1")).status == 400
    bound = Key.of("app-2")
    w.server.allow(bound, ["acme"], ["*"])
    for _ in range(2):
        answer = await w.ask("/notes/v1", bound.bearer)
        assert (answer.status, answer.all(b"vary")) == (200, [b"X-Tenant-Id"])
    assert w.provider.got[-1].all(b"authorization") == [w.token()]


async def test_the_key_may_stand_where_an_sdk_puts_its_token(w: World) -> None:
    """Bearer, token, Basic as user or password, X-Api-Key; and X-Connectors-Key wins."""
    key = w.key.text.encode()
    for lines in (
        w.key.bearer,
        b"Authorization: token " + key + b"\r\n",
        b"authorization: " + key + b"\r\n",
        w.key.basic(),
        w.key.basic("user@example.com"),
        b"X-Api-Key: " + key + b"\r\n",
        b"X-Connectors-Key: " + key + b"\r\nAuthorization: Bearer ghp_theirs\r\nX-Api-Key: cnk_other\r\n",
        b"X-Api-Key: dummy\r\n" + w.key.bearer,
    ):
        assert (await w.ask(lines=lines)).status == 200
        assert w.provider.got[-1].all(b"authorization") == [w.token()]
    two = w.key.bearer + b"X-Api-Key: " + Key.of("app-2").text.encode() + b"\r\n"
    assert (await w.ask(lines=two)).reason == "API_KEY_INVALID"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (changed(tenant_changed=pb.TenantChanged(tenant="acme")), "CREDENTIAL_NOT_FOUND"),
        (changed(credential_changed=pb.CredentialChanged(tenant="acme", credential="notes")), "CREDENTIAL_NOT_FOUND"),
        (changed(resync=pb.Resync()), "CREDENTIAL_NOT_FOUND"),
    ],
)
async def test_what_changed_is_asked_about_before_its_next_use(
    w: World, event: pb.WatchLeasesResponse, reason: str
) -> None:
    """A credential that is gone is refused on the very next call."""
    assert (await w.ask()).status == 200
    del w.server.leases["acme", "notes"]
    w.connect("globex")
    assert (await w.ask()).status == 200
    w.server.tell(event)
    await w.told()
    assert (await w.ask()).reason == reason


async def test_a_revoked_key_is_refused_on_its_next_call(w: World) -> None:
    """The lease stays good for others."""
    assert (await w.ask()).status == 200
    del w.server.grants["app-1"]
    w.server.tell(changed(api_key_changed=pb.ApiKeyChanged(key_id="app-1")))
    await w.told()
    assert (await w.ask()).reason == "API_KEY_INVALID"
    assert (await w.ask()).reason == "API_KEY_INVALID"


async def test_a_refusal_is_remembered_for_a_moment_only() -> None:
    """A storm of bad calls is one question; a credential that is connected then works once the moment is over."""
    clock = Clock()
    async with world(clock=clock) as w:
        for _ in range(20):
            assert (await w.ask("/~acme/later/v1")).reason == "CREDENTIAL_NOT_FOUND"
        assert len(w.server.asked) == 1
        w.connect("acme", "later")
        assert (await w.ask("/~acme/later/v1")).reason == "CREDENTIAL_NOT_FOUND"
        clock.advance(DENIAL_TTL)
        assert (await w.ask("/~acme/later/v1")).status == 200


async def test_a_lease_is_renewed_in_the_background_when_its_time_comes() -> None:
    """The call that finds it old is served at once, though the server has not answered; once it has, nobody asks again."""
    clock = Clock()
    async with world(clock=clock) as w:
        assert (await w.ask()).status == 200
        clock.advance(TTL)
        w.server.gate.clear()
        for _ in range(3):
            assert (await w.ask()).status == 200
        await w.until(lambda: len(w.server.asked) > 1)
        w.server.gate.set()
        await w.shows('lease_answers_total{result="granted"} 2')
        assert (await w.ask()).status == 200
        assert len(w.server.asked) == 2


async def test_without_a_watch_a_lease_is_confirmed_when_its_time_is_over() -> None:
    """UNIMPLEMENTED is tolerated; then refresh_after_ttl alone bounds what is believed."""
    clock = Clock()
    async with world(watched=False, clock=clock) as w:
        w.server.leases["acme", "notes"].refresh_after_ttl.seconds = 1
        assert (await w.ask()).status == 200
        del w.server.leases["acme", "notes"]
        assert (await w.ask()).status == 200
        clock.advance(1)
        assert (await w.ask()).reason == "CREDENTIAL_NOT_FOUND"


async def test_what_is_held_serves_while_the_server_is_down() -> None:
    """Even past refresh_after_ttl; what is not held is a 503 that says so."""
    clock = Clock()
    async with world(clock=clock) as w:
        assert (await w.ask()).status == 200
        await w.stop_server()
        for _ in range(3):
            clock.advance(TTL)
            assert (await w.ask()).status == 200
        answer = await w.ask("/~acme/other/v1")
        assert (answer.status, answer.reason, answer.all(b"retry-after")) == (503, "SERVER_UNAVAILABLE", [b"1"])
        assert (await w.ask("/-/readyz")).status == 200


async def test_what_is_held_ends_with_its_token_or_its_grace() -> None:
    """Whichever comes first; then 503."""
    clock = Clock()
    async with world(clock=clock) as w:
        for tenant in ("acme", "globex"):
            lease = w.connect(tenant)
            if tenant == "acme":
                lease.expire_time.GetCurrentTime()
                lease.expire_time.seconds += 4 * int(TTL)
            else:
                lease.grace_ttl.seconds = int(TTL)
            assert (await w.ask(f"/~{tenant}/notes/v1")).status == 200
        await w.stop_server()
        for passed, ended in ((0, ()), (TTL, ()), (TTL, ("globex",)), (2 * TTL, ("acme", "globex"))):
            clock.advance(passed)
            for tenant in ("acme", "globex"):
                clock.advance(TRY_AGAIN)
                answer = await w.ask(f"/~{tenant}/notes/v1")
                assert answer.reason == ("SERVER_UNAVAILABLE" if tenant in ended else ""), (tenant, passed)


async def test_a_denial_drops_what_is_held_at_once(w: World) -> None:
    """Grace is for silence, not for no."""
    assert (await w.ask()).status == 200
    w.server.errors = ["TENANT_SUSPENDED"]
    w.server.tell(changed(resync=pb.Resync()))
    await w.told()
    assert (await w.ask()).reason == "TENANT_SUSPENDED"
    await w.stop_server()
    assert (await w.ask()).reason in ("TENANT_SUSPENDED", "SERVER_UNAVAILABLE")


async def test_a_server_that_can_not_say_is_not_a_denial(w: World) -> None:
    """VAULT_UNAVAILABLE, INTERNAL: what is held goes on."""
    assert (await w.ask()).status == 200
    for error in ("VAULT_UNAVAILABLE", grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE):
        w.server.errors = [error]
        w.server.tell(changed(resync=pb.Resync()))
        await w.told()
        assert (await w.ask()).status == 200
    w.server.errors = ["VAULT_UNAVAILABLE"]
    assert (await w.ask("/~globex/notes/v1")).reason == "VAULT_UNAVAILABLE"


async def test_an_answer_about_somebody_else_is_not_used(w: World) -> None:
    """A server that mixes tenants up is not believed."""
    w.server.leases["acme", "notes"].tenant = "globex"
    assert (await w.ask()).reason == "INTERNAL"
    assert w.provider.got == []


async def test_the_cache_is_bounded(w: World) -> None:
    """The entry renewed longest ago goes first."""
    table = dict.fromkeys(range(10))
    _bound(table, 4)
    assert list(table) == [7, 8, 9]


def test_the_pause_between_watches_grows_and_is_capped() -> None:
    """With jitter, so that sidecars do not come back together."""
    assert pause(0, 0.0) == pytest.approx(0.1)
    assert pause(0, 1.0) == pytest.approx(0.3)
    assert pause(50, 1.0) == pytest.approx(15.1)
    assert pause(0, 0.0, 5.0) == pytest.approx(5.1)
    assert pause(0, 0.0, 1e9) == pytest.approx(15.1)
