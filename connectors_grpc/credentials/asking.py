"""Requests to a provider's back channel, sent and read: whatever goes wrong is one of the closed set of token errors, or
unreachable. A client with several secrets shows one after the other until the provider takes it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from connectors_grpc.domain.definition import OAuthClient
from connectors_grpc.domain.ids import TenantId
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.oauth2.assertions import Stamp
from connectors_grpc.oauth2.errors import SECRET_ERRORS, ClientRefused, Malformed
from connectors_grpc.ports import Clock, HttpReply, HttpRequest, Outbound

Value = TypeVar("Value")
Build = Callable[[OAuthClient, Stamp], HttpRequest]
"""Makes the request in which that client, with its one secret, proves itself."""

MOST_REMEMBERED = 1000


class Asking:
    """Remembers, in memory only, which of a client's secrets was taken last."""

    def __init__(self, outbound: Outbound, clock: Clock) -> None:
        self._outbound = outbound
        self._clock = clock
        self._taken: OrderedDict[bytes, int] = OrderedDict()

    async def ask(
        self, tenant: TenantId, client: OAuthClient, build: Build, read: Callable[[HttpReply, datetime], Value]
    ) -> tuple[Value, datetime]:
        """What `read` makes of the answer, and when the request was sent.

        Another secret is tried only where the provider says that it does not know the client by this one: it looks at that
        before it looks at a grant, so that nothing is used up. `build` may refuse to go on (a lease that ends, say).
        Raises: what `build` and `read` raise; of several refusals, the first. PROVIDER_UNAVAILABLE, ADDRESS_NOT_ALLOWED,
        LIMIT_EXCEEDED.
        """
        choices, key = client.each(), _fingerprint(client)
        first = self._taken.get(key, 0)
        refusal: ClientRefused | None = None
        for index in (first, *(other for other in range(len(choices)) if other != first)):
            try:
                answer = await self._once(tenant, choices[index], build, read)
            except ClientRefused as error:
                if len(choices) == 1 or not _by_secret(error):
                    raise
                refusal = refusal or error
            else:
                if len(choices) > 1:
                    self._remember(key, index)
                return answer
        assert refusal is not None
        raise refusal

    async def _once(
        self, tenant: TenantId, client: OAuthClient, build: Build, read: Callable[[HttpReply, datetime], Value]
    ) -> tuple[Value, datetime]:
        stamp = Stamp(self._clock.now(), secrets.token_urlsafe(16))
        try:
            reply = await self._outbound.send(replace(build(client, stamp), tenant=tenant))
        except ConnectorsError as error:
            if error.reason is not Reason.BODY_TOO_LARGE:
                raise
            # That bound is ours for token replies: to a caller it is a provider that answers as it should not.
            raise Malformed(problem="too_large") from None
        return read(reply, self._clock.now()), stamp.now

    def _remember(self, key: bytes, index: int) -> None:
        self._taken[key] = index
        self._taken.move_to_end(key)
        while len(self._taken) > MOST_REMEMBERED:
            self._taken.popitem(last=False)


def _by_secret(error: ClientRefused) -> bool:
    """Whether the secret or key itself was refused. A JWT that does not verify is `invalid_grant` (RFC 7523 section 3.1)."""
    return bool(error.problem) or error.oauth_error in SECRET_ERRORS or error.oauth_error == "invalid_grant"


def _fingerprint(client: OAuthClient) -> bytes:
    """Tells clients apart, by id and secrets in their order."""
    texts = (client.client_id, *(one.secret.reveal() for one in client.each() if one.secret is not None))
    return hashlib.sha256("\0".join(texts).encode()).digest()
