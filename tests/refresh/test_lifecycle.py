"""The table of a credential's life, and when tokens are renewed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.domain.records import Credential, CredentialState
from connectors_grpc.lifecycle import (
    NEXT,
    Event,
    IllegalMove,
    next_state,
    refresh_due,
    renew_at,
    usable,
)
from tests.refresh.records import NOTION

S, E = CredentialState, Event
T0 = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIMES = st.floats(1, 400 * 86_400).map(lambda seconds: timedelta(seconds=seconds))
JITTERS = st.floats(0, 1, exclude_max=True)

LEGAL = {
    S.PENDING: {E.GRANTED: S.ACTIVE, E.REVOKED: S.REVOKED},
    S.ACTIVE: {
        E.GRANTED: S.ACTIVE,
        E.REFRESHED: S.ACTIVE,
        E.REFUSED: S.NEEDS_REAUTH,
        E.ENDED: S.EXPIRED,
        E.REVOKED: S.REVOKED,
    },
    S.NEEDS_REAUTH: {E.GRANTED: S.ACTIVE, E.REFRESHED: S.ACTIVE, E.REVOKED: S.REVOKED},
    S.EXPIRED: {E.GRANTED: S.ACTIVE, E.REVOKED: S.REVOKED},
    S.REVOKED: {E.GRANTED: S.ACTIVE, E.REVOKED: S.REVOKED},
}


def credential(lifetime: timedelta | None, **changes: object) -> Credential:
    """An active OAuth credential issued at T0."""
    end = None if lifetime is None else T0 + lifetime
    one = replace(NOTION, create_time=T0, update_time=T0, issue_time=T0, expire_time=end)
    return replace(one, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("state", "event"), list(product(S, E)), ids=lambda value: value.value)
def test_every_pair_of_state_and_event_is_legal_or_illegal_as_listed(state: CredentialState, event: Event) -> None:
    """The table, written a second time by hand: a change of one must be a change of both."""
    if event in LEGAL[state]:
        assert next_state(state, event) is LEGAL[state][event]
    else:
        with pytest.raises(IllegalMove):
            next_state(state, event)


@given(st.lists(st.sampled_from(Event)))
def test_the_table_is_never_left(events: list[Event]) -> None:
    """Whatever befalls a credential, it is in a known state, and never PENDING again."""
    state = S.PENDING
    for event in events:
        try:
            state = next_state(state, event)
        except IllegalMove:
            continue
        assert state in S
        assert state is not S.PENDING


def test_every_state_can_be_reached_and_can_be_revoked() -> None:
    """No state is a trap: a person can always end a credential, or connect again."""
    assert set(NEXT.values()) | {S.PENDING} == set(S)
    assert all((state, event) in NEXT for state in S for event in (E.REVOKED, E.GRANTED))


@given(LIFETIMES, JITTERS)
def test_a_refresh_is_due_before_the_end_and_never_before_the_margin(lifetime: timedelta, jitter: float) -> None:
    """min(5 min, 20 %) is the earliest; three quarters of it is the latest."""
    at = renew_at(credential(lifetime), jitter)
    margin = min(timedelta(minutes=5), lifetime * 0.2)
    tick = timedelta(microseconds=2)
    assert at is not None
    assert T0 + lifetime - margin - tick <= at <= T0 + lifetime - margin * 0.75 + tick


@pytest.mark.parametrize(("seconds", "left"), [(3, 0.6), (60, 12), (1500, 300), (3600, 300), (7_776_000, 300)])
def test_the_margin_suits_the_lifetime(seconds: float, left: float) -> None:
    """Five minutes for tokens of 25 minutes and more, a fifth below; a token of 3 s works."""
    one = credential(timedelta(seconds=seconds))
    due = T0 + timedelta(seconds=seconds - left)
    assert not refresh_due(one, due - timedelta(milliseconds=1), 0.0)
    assert refresh_due(one, due, 0.0)


def test_a_token_is_usable_while_it_lives_for_as_long_as_was_asked_for() -> None:
    """To the last moment of that."""
    one = credential(timedelta(seconds=3))
    assert usable(one, T0 + timedelta(seconds=2.7), timedelta(seconds=0.3))
    assert not usable(one, T0 + timedelta(seconds=2.8), timedelta(seconds=0.3))


def test_where_a_refresh_kills_the_old_token_it_comes_late() -> None:
    """Calls in flight would die with it."""
    one = credential(timedelta(hours=2))
    assert renew_at(one, 0.0, ends_access_token=True) == T0 + timedelta(hours=2) - timedelta(seconds=10)


def test_an_idle_credential_is_kept_alive_inside_the_refresh_tokens_idle_life() -> None:
    """A token without end still has a refresh token that dies of idleness."""
    assert renew_at(credential(None), 0.0) is None
    assert renew_at(credential(None), 0.0, idle_ttl=timedelta(days=60)) == T0 + timedelta(days=48)
    later = credential(None, refresh_time=T0 + timedelta(days=40))
    assert renew_at(later, 0.0, idle_ttl=timedelta(days=60)) == T0 + timedelta(days=88)


@pytest.mark.parametrize(
    "changes",
    [{"refreshable": False}, {"enabled": False}, {"state": S.NEEDS_REAUTH}, {"state": S.REVOKED}],
    ids=str,
)
def test_what_cannot_or_may_not_be_refreshed_is_never_due(changes: dict[str, object]) -> None:
    """Nothing to refresh with, switched off, or no longer active."""
    assert not refresh_due(credential(timedelta(hours=1), **changes), T0 + timedelta(days=1), 0.5)


@given(LIFETIMES, st.floats(-10, 500 * 86_400), st.floats(0, 600))
def test_usable_means_that_the_time_asked_for_is_left(lifetime: timedelta, after: float, ttl: float) -> None:
    """Never at or after the end, whatever was asked for."""
    now = T0 + timedelta(seconds=after)
    answer = usable(credential(lifetime), now, timedelta(seconds=ttl))
    left = T0 + lifetime - now
    assert answer == (left > timedelta(0) and left >= timedelta(seconds=ttl))


def test_a_material_without_end_is_usable_while_active_and_enabled() -> None:
    """API keys, and tokens of providers that never end them."""
    forever = timedelta(days=36_500)
    assert usable(credential(None), T0 + forever, forever)
    assert not usable(credential(None, enabled=False), T0, timedelta(0))
    assert not usable(credential(None, state=S.NEEDS_REAUTH), T0, timedelta(0))


def test_a_clock_that_ran_backwards_makes_a_refresh_due_not_an_error() -> None:
    """An end before the issue is a lifetime of zero."""
    odd = credential(timedelta(seconds=-5))
    assert refresh_due(odd, T0, 0.9)
