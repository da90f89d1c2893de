"""When a request is sent again: after a 401 that a refresh cured, and after a connection that had died while it was idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.framing import Malformed, ResponseHead
from sidecar.held import Held
from sidecar.problem import Problem, problem_of

if TYPE_CHECKING:
    from sidecar.engine.exchange import Exchange
    from sidecar.engine.upstream import Upstream

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
"""May be sent again.  Source: RFC 9110 section 9.2.2."""


def may_repeat(exchange: Exchange, upstream: Upstream) -> bool:
    """A connection that died while it was idle says nothing about the request."""
    fresh = not exchange.heard and not exchange.retried and exchange.kept is not None
    return fresh and upstream.served > 0 and exchange.head.method in IDEMPOTENT


async def cure(exchange: Exchange, held: Held, response: ResponseHead) -> None:
    """A 401 on a refreshable lease: one refresh a generation; then again, or pass the 401."""
    assert exchange.admitted is not None
    fresh = await exchange.engine.leases.reject(held, exchange.admitted.ask.key)
    exchange.engine.metrics.unauthorized["passed" if fresh is None else "renewed"] += 1
    if exchange.ended:
        return
    data, exchange.curing = exchange.curing or b"", None
    try:
        if fresh is not None and exchange.request_done and exchange.kept is not None:
            exchange.engine.metrics.resends["unauthorized"] += 1
            exchange.held = fresh
            exchange.resend(fresh)
        elif exchange.upstream is None:
            exchange.refuse(Problem("UPSTREAM_UNREACHABLE"))
        else:
            exchange.upstream.hold(exchange.down.blocked)
            exchange.relay(response, data)
    except (Problem, Malformed) as error:
        exchange.refuse(problem_of(error))
