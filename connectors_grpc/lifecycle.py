"""A credential's life as one table, and when its token is due to be renewed. Pure: no clock, no store, no provider.

REFRESHING is no state of the record: it is what a live refresh lease says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum

from connectors_grpc.domain.records import Credential, CredentialState

State = CredentialState


class Event(Enum):
    """What can befall a credential. An attempt that failed for now (429, 5xx, unreachable) is no event."""

    GRANTED = "granted"
    """Material was stored: a code exchanged, a key or tokens stored, a reconnect."""
    REFRESHED = "refreshed"
    """The provider gave a new access token for the refresh token."""
    REFUSED = "refused"
    """The provider refused for good (`invalid_grant`), and a re-read showed that nobody else had refreshed."""
    ENDED = "ended"
    """The access token ended, and nothing can renew it."""
    REVOKED = "revoked"
    """Revoked here; the material is purged."""


NEXT: Mapping[tuple[State, Event], State] = {
    (State.PENDING, Event.GRANTED): State.ACTIVE,
    (State.PENDING, Event.REVOKED): State.REVOKED,
    (State.ACTIVE, Event.GRANTED): State.ACTIVE,
    (State.ACTIVE, Event.REFRESHED): State.ACTIVE,
    (State.ACTIVE, Event.REFUSED): State.NEEDS_REAUTH,  # RFC 6749 section 5.2, invalid_grant
    (State.ACTIVE, Event.ENDED): State.EXPIRED,
    (State.ACTIVE, Event.REVOKED): State.REVOKED,
    (State.NEEDS_REAUTH, Event.GRANTED): State.ACTIVE,
    # Of two that raced with one refresh token, the loser's invalid_grant may be written before the winner's token, which
    # may be the only good one: it is never thrown away.
    (State.NEEDS_REAUTH, Event.REFRESHED): State.ACTIVE,
    (State.NEEDS_REAUTH, Event.REVOKED): State.REVOKED,
    (State.EXPIRED, Event.GRANTED): State.ACTIVE,
    (State.EXPIRED, Event.REVOKED): State.REVOKED,
    # Not by REFRESHED: a refresh that was in flight when somebody revoked must not bring the credential back.
    (State.REVOKED, Event.GRANTED): State.ACTIVE,
    (State.REVOKED, Event.REVOKED): State.REVOKED,
}
"""Every legal move. The diagram in the docs is drawn from this; a test lists every pair as legal or illegal."""


class IllegalMove(Exception):
    """The event can't befall a credential in this state: the writer acted on a record that has changed since."""


def next_state(state: State, event: Event) -> State:
    """Where `event` leads from `state`. Raises: IllegalMove."""
    try:
        return NEXT[state, event]
    except KeyError:
        raise IllegalMove(f"{state.value}, {event.value}") from None


MARGIN = timedelta(minutes=5)
MARGIN_SHARE = 0.2
LATE_MARGIN = timedelta(seconds=10)
LATE_MARGIN_SHARE = 0.02
JITTER_SHARE = 0.25
"""Of the margin: how much of it jitter may use up. Jitter only ever delays, so that no refresh comes early by it."""
IDLE_SHARE = 0.8
"""Of a refresh token's idle life: when an idle credential is refreshed to keep it alive."""


def renew_at(
    credential: Credential,
    jitter: float = 0.0,
    *,
    ends_access_token: bool = False,
    idle_ttl: timedelta | None = None,
) -> datetime | None:
    """When a refresh becomes due; None if never (nothing to refresh with, or nothing that ends).

    That is when `min(5 min, 20 % of the lifetime)` is left, delayed by up to a quarter of that. Where a refresh kills the old
    access token (`ends_access_token`), calls in flight would die with it, so there it is `min(10 s, 2 %)`. Either way no later
    than 80 % (to 85 %, by jitter) of `idle_ttl`, the refresh token's idle life, after it was last used.
    Bounds: jitter in [0, 1).
    """
    if not credential.refreshable:
        return None
    issued = _issued(credential)
    due = [] if idle_ttl is None else [issued + idle_ttl * (IDLE_SHARE + 0.05 * jitter)]
    if credential.expire_time is not None:
        most, share = (LATE_MARGIN, LATE_MARGIN_SHARE) if ends_access_token else (MARGIN, MARGIN_SHARE)
        margin = min(most, _lifetime(credential.expire_time, issued) * share)
        due.append(credential.expire_time - margin * (1 - JITTER_SHARE * jitter))
    return min(due, default=None)


def refresh_due(credential: Credential, now: datetime, jitter: float, *, ends_access_token: bool = False) -> bool:
    """Whether to refresh now: ACTIVE, enabled, and past `renew_at`, whose arguments these are."""
    if credential.state is not State.ACTIVE or not credential.enabled:
        return False
    at = renew_at(credential, jitter, ends_access_token=ends_access_token)
    return at is not None and now >= at


def usable(credential: Credential, now: datetime, min_ttl: timedelta) -> bool:
    """Whether its material may be used now and for `min_ttl` more; a material without end always may."""
    if credential.state is not State.ACTIVE or not credential.enabled:
        return False
    return credential.expire_time is None or (now < credential.expire_time and credential.expire_time - now >= min_ttl)


def _issued(credential: Credential) -> datetime:
    """When the access token in hand was issued."""
    known = [time for time in (credential.issue_time, credential.refresh_time) if time is not None]
    return max(known, default=credential.create_time)


def _lifetime(end: datetime, issued: datetime) -> timedelta:
    return max(end - issued, timedelta(0))
