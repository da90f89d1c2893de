"""How the simulated provider can go wrong on demand: which wrong replies exist, and which comes next.

Values and pure decisions; how a wrong reply is put on the wire is `replies`' business.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum


class Endpoint(Enum):
    """Where a queued reply applies."""

    TOKEN = "token"
    REVOKE = "revoke"
    API = "api"


class Misbehaviour(Enum):
    """A wrong reply. Those in ACTS come after the provider did what it was asked; the rest in its place."""

    WRONG_CONTENT_TYPE = "wrong_content_type"
    EXPIRES_IN_STRING = "expires_in_string"
    EXPIRES_IN_NEGATIVE = "expires_in_negative"
    EXPIRES_IN_MISSING = "expires_in_missing"
    REFRESH_TOKEN_OMITTED = "refresh_token_omitted"
    INVALID_GRANT_400 = "invalid_grant_400"
    INVALID_GRANT_401 = "invalid_grant_401"
    INVALID_GRANT_403 = "invalid_grant_403"
    ERROR_IN_200 = "error_in_200"
    SLOW_DOWN = "slow_down"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    UNAVAILABLE_AFTER_ACTING = "unavailable_after_acting"
    UNAUTHORIZED = "unauthorized"
    REDIRECT = "redirect"
    HUGE_BODY = "huge_body"
    ECHO_SECRET = "echo_secret"
    HANG = "hang"
    HANG_AFTER_ACTING = "hang_after_acting"
    HALF_REPLY = "half_reply"
    GARBAGE_JSON = "garbage_json"
    NOT_AN_OBJECT = "not_an_object"


ACTS = frozenset(
    {
        Misbehaviour.WRONG_CONTENT_TYPE,
        Misbehaviour.EXPIRES_IN_STRING,
        Misbehaviour.EXPIRES_IN_NEGATIVE,
        Misbehaviour.EXPIRES_IN_MISSING,
        Misbehaviour.REFRESH_TOKEN_OMITTED,
        Misbehaviour.UNAVAILABLE_AFTER_ACTING,
        Misbehaviour.HANG_AFTER_ACTING,
        Misbehaviour.HALF_REPLY,
    }
)


@dataclass(frozen=True, slots=True)
class Queued:
    """One wrong reply, for the next request that fits; `client_id` None fits any client."""

    what: Misbehaviour
    client_id: str | None = None
    on: Endpoint = Endpoint.TOKEN


NextReplies = deque[Misbehaviour | Queued]
"""Wrong replies in the order they come due. A bare Misbehaviour is for any client's next token request."""


def take(queue: NextReplies, endpoint: Endpoint, client_id: str | None) -> Misbehaviour | None:
    """Remove and give the first queued reply that fits; None if none does."""
    for position, entry in enumerate(queue):
        due = entry if isinstance(entry, Queued) else Queued(entry)
        if due.on is endpoint and due.client_id in (None, client_id):
            del queue[position]
            return due.what
    return None


def draw(choices: tuple[Misbehaviour, ...], rate: float, number: int) -> Misbehaviour | None:
    """A wrong reply or none, for a client that misbehaves at a rate.

    Units: `rate` is a share, 0 to 1. `number` is drawn evenly from 0 to 2**64 - 1.
    """
    if not choices or (number >> 32) >= rate * 2**32:
        return None
    return choices[(number & 0xFFFFFFFF) % len(choices)]
