"""Exchanges that go on: whether who began one may still have it, and whether a refresh has to wait for its end.

Answers and tunnels can last for hours, the right to them may not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.engine.late import Wait
from sidecar.holds import Hold
from sidecar.leases import Ask
from sidecar.problem import Problem

if TYPE_CHECKING:
    from sidecar.engine.exchange import Exchange


def confirm(exchange: Exchange, now: float) -> None:
    """Cut an exchange whose key, tenant or credential has lost the right meanwhile (promise 6, attack 40)."""
    assert exchange.admitted is not None
    if exchange.task is not None and not exchange.task.done():
        return
    try:
        if not exchange.engine.leases.stands(exchange.admitted.ask, now):
            exchange.task = exchange.engine.spawn(_confirm(exchange, exchange.admitted.ask))
    except Problem as problem:
        exchange.fail(problem)


async def _confirm(exchange: Exchange, ask: Ask) -> None:
    try:
        await exchange.engine.leases.get(ask)
    except Problem as problem:
        # That too many are being asked for at once says nothing of this one: it is asked about again at the next tick.
        if problem.reason != "LIMIT_EXCEEDED":
            exchange.fail(problem)


def holds_up(exchange: Exchange, hold: Hold) -> bool:
    """Whether a refresh that ends that token waits for this exchange.

    Not for one that waits for a lease itself (its 401 is being cured) or has none on its way just now, nor for what has no end of
    its own: a tunnel, a stream of events.  Source: HTML Living Standard section 9.2.
    """
    if exchange.held is None or exchange.wait in (Wait.LEASE, Wait.TURN) or not hold.concerns(exchange.held):
        return False
    if exchange.tunnelled:
        return False
    fields = exchange.response.fields if exchange.response is not None else []
    kinds = (value for name, value in fields if name.lower() == b"content-type")
    return not any(kind.lower().startswith(b"text/event-stream") for kind in kinds)
