"""When a request is sent again: after a 401 that a refresh cured, after a connection that had died while it was idle, and, where
that was asked for, after an answer that says that no calls are taken just now.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING

from sidecar.framing import Malformed, ResponseHead
from sidecar.held import Held
from sidecar.problem import Problem, problem_of
from sidecar.retrying import Signs, wait

if TYPE_CHECKING:
    from sidecar.engine.exchange import Exchange
    from sidecar.engine.upstream import Upstream

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
"""May be sent again.  Source: RFC 9110 section 9.2.2."""


@dataclass(slots=True)
class Patience:
    """What an exchange waited for a provider that takes no calls. Units: seconds."""

    tries: int = 0
    waited: float = 0.0


def may_repeat(exchange: Exchange, upstream: Upstream) -> bool:
    """A connection that died while it was idle says nothing about the request."""
    fresh = not exchange.heard and not exchange.retried and exchange.upload.kept is not None
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
        if fresh is not None and exchange.upload.done and exchange.upload.kept is not None:
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


def limited(exchange: Exchange, signs: Signs, response: ResponseHead) -> bool:
    """Whether the exchange now waits for its turn instead of passing an answer. The app that leaves ends the wait."""
    if exchange.head.method not in IDEMPOTENT or not exchange.upload.done or exchange.upload.kept is None:
        return False
    engine, now = exchange.engine, exchange.engine.clock()
    patience = exchange.patience or Patience()
    seconds = wait(
        signs, response.status, response.fields,
        tries=patience.tries, waited=patience.waited, wall=time.time(), draw=random(),  # noqa: S311 - jitter
    )  # fmt: skip
    whole = engine.limits.whole
    if seconds is None or engine.draining or (whole and now + seconds >= exchange.began + whole):
        return False
    exchange.patience = patience
    patience.tries += 1
    patience.waited += seconds
    exchange.drop_upstream()
    exchange.pause(now + seconds)
    return True


def turn(exchange: Exchange) -> None:
    """The wait is over: with the lease as it is by now, the same request again."""
    exchange.pause(exchange.engine.clock() + exchange.engine.limits.lease, turn=False)
    exchange.task = exchange.engine.spawn(_take_turn(exchange))


async def _take_turn(exchange: Exchange) -> None:
    assert exchange.admitted is not None
    try:
        held = await exchange.engine.leases.get(exchange.admitted.ask)
        if not exchange.ended:
            exchange.engine.metrics.resends["limited"] += 1
            exchange.held = held
            exchange.resend(held)
    except (Problem, Malformed) as error:
        exchange.refuse(problem_of(error))
