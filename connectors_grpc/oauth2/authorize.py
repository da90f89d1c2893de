"""The browser's leg: where the person is sent, and what comes back. Knows neither cookies nor the stored flow."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, urlencode

from connectors_grpc.domain.definition import OAuth
from connectors_grpc.oauth2.errors import CallbackRefused, known_error
from connectors_grpc.oauth2.parameters import AUTHORIZATION_RESERVED
from connectors_grpc.oauth2.token_request import Parameters
from connectors_grpc.secret import Secret

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_CODE = re.compile(r"[\x20-\x7e]{1,4096}")


def code_challenge(verifier: Secret) -> str:
    """The S256 challenge.  Raises: ValueError if it is no verifier.  Source: RFC 7636 section 4.2."""
    text = verifier.reveal()
    if _VERIFIER.fullmatch(text) is None:
        raise ValueError("a verifier is 43 to 128 unreserved characters")
    return _base64url(hashlib.sha256(text.encode("ascii")).digest())


def authorization_request(
    oauth: OAuth,
    *,
    client_id: str,
    redirect_uri: str,
    state: str,
    challenge: str | None,
    scopes: Iterable[str] = (),
) -> Parameters:
    """What is asked of the authorization endpoint, in its URL or pushed.

    The definition's parameters come before ours and can't replace them. `challenge` is left out where the definition says that
    the provider takes no PKCE; `scope` where there are none.
    Source: RFC 6749 section 4.1.1, RFC 7636 section 4.3, RFC 8707 section 2.1.
    """
    kept = {k: v for k, v in oauth.authorization_parameters.items() if k not in AUTHORIZATION_RESERVED}
    parameters: dict[str, str | Sequence[str]] = {**kept, "response_type": "code", "client_id": client_id}
    parameters |= {"redirect_uri": redirect_uri, "state": state}
    scope = oauth.scope_separator.join(scopes)
    if scope:
        parameters[oauth.scope_parameter] = scope
    if oauth.resources:
        parameters["resource"] = oauth.resources
    if challenge is not None and oauth.pkce:
        parameters |= {"code_challenge": challenge, "code_challenge_method": "S256"}
    return parameters


def with_query(url: str, parameters: Parameters) -> str:
    """The URL with these parameters behind its own query, which is kept as it is.  Source: RFC 6749 section 3.1."""
    endpoint, mark, query = url.partition("?")
    kept = f"{query}&" if mark and query else ""
    return f"{endpoint}?{kept}{urlencode(parameters, doseq=True, quote_via=quote, safe='')}"


def check_callback(params: Mapping[str, Sequence[str]], oauth: OAuth) -> Secret:
    """The code of a callback whose `state` was found already.

    In this order: no parameter twice; `iss` equal to the definition's issuer, character by character, and there if the
    definition says so (an error of another issuer is not ours either); no `error`; a code.
    Raises: CallbackRefused, with the provider's error code only if it is a listed one, and never its description.
    Source: RFC 6749 sections 3.1, 4.1.2 and 4.1.2.1, RFC 9207 section 2.4; attack 28.
    """
    if any(len(values) != 1 for values in params.values()):
        raise CallbackRefused(problem="repeated_parameter")
    if oauth.issuer:
        issuer = _one(params, "iss")
        if issuer is None and oauth.iss_required:
            raise CallbackRefused(problem="iss_missing")
        if issuer is not None and issuer != oauth.issuer:
            raise CallbackRefused(problem="iss_mismatch")
    error = _one(params, "error")
    if error is not None:
        raise CallbackRefused(known_error(error))
    code = _one(params, oauth.code_parameter)
    if code is None or _CODE.fullmatch(code) is None:
        raise CallbackRefused(problem="code_missing")
    return Secret(code)


def _one(params: Mapping[str, Sequence[str]], name: str) -> str | None:
    return params[name][0] if name in params else None


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
