"""Pushed authorization requests: what the browser would carry goes over the back channel, and the browser carries a reference.

Source: RFC 9126.
"""

from __future__ import annotations

import re
from datetime import datetime

from connectors_grpc.domain.definition import OAuth, OAuthClient
from connectors_grpc.oauth2.assertions import Stamp
from connectors_grpc.oauth2.authorize import with_query
from connectors_grpc.oauth2.errors import Malformed
from connectors_grpc.oauth2.token_reply import read_document
from connectors_grpc.oauth2.token_request import Parameters, back_channel
from connectors_grpc.ports import HttpReply, HttpRequest

_REQUEST_URI = re.compile(r"[\x21-\x7e]{1,512}")


def pushed_request(
    oauth: OAuth, client: OAuthClient, parameters: Parameters, *, stamp: Stamp, allow_private_addresses: bool
) -> HttpRequest:
    """Push what `authorize.authorization_request` made.  Source: section 2.1."""
    return back_channel(
        oauth.pushed_authorization_request_endpoint, oauth, client, parameters, allow_private_addresses, stamp
    )


def pushed_url(reply: HttpReply, oauth: OAuth, client_id: str, now: datetime) -> str:
    """Where the person consents, by the reference that came back. Raises: TokenError.  Source: sections 2.2, 2.3 and 4."""
    reference = read_document(reply, now).get("request_uri")
    if not isinstance(reference, str) or _REQUEST_URI.fullmatch(reference) is None:
        raise Malformed(problem="request_uri")
    return with_query(oauth.authorization_endpoint, {"client_id": client_id, "request_uri": reference})
