"""Whether an answer says that the provider takes no calls just now, and how long to wait before asking again. Pure; no clock.

Whatever stands in an answer's header is hostile until read: a number that is none, a date of long ago or of next year.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations

MOST_TRIES = 2
"""Times that a call is sent again."""
MOST_WAIT = 10.0
"""Seconds that a call waits, all its waits together."""
SHORTEST = 0.2
UNSAID = (0.5, 1.5)
"""Seconds before the first and the second try, where the answer does not say when."""
ALWAYS = frozenset((429, 503))
"""Need no further sign.  Source: RFC 6585 section 4, RFC 9110 section 15.6.4."""
_NUMBER = re.compile(rb"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_Unit = integrations.ResetUnit

Fields = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Signs:
    """How an API says so; as `Retry` in the contract, names in lower case."""

    statuses: frozenset[int]
    remaining: bytes
    reset: bytes
    unit: integrations.ResetUnit.ValueType

    @classmethod
    def of(cls, retry: integrations.Retry) -> Signs:
        """As the lease has it. A status that needs a sign and has none never counts."""
        statuses = frozenset(status for status in retry.statuses if 400 <= status <= 599) or ALWAYS
        return cls(
            statuses, retry.remaining_header.lower().encode(), retry.reset_header.lower().encode(), retry.reset_unit
        )


def wait(
    signs: Signs, status: int, fields: Fields, *, tries: int, waited: float, wall: float, draw: float
) -> float | None:
    """Seconds to wait before the call is sent again; None: pass this answer.

    `tries` and `waited` are what the call had already; `wall` is now, since 1970; `draw` is in [0, 1). Jitter only lengthens.
    Bounds: MOST_TRIES, MOST_WAIT. An answer that asks for more is passed at once: waiting would be in vain.
    """
    if tries >= MOST_TRIES or status not in signs.statuses:
        return None
    lines = {name.lower(): value for name, value in fields}
    after = lines.get(b"retry-after")
    if status not in ALWAYS and after is None and (not signs.remaining or _number(lines.get(signs.remaining)) != 0):
        return None
    said = _after(after, wall)
    if said is None:
        said = _reset(signs, lines.get(signs.reset), wall)
    if said is None:
        said = UNSAID[tries]
    seconds = max(SHORTEST, said)
    seconds += draw * min(1.0, seconds / 4)
    return seconds if waited + seconds <= MOST_WAIT else None


def _after(value: bytes | None, wall: float) -> float | None:
    """Retry-After: seconds or a date; None for what is neither.  Source: RFC 9110 section 10.2.3."""
    if value is None:
        return None
    seconds = _number(value)
    return _date(value, wall) if seconds is None else seconds


def _reset(signs: Signs, value: bytes | None, wall: float) -> float | None:
    if value is None or not signs.reset:
        return None
    if signs.unit == _Unit.RESET_UNIT_DATE:
        return _date(value, wall)
    number = _number(value)
    if number is None:
        return None
    match signs.unit:
        case _Unit.RESET_UNIT_EPOCH_SECONDS:
            return number - wall
        case _Unit.RESET_UNIT_EPOCH_MILLISECONDS:
            return number / 1000 - wall
        case _:
            return number


def _number(value: bytes | None) -> float | None:
    return float(value) if value is not None and _NUMBER.fullmatch(value) is not None else None


def _date(value: bytes, wall: float) -> float | None:
    """Seconds until a date of HTTP, or of ISO 8601 with an offset; negative if it is over."""
    if len(value) > 64:
        return None
    text = value.decode("latin-1")
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        if found.tzinfo is None:
            if read is not parsedate_to_datetime:
                continue
            found = found.replace(tzinfo=UTC)  # `-0000`: UTC, of no known place
        try:
            return found.timestamp() - wall
        except (ValueError, OverflowError):
            continue
    return None
