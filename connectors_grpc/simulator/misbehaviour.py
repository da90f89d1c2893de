"""How the simulated provider can go wrong on demand: which wrong replies exist, and which comes next.

Values and pure decisions; how a wrong reply is put on the wire is `replies`' business.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

RATE = re.compile(r"[01]?\.?[0-9]{1,6}")


class Endpoint(Enum):
    """Where a queued reply applies."""

    TOKEN = "token"
    REVOKE = "revoke"
    API = "api"


class Misbehaviour(Enum):
    """A wrong reply: in place of what was asked, or after that was done (`replies.instead` tells which)."""

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


@dataclass(frozen=True, slots=True)
class Queued:
    """One wrong reply, for the next request that fits; `client_id` None fits any client."""

    what: Misbehaviour
    client_id: str | None = None
    on: Endpoint = Endpoint.TOKEN


@dataclass(frozen=True, slots=True)
class Habit:
    """A wrong reply that comes again and again. Units: `rate` is the share of requests, above 0 to 1."""

    what: Misbehaviour
    rate: float = 1.0
    on: Endpoint = Endpoint.TOKEN

    @classmethod
    def parse(cls, text: str) -> Self:
        """`KIND`, `KIND:RATE`, and either with `@ENDPOINT`. Raises: ValueError, which says what is wanted."""
        kind_and_rate, _, endpoint = text.partition("@")
        kind, colon, rate = kind_and_rate.partition(":")
        kinds, endpoints = [each.value for each in Misbehaviour], [each.value for each in Endpoint]
        if kind.replace("-", "_") not in kinds:
            raise ValueError(f"a kind is wanted, one of {', '.join(kinds)}")
        if (endpoint and endpoint not in endpoints) or text.endswith("@"):
            raise ValueError(f"after @ one of {', '.join(endpoints)} is wanted")
        if colon and (RATE.fullmatch(rate) is None or not 0 < float(rate) <= 1):
            raise ValueError("after : a rate above 0 up to 1 is wanted")
        where = Endpoint(endpoint) if endpoint else Endpoint.TOKEN
        return cls(Misbehaviour(kind.replace("-", "_")), float(rate) if colon else 1.0, where)


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


def draw(habits: Sequence[Habit], number: int) -> Misbehaviour | None:
    """A wrong reply or none, each by its rate.

    Units: `number` is drawn evenly from 0 to 2**64 - 1. The rates' sum is at most 1.
    """
    left = number / 2**64
    for habit in habits:
        if left < habit.rate:
            return habit.what
        left -= habit.rate
    return None
