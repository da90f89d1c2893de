"""What a provider can do wrong while a token is refreshed, each with its typed error and the state it leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from connectors_grpc.oauth2 import token_request
from connectors_grpc.simulator.misbehaviour import Misbehaviour
from connectors_grpc.simulator.settings import RotatingAtOnce, RotatingWithGrace, Static
from tests.running import Refused, refused
from tests.worlds import Canary, State, World

M = Misbehaviour
PASSING = [
    M.ERROR_IN_200,
    M.SLOW_DOWN,
    M.RATE_LIMITED,
    M.UNAVAILABLE,
    M.REDIRECT,
    M.HUGE_BODY,
    M.ECHO_SECRET,
    M.HALF_REPLY,
    M.GARBAGE_JSON,
    M.NOT_AN_OBJECT,
    M.UNAUTHORIZED,
    M.HANG,
]
STILL_GOOD = [M.WRONG_CONTENT_TYPE, M.EXPIRES_IN_STRING, M.EXPIRES_IN_NEGATIVE, M.EXPIRES_IN_MISSING]


@contextlib.contextmanager
def met(world: World, what: Misbehaviour) -> Iterator[None]:
    """In the block the provider does that once. If it hangs it is given up sooner than in production; no other answer is."""
    world.next(what)
    with pytest.MonkeyPatch.context() as patch:
        if what in (M.HANG, M.HANG_AFTER_ACTING):
            patch.setattr(token_request, "TIMEOUT", 2.0)
        yield


@pytest.mark.parametrize("what", PASSING, ids=lambda what: what.value)
async def test_a_passing_failure_keeps_the_token_that_still_lives(world: World, what: Misbehaviour) -> None:
    """The call goes out with the old token; the credential stays ACTIVE."""
    world.change_client(rotation=Static())
    await world.connect()
    world.near_expiry()
    with met(world, what):
        assert await world.whoami() == 200
    credential = await world.credential()
    assert (credential.state, credential.generation) == (State.STATE_ACTIVE, 1)
    assert len(world.asked()) == 1


@pytest.mark.parametrize("what", PASSING, ids=lambda what: what.value)
async def test_a_passing_failure_is_unavailable_once_the_token_has_ended(world: World, what: Misbehaviour) -> None:
    """UNAVAILABLE, not a reconnect; the next refresh is good again."""
    world.change_client(rotation=Static())
    await world.connect()
    world.expire()
    with met(world, what), refused("PROVIDER_UNAVAILABLE"):
        await world.whoami()
    assert (await world.credential()).state == State.STATE_ACTIVE
    assert (await world.refresh()).generation == 2
    assert await world.whoami() == 200


@pytest.mark.parametrize("what", STILL_GOOD, ids=lambda what: what.value)
async def test_an_odd_reply_with_good_tokens_is_taken(world: World, what: Misbehaviour) -> None:
    """A rotated token is never thrown away for an odd `expires_in` or content type."""
    await world.connect()
    world.near_expiry()
    world.next(what)
    assert await world.whoami() == 200
    assert (await world.credential()).generation == 2
    assert (await world.refresh()).generation == 3


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_invalid_grant_ends_the_credential_whatever_the_status(world: World, status: int) -> None:
    """NEEDS_REAUTH, naming what to call; the provider is not asked again; a reconnect restores."""
    await world.connect()
    world.expire()
    world.next(M(f"invalid_grant_{status}"))
    with refused("NEEDS_REAUTH", tenant=world.tenant, credential=world.integration) as _:
        await world.whoami()
    credential = await world.credential()
    assert credential.state == State.STATE_NEEDS_REAUTH
    assert "StartAuthorization" in credential.next_step
    for _ in range(3):
        with refused("NEEDS_REAUTH", connect_rpc="connectors.v1.CredentialService/StartAuthorization"):
            await world.whoami()
    assert len(world.asked()) == 1
    assert (await world.connect()).status_code == 200
    assert await world.whoami() == 200


async def test_a_refresh_token_that_is_not_sent_again_stays(world: World) -> None:
    """Static providers leave it out of the reply; the old one goes on."""
    world.change_client(rotation=Static(), omit_refresh_token_on_refresh=True)
    await world.connect()
    for generation in range(2, 5):
        world.near_expiry()
        assert await world.whoami() == 200
        assert (await world.credential()).generation == generation
    assert len({seen.fields["refresh_token"] for seen in world.asked()}) == 1


async def test_a_refused_client_is_the_admins_to_correct(world: World) -> None:
    """OAUTH_CLIENT_REFUSED; the grant is not ended by it, and works once the secret is right."""
    await world.connect()
    right = world.sim.clients[world.client_id].client_secret
    world.change_client(client_secret="another")
    world.near_expiry()
    assert await world.whoami() == 200, "the old token lives"
    world.expire(61)
    with refused("OAUTH_CLIENT_REFUSED"):
        await world.whoami()
    assert (await world.credential()).state == State.STATE_ACTIVE
    world.change_client(client_secret=right)
    assert (await world.refresh()).generation == 2
    assert await world.whoami() == 200


@pytest.mark.parametrize("what", [M.HANG_AFTER_ACTING, M.HALF_REPLY, M.UNAVAILABLE_AFTER_ACTING], ids=lambda w: w.value)
async def test_an_answer_that_was_lost_costs_nothing_within_the_grace(world: World, what: Misbehaviour) -> None:
    """Rotated, and the answer did not arrive: with grace the old refresh token is sent again."""
    world.change_client(rotation=RotatingWithGrace(grace=600))
    await world.connect()
    world.near_expiry()
    with met(world, what):
        assert await world.whoami() == 200
    assert (await world.refresh()).generation == 2
    assert await world.whoami() == 200


async def test_an_answer_that_was_lost_without_grace_needs_a_person(world: World) -> None:
    """Rotating at once: nobody has the new token, so the person is asked. Never a loop."""
    world.change_client(rotation=RotatingAtOnce())
    await world.connect()
    world.expire()
    with met(world, M.HANG_AFTER_ACTING), refused("PROVIDER_UNAVAILABLE"):
        await world.whoami()
    with refused("NEEDS_REAUTH"):
        await world.refresh()
    with refused("NEEDS_REAUTH"):
        await world.whoami()
    assert len(world.asked()) == 2


async def test_a_provider_that_is_down_is_not_asked_by_every_call(world: World) -> None:
    """Back-off: while it lasts, calls are answered without a token request, with the old token or the same reason."""
    world.change_client(rotation=Static())
    await world.connect()
    world.near_expiry()
    world.next(M.UNAVAILABLE, M.UNAVAILABLE)
    with world.clock.still():
        for _ in range(5):
            assert await world.whoami() == 200
        assert len(world.asked()) == 1
        world.expire(61)
        with refused("PROVIDER_UNAVAILABLE"):
            await world.whoami()
        assert len(world.asked()) == 2
    world.pass_time(120)
    assert await world.whoami() == 200


async def test_retry_after_is_kept_and_told(world: World) -> None:
    """429 with Retry-After: the caller is told how long, and the provider is left alone for so long."""
    await world.connect()
    world.expire()
    world.next(M.RATE_LIMITED)
    with world.clock.still():
        for _ in range(2):
            with pytest.raises(Refused) as caught:
                await world.whoami()
            assert (caught.value.reason, caught.value.retry_after) == ("PROVIDER_UNAVAILABLE", 7)
        assert len(world.asked()) == 1
        world.pass_time(7)
        assert await world.whoami() == 200


async def test_a_secret_that_the_provider_echoes_is_seen_nowhere(world: World, canary: Canary) -> None:
    """Attack 25: `error_description` quotes the client secret; no status, log or output has it."""
    await world.connect()
    world.expire()
    world.next(M.ECHO_SECRET)
    with pytest.raises(Refused) as caught:
        await world.whoami()
    canary.heard(f"{caught.value} {caught.value.text}")
    canary.heard(await world.credential())
    sent = [seen.fields["refresh_token"] for seen in world.asked()]
    assert canary.find(*world.secrets, *sent) == []
