"""What may be told of a request that is over: no secret, no query, no body. Made only where a log or spans are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sidecar.engine.exchange import Exchange


class Over(NamedTuple):
    """One request. `status` is what the app was told, 0 if nothing; `reason` why the sidecar refused or cut it, or nothing.

    `whole`: the answer came to its end. `parent` is the app's `traceparent` line as it came. Units: took in seconds.
    """

    method: str
    path: str
    tenant: str
    credential: str
    integration: str
    key_id: str
    host: str
    status: int
    reason: str
    whole: bool
    resent: bool
    parent: bytes
    took: float


def over(exchange: Exchange, whole: bool, took: float) -> Over:
    """Of an exchange that just ended."""
    held, admitted, problem = exchange.held, exchange.admitted, exchange.problem
    key = None if admitted is None else admitted.ask.key
    status = exchange.response.status if exchange.response is not None else problem.status if problem is not None else 0
    return Over(
        method=exchange.head.method.decode(),
        path="" if admitted is None else admitted.target.path.decode(),
        tenant=held.tenant if held is not None else "" if admitted is None else admitted.ask.tenant or "",
        credential="" if admitted is None else admitted.ask.credential,
        integration="" if held is None else held.integration,
        key_id="" if key is None else key.key_id,
        host="" if held is None else held.origin.host,
        status=status,
        reason="" if problem is None else problem.reason,
        whole=whole,
        resent=exchange.resent or exchange.retried or exchange.patience is not None,
        parent=next(
            (value for name, value in exchange.head.fields if len(name) == 11 and name.lower() == b"traceparent"), b""
        ),
        took=took,
    )
