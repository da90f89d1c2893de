"""What an exchange waits for, and what becomes of it when that takes too long: a time-out says whose fault it is."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from sidecar.engine import again
from sidecar.problem import Problem

if TYPE_CHECKING:
    from sidecar.engine.exchange import Exchange


class Wait(Enum):
    """What an exchange waits for."""

    LEASE = "lease"
    CONNECTION = "connection"
    APP = "app"
    ANSWER = "answer"
    BODY = "body"
    TURN = "turn"
    """The provider takes no calls just now; the deadline is when to ask again."""


def expired(exchange: Exchange) -> None:
    """The deadline is over."""
    match exchange.wait:
        case Wait.TURN:
            again.turn(exchange)
        case Wait.LEASE if exchange.curing is None:
            exchange.fail(Problem("SERVER_UNAVAILABLE"))
        case Wait.CONNECTION:
            exchange.fail(Problem("UPSTREAM_TIMEOUT", "No connection to the upstream could be had in time."))
        case Wait.APP if exchange.down.uploading:
            exchange.fail(
                Problem("MALFORMED_REQUEST", "The request's body did not come in time.", status=408, close=True)
            )
        case _:
            exchange.fail(Problem("UPSTREAM_TIMEOUT"))


def overdue(exchange: Exchange) -> None:
    """All of it took too long."""
    if not exchange.tunnelled:
        exchange.fail(Problem("UPSTREAM_TIMEOUT", "The whole answer did not come in time."))
