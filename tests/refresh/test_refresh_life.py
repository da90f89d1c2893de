"""Refreshing over real parts, by a clock that is moved: on the way, once, rotated for ever, and never in vain."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta

import httpx2
import pytest

from connectors_grpc.credentials import insisting
from connectors_grpc.credentials.backoff import Backoff
from connectors_grpc.credentials.insisting import insist
from connectors_grpc.domain.ids import CredentialId, TenantId
from connectors_grpc.errors import Conflict, ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.flight import SingleFlight
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as definitions
from connectors_grpc.memory import MemoryDocuments, Outage
from connectors_grpc.simulator.misbehaviour import Endpoint, Misbehaviour, Queued
from connectors_grpc.vault import VaultDocuments, VaultSettings, connect
from tests.providers import recording_upstream
from tests.running import refused
from tests.worlds import LIFETIME, ShiftedClock, State, World, until


async def test_a_token_near_its_end_is_refreshed_on_the_way(world: World) -> None:
    """Nobody asks for it: the next call finds a new token."""
    page = await world.connect()
    assert page.status_code == 200, page.text
    assert "Connected" in page.text
    assert await world.whoami() == 200
    assert world.asked() == []
    world.near_expiry()
    assert await world.whoami() == 200
    assert len(world.asked()) == 1
    credential = await world.credential()
    assert (credential.state, credential.generation) == (State.STATE_ACTIVE, 2)


async def test_one_flight_carries_all_who_ask_and_ends_though_they_leave() -> None:
    """SingleFlight by itself: one start, one answer; a passenger's leaving changes nothing; the next is a new flight."""
    started, gate = 0, asyncio.Event()

    async def work() -> int:
        nonlocal started
        started += 1
        await gate.wait()
        return started

    async with SingleFlight[str, int]() as flights:
        passengers = [asyncio.create_task(flights.run("a", work)) for _ in range(50)]
        other = asyncio.create_task(flights.run("b", work))
        await asyncio.sleep(0)
        passengers[0].cancel()
        gate.set()
        results = await asyncio.gather(*passengers[1:])
        assert len(set(results)) == 1
        assert started == 2
        await other
        assert passengers[0].cancelled()
        assert await flights.run("a", work) == 3


