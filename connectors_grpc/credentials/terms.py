"""On which terms an account may be connected: scopes, inputs and redirect URI, and what connecting again keeps. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from connectors_grpc.domain.definition import Integration
from connectors_grpc.domain.records import Credential
from connectors_grpc.errors import invalid

MOST_SCOPES = 100
REDIRECT_URI = re.compile(r"https?://[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")
"""Characters of a URI but the fragment's mark.  Source: RFC 3986 section 2."""
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")


def extended(there: Credential | None, scopes: tuple[str, ...]) -> tuple[str, ...]:
    """With those that the credential has: connecting again only adds. Not more than the bound, though."""
    return scopes if there is None else tuple(dict.fromkeys((*scopes, *there.granted_scopes)))[:MOST_SCOPES]


def with_known(integration: Integration, there: Credential | None, inputs: Mapping[str, str]) -> Mapping[str, str]:
    """Inputs, with those that the credential has: connecting again need not repeat them."""
    known = {one.id for one in integration.inputs}
    before = {} if there is None else {name: value for name, value in there.values.items() if name in known}
    return {**before, **inputs}


def check_scopes(scopes: Sequence[str]) -> None:
    """Scope tokens only.  Source: RFC 6749 section 3.3."""
    if len(scopes) > MOST_SCOPES or not all(SCOPE.fullmatch(scope) for scope in scopes):
        raise invalid("scopes", f"at most {MOST_SCOPES} scope tokens of RFC 6749 section 3.3 are wanted")


def check_redirect_uri(uri: str) -> None:
    """https, or http on loopback, absolute and without fragment.  Source: RFC 6749 section 3.1.2, RFC 8252 section 7.3."""
    if len(uri) > 2000 or not _is_redirect_uri(uri):
        raise invalid("redirect_uri", "an absolute https URL is wanted (http on loopback only), without fragment")


def _is_redirect_uri(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    loopback = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    return (
        # urlsplit drops line ends and takes spaces: what it says of such a text is not what a browser makes of it.
        REDIRECT_URI.fullmatch(uri) is not None
        and bool(parts.hostname)
        and port != 0
        and "@" not in parts.netloc
        and (parts.scheme == "https" or loopback)
    )
