"""Refreshing over real parts, by a clock that is moved: on the way, once, rotated for ever, and never in vain."""

from __future__ import annotations

from tests.worlds import State, World


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
