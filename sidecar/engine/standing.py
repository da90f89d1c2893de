"""Whether who began an exchange may still have it: answers and tunnels can last for hours, the right to them may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
