"""Device authorization: a person types a code at the provider, on a device of their own. Builds and reads; sends nothing.

Source: RFC 8628.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from connectors_grpc.domain.definition import OAuth, OAuthClient
from connectors_grpc.oauth2.assertions import Stamp
from connectors_grpc.oauth2.errors import Malformed
from connectors_grpc.oauth2.token_reply import lifetime, read_document, token_text
from connectors_grpc.oauth2.token_request import Parameters, back_channel, with_extras
from connectors_grpc.ports import HttpReply, HttpRequest
from connectors_grpc.secret import Secret

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL = timedelta(seconds=5)
LONGEST_INTERVAL = timedelta(minutes=2)
LONGEST_LIFE = timedelta(minutes=30)
SLOWER = timedelta(seconds=5)
"""How much longer to wait after each `slow_down`.  Source: section 3.5."""
_USER_CODE = re.compile(r"[\x20-\x7e]{1,64}")
_URI = re.compile(r"https?://[\x21-\x7e]{1,2000}")


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """What the provider gave: a secret code for us, and a short one for the person. Units: both times from the reply."""

    device_code: Secret
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: timedelta
    interval: timedelta


def device_authorization(
    oauth: OAuth,
    client: OAuthClient,
    *,
    scopes: Iterable[str],
    stamp: Stamp,
    allow_private_addresses: bool,
) -> HttpRequest:
    """Ask for a code.  Source: section 3.1."""
    parameters: dict[str, str] = {"client_id": client.client_id}
    scope = oauth.scope_separator.join(scopes)
    if scope:
        parameters["scope"] = scope
    sent: Parameters = {**({"resource": oauth.resources} if oauth.resources else {}), **parameters}
    return back_channel(oauth.device_authorization_endpoint, oauth, client, sent, allow_private_addresses, stamp)


def parse_device_authorization(reply: HttpReply, now: datetime) -> DeviceGrant:
    """Bounds: interval 1 s to 2 min, life up to 30 min.  Raises: TokenError.  Source: section 3.2."""
    document = read_document(reply, now)
    life = lifetime(document.get("expires_in"))
    if life is None:
        raise Malformed(problem="expires_in")
    return DeviceGrant(
        device_code=token_text(document.get("device_code"), "device_code"),
        user_code=_matching(document, "user_code", _USER_CODE),
        # Google says `verification_url`.
        verification_uri=_matching(
            document, "verification_uri" if "verification_uri" in document else "verification_url", _URI
        ),
        verification_uri_complete=_matching(document, "verification_uri_complete", _URI)
        if document.get("verification_uri_complete")
        else "",
        expires_in=min(life, LONGEST_LIFE),
        interval=min(lifetime(document.get("interval")) or INTERVAL, LONGEST_INTERVAL),
    )


def device_token(
    oauth: OAuth, client: OAuthClient, *, device_code: Secret, stamp: Stamp, allow_private_addresses: bool
) -> HttpRequest:
    """Ask whether the person has consented; the answer is a token reply.  Source: section 3.4."""
    parameters = {"grant_type": DEVICE_CODE, "device_code": device_code.reveal(), "client_id": client.client_id}
    return back_channel(
        oauth.token_endpoint, oauth, client, with_extras(oauth, parameters), allow_private_addresses, stamp
    )


def _matching(document: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = document.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise Malformed(problem=name)
    return value