async def test_a_flight_that_fails_fails_for_all_and_is_not_kept() -> None:
    """Each passenger gets the error; nobody's asyncio complains of an exception that was never retrieved."""

    async def work() -> int:
        await asyncio.sleep(0)
        raise ValueError

    async with SingleFlight[str, int]() as flights:
        results = await asyncio.gather(*(flights.run("a", work) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [ValueError] * 5
        with pytest.raises(ValueError):
            await flights.run("a", work)


async def test_leaving_waits_for_flights_within_bounds() -> None:
    """What is under way is finished; what never ends is cut."""
    done: list[str] = []

    async def short() -> None:
        await asyncio.sleep(0)
        done.append("short")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            done.append("cut")

    async with SingleFlight[str, None](drain=0.2) as flights:
        waiters = [asyncio.create_task(flights.run("a", short)), asyncio.create_task(flights.run("b", endless))]
        await asyncio.sleep(0)
    await asyncio.gather(*waiters, return_exceptions=True)
    assert done == ["short", "cut"]


async def test_a_flight_that_is_cut_is_not_its_passengers_own_cancellation() -> None:
    """A passenger that nobody cancelled gets an error, so that it is never taken for one that left."""

    async def endless() -> None:
        await asyncio.Event().wait()

    async with SingleFlight[str, None](drain=0.01) as flights:
        waiter = asyncio.create_task(flights.run("a", endless))
        await asyncio.sleep(0)
    (result,) = await asyncio.gather(waiter, return_exceptions=True)
    assert isinstance(result, ConnectorsError)
    assert result.reason is Reason.SERVER_UNAVAILABLE


async def test_rotation_survives_many_refreshes(world: World) -> None:
    """Twenty in a row: each refresh token is used once, and each answer is the next one's parent."""
    await world.connect()
    for generation in range(2, 22):
        world.near_expiry()
        assert await world.whoami() == 200
        assert (await world.credential()).generation == generation
    used = [seen.fields["refresh_token"] for seen in world.asked()]
    assert len(set(used)) == len(used) == 20


async def test_a_401_from_upstream_is_answered_by_one_refresh(world: World) -> None:
    """Attack 33: one refresh a generation, none for a young token; an endpoint that always says 401 drives nothing."""
    await world.connect()
    for _ in range(5):
        world.sim.next_replies.append(Queued(Misbehaviour.UNAUTHORIZED, world.client_id, Endpoint.API))
        assert await world.whoami() == 401
    assert world.asked() == [], "the token is younger than 30 s"
    world.pass_time(31)
    world.sim.next_replies.append(Queued(Misbehaviour.UNAUTHORIZED, world.client_id, Endpoint.API))
    assert await world.whoami() == 200
    assert len(world.asked()) == 1
    for _ in range(5):
        world.sim.next_replies.append(Queued(Misbehaviour.UNAUTHORIZED, world.client_id, Endpoint.API))
        assert await world.whoami() == 401
    assert len(world.asked()) == 1


async def test_a_token_that_never_ends_is_never_refreshed(world: World) -> None:
    """No `expires_in`, and no default in the definition: the token is used as it is."""
    world.change_client(access_lifetime=None)
    await world.connect()
    world.pass_time(90 * 86400)
    assert await world.whoami() == 200
    assert world.asked() == []
    assert not (await world.credential()).HasField("expire_time")


async def test_a_token_without_a_refresh_token_ends(world: World) -> None:
    """Used to its end, then CREDENTIAL_EXPIRED; asking for a refresh says the same."""
    world.change_client(issue_refresh_token=False)
    await world.connect()
    world.near_expiry()
    assert await world.whoami() == 200
    with refused("CREDENTIAL_EXPIRED"):
        await world.refresh()
    world.expire(61)
    with refused("CREDENTIAL_EXPIRED", credential=world.integration):
        await world.whoami()


async def test_a_token_reader_gets_a_token_that_lives(world: World) -> None:
    """FetchAccessToken: the token, its type and end; near its end, a fresh one."""
    await world.connect()
    first = await world.token()
    assert first.token_type == "Bearer"
    assert first.expire_time.ToDatetime(UTC) > world.clock.now()
    assert set(first.scopes) == {"notes.read", "notes.write", "offline_access"}
    async with httpx2.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {first.access_token}"}
        assert (await http.get(f"{world.sim.url}/v1/whoami", headers=headers)).status_code == 200
    world.pass_time(LIFETIME - 10)
    second = await world.token()
    assert second.access_token != first.access_token
    assert second.expire_time.ToDatetime(UTC) > world.clock.now() + timedelta(seconds=30)


def failure(retry_after: float | None = None) -> ConnectorsError:
    """A provider that is down."""
    return ConnectorsError(Reason.PROVIDER_UNAVAILABLE, {"problem": "status_503"}, retry_after=retry_after)


def pause_of(backoff: Backoff[str], key: str) -> float:
    """What is left of a pause; 0 if it is over."""
    try:
        backoff.check(key)
    except ConnectorsError as error:
        return error.retry_after or 0.0
    return 0.0


def test_pauses_double_to_a_bound_and_end_with_success() -> None:
    """2, 4, 8 seconds and so on to 60, each a quarter more or less; then none."""
    backoff: Backoff[str] = Backoff(ShiftedClock())
    for times in range(30):
        backoff.failed("a", failure())
        expected = min(60.0, 2.0 ** (times + 1))
        assert 0.74 * expected < pause_of(backoff, "a") <= 1.25 * expected
    assert pause_of(backoff, "b") == 0
    backoff.succeeded("a")
    assert pause_of(backoff, "a") == 0


def test_the_providers_own_word_counts_where_it_is_longer() -> None:
    """Retry-After: 300 is kept; 0 is not believed."""
    clock = ShiftedClock()
    backoff: Backoff[str] = Backoff(clock)
    backoff.failed("a", failure(300))
    backoff.failed("b", failure(0))
    assert pause_of(backoff, "a") > 290
    assert pause_of(backoff, "b") > 1
    clock.advance(301)
    assert pause_of(backoff, "a") == pause_of(backoff, "b") == 0


def test_failures_are_remembered_within_bounds() -> None:
    """The oldest are forgotten first."""
    backoff: Backoff[str] = Backoff(ShiftedClock(), most=3)
    for key in "abcd":
        backoff.failed(key, failure())
    assert pause_of(backoff, "a") == 0
    assert pause_of(backoff, "d") > 0


async def test_insisting_ends_with_what_was_stored_or_with_the_last_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Vault that is away is asked again, so often and no more; any other refusal is passed on at once."""
    monkeypatch.setattr(insisting, "FIRST_PAUSE", 0.0)
    outage, documents = Outage(), MemoryDocuments()
    tries = 0

    async def store() -> int:
        nonlocal tries
        tries += 1
        outage.down = tries < 5
        outage.check()
        return await documents.write("tenants/acme", {}, cas=0)

    assert await insist(store, TenantId("acme"), CredentialId("notes")) == 1
    assert tries == 5
    with pytest.raises(Conflict):
        await insist(store, TenantId("acme"), CredentialId("notes"))
    assert tries == 6

    async def never() -> int:
        nonlocal tries
        tries += 1
        raise VaultUnavailable

    tries = 0
    with pytest.raises(VaultUnavailable):
        await insist(never, TenantId("acme"), CredentialId("notes"))
    assert tries == insisting.ATTEMPTS


async def test_a_refresh_that_kills_the_old_token_lets_calls_under_way_end_first(
    world: World, timed_vault: VaultSettings
) -> None:
    """The upstream answers late; the refresh is not sent before it has (rotation classes, refresh_ends_access_token)."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> bytes:
        arrived.set()
        await release.wait()
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    async with recording_upstream(slow) as upstream:
        current = await world.admin.call(
            "GetIntegration", definitions.GetIntegrationRequest(integration=world.integration)
        )
        oauth = current.integration.oauth
        oauth.refresh_ends_access_token = True
        wanted = definitions.Integration(id=world.integration, oauth=oauth, api=definitions.Api(base_url=upstream.url))
        await world.admin.call("UpdateIntegration", definitions.UpdateIntegrationRequest(integration=wanted))
        await world.connect()
        call = asyncio.create_task(world.whoami())
        await arrived.wait()
        refresh = asyncio.create_task(world.refresh())
        await until(lambda: held_back(world, timed_vault))
        assert not world.asked()
        release.set()
        assert await call == 200
        assert (await refresh).generation == 2
    assert len(world.asked()) == 1


async def held_back(world: World, vault: VaultSettings) -> bool:
    """Whether the refresh has its turn, so that all it can wait for is the call."""
    async with connect(vault) as client:
        document = await VaultDocuments(client, mount="connectors").read(f"refresh/{world.tenant}.{world.integration}")
    return document is not None and bool(document.data.get("owner"))
