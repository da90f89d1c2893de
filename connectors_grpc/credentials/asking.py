"""One token request, sent and read: whatever goes wrong on the way is one of the closed set of token errors, or unreachable."""

from __future__ import annotations

from connectors_grpc.domain.definition import OAuth
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.oauth2.errors import Malformed
from connectors_grpc.oauth2.token_reply import TokenReply, parse_token_reply
from connectors_grpc.ports import Clock, HttpRequest, Outbound


async def ask(outbound: Outbound, clock: Clock, request: HttpRequest, oauth: OAuth) -> TokenReply:
    """The provider's tokens. Raises: TokenError; PROVIDER_UNAVAILABLE, ADDRESS_NOT_ALLOWED."""
    try:
        reply = await outbound.send(request)
    except ConnectorsError as error:
        if error.reason is not Reason.BODY_TOO_LARGE:
            raise
        # That bound is ours for token replies: to a caller it is a provider that answers as it should not.
        raise Malformed(problem="too_large") from None
    return parse_token_reply(reply, oauth, clock.now())
