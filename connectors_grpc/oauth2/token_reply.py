"""What a token endpoint answered: a TokenReply, or one of the five TokenErrors, whatever the bytes.

Strict about the tokens, which we send on; lenient about everything else. A refresh may have used up the only refresh token, so a
reply that carries good tokens is never thrown away for an odd `expires_in` or `scope`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl

from connectors_grpc.domain.definition import OAuth
from connectors_grpc.oauth2.errors import (
    CLIENT_ERRORS,
    GRANT_ERRORS,
    TRANSIENT_ERRORS,
    UNLISTED,
    ClientRefused,
    InvalidGrant,
    Malformed,
    RequestRefused,
    TokenError,
    Transient,
    known_error,
)
from connectors_grpc.ports import HttpReply
from connectors_grpc.secret import Secret

LONGEST_TOKEN = 16 * 1024
LONGEST_TTL = timedelta(days=3653)
LONGEST_WAIT = 3600.0
MOST_EXTRA = 32
MOST_SCOPES = 500

_TOKEN = re.compile(r"[\x21-\x7e]+")
"""VSCHAR without the space, which no `Authorization` line can carry.  Source: RFC 6749 appendix A.12."""
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_TYPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")
_EXTRA = re.compile(r"[\x20-\x7e]{1,1024}")
_REFRESH_TTLS = ("refresh_token_expires_in", "refresh_expires_in")
"""How providers say how long a refresh token lives; no standard has it."""
_DIGITS = re.compile(r"[0-9]{1,18}")
_STANDARD = frozenset(
    ("access_token", "error", "error_description", "error_uri", "expires_in", "id_token", "refresh_token", "scope", "token_type")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenReply:
    """A good answer.

    `refresh_token` is None where none came: the one in hand goes on. `expires_in` is None where the provider did not say, or
    nothing that makes sense: the definition's default holds. `scopes` is None where none came: those asked for were granted.
    `extra` are the other plain fields (`workspace_id`), by names that templates can use; secret, as a provider may put
    anything there. `refresh_expires_in` is None where the provider did not say how long the refresh token lives unused.
    """

    access_token: Secret
    refresh_token: Secret | None
    expires_in: timedelta | None
    scopes: tuple[str, ...] | None
    token_type: str
    extra: Mapping[str, Secret]
    refresh_expires_in: timedelta | None = None


def parse_token_reply(reply: HttpReply, oauth: OAuth, now: datetime, *, refreshing: bool = False) -> TokenReply:
    """Read the answer to a code exchange or a refresh. `now` is for a Retry-After that is a date.

    A status of 408, 429 or 5xx counts before the body (a gateway's word on the grant is nothing); a redirect is never followed;
    an error in the body counts whatever the status (GitHub and Slack answer 200).
    Raises: InvalidGrant, ClientRefused, RequestRefused, Transient, Malformed.  Source: RFC 6749 sections 5.1 and 5.2.
    """
    document = read_document(reply, now, oauth.terminal_errors)
    tokens = _tokens(document, oauth.token_pointer, refreshing)
    return TokenReply(
        access_token=token_text(tokens.get("access_token"), "access_token"),
        refresh_token=token_text(tokens["refresh_token"], "refresh_token") if tokens.get("refresh_token") else None,
        expires_in=lifetime(tokens.get("expires_in")),
        scopes=_scopes(tokens.get("scope"), oauth.scope_separator),
        token_type=_token_type(tokens.get("token_type")),
        extra=_extra({**document, **tokens}),
        refresh_expires_in=next((ttl for name in _REFRESH_TTLS if (ttl := lifetime(tokens.get(name)))), None),
    )


def _tokens(document: Mapping[str, Any], pointer: str, refreshing: bool) -> Mapping[str, Any]:
    """The object that has the tokens. One that should stand elsewhere is never taken from the top: it is another's token."""
    if not pointer:
        return document
    found = at_pointer(document, pointer)
    if isinstance(found, dict):
        return found
    return document if refreshing else {}


def at_pointer(document: Any, pointer: str) -> Any:
    """What stands at a JSON pointer; None if there is nothing.  Source: RFC 6901 section 4."""
    at = document
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict):
            at = at.get(name)
        elif isinstance(at, list) and name.isascii() and name.isdigit() and len(name) < 6 and int(name) < len(at):
            at = at[int(name)]
        else:
            return None
    return at


def read_document(reply: HttpReply, now: datetime, terminal: Collection[str] = ()) -> Mapping[str, Any]:
    """The object that any endpoint of the back channel answered; `terminal` are further errors that end a grant.

    Raises: as `parse_token_reply`.
    """
    check_status(reply, now)
    document = _document(reply)
    if document is None:
        raise Malformed(problem="not_an_object")
    error = _error(document, reply.status)
    if error is not None:
        raise InvalidGrant(error) if error in terminal else _typed(error, retry_after(reply, now))
    return document


def check_revocation(reply: HttpReply, now: datetime) -> None:
    """Whether a revocation was accepted; an unknown token counts as revoked.

    Raises: TokenError.  Source: RFC 7009 section 2.2.
    """
    check_status(reply, now)
    document = _document(reply) or {}
    error = _error(document, reply.status)
    if error is not None and not (reply.status < 500 and error in ("invalid_token", "invalid_grant", "token_revoked")):
        raise _typed(error, retry_after(reply, now))


def check_own_revocation(reply: HttpReply, now: datetime, gone: Collection[int]) -> None:
    """As `check_revocation`, of a provider's own form; `gone` are statuses that say that it is ended already.

    Raises: TokenError.
    """
    if reply.status not in gone:
        check_revocation(reply, now)


def check_status(reply: HttpReply, now: datetime) -> None:
    """Raises: Transient for 408, 429 and 5xx; Malformed for 1xx and 3xx."""
    if reply.status in (408, 429) or reply.status >= 500:
        raise Transient(problem=f"status_{reply.status}", retry_after=retry_after(reply, now))
    if not (200 <= reply.status < 300 or 400 <= reply.status < 500):
        raise Malformed(problem="redirect" if 300 <= reply.status < 400 else "status")


def retry_after(reply: HttpReply, now: datetime) -> float | None:
    """Seconds to wait, from Retry-After as a number or an HTTP date; None if there is none, or none that makes sense.

    Bounds: 0 to 3,600.  Source: RFC 9110 section 10.2.3.
    """
    text = reply.header("Retry-After").strip()
    if _DIGITS.fullmatch(text) is not None:
        return min(float(text), LONGEST_WAIT)
    try:
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        wait = (date - now).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait, 0.0), LONGEST_WAIT)


def _document(reply: HttpReply) -> dict[str, Any] | None:
    """The body as a flat or JSON object; None if it is none. JSON is tried under any content type but a form's.

    Errors of the parsers are dropped on purpose: they carry the whole body.
    """
    content_type = reply.header("Content-Type").partition(";")[0].strip().lower()
    try:
        text = reply.body.decode("utf-8-sig")
        if content_type == "application/x-www-form-urlencoded":
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=64)
            return dict(pairs) if len(dict(pairs)) == len(pairs) else None
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _error(document: Mapping[str, Any], status: int) -> str | None:
    """The error that a reply is; None if it is none. Slack says `ok: false`; a bare 4xx is an error without a name."""
    error = document.get("error")
    if isinstance(error, str) and error:
        return error
    if error not in (None, "", False) or document.get("ok") is False or status >= 400:
        return UNLISTED
    return None


def _typed(error: str, wait: float | None) -> TokenError:
    if error in GRANT_ERRORS:
        return InvalidGrant(error)
    if error in CLIENT_ERRORS:
        return ClientRefused(error)
    if error in TRANSIENT_ERRORS:
        return Transient(error, retry_after=wait)
    return RequestRefused(known_error(error))


def token_text(value: object, name: str) -> Secret:
    """What can be sent on as a token. Raises: Malformed, naming the member."""
    if not isinstance(value, str) or len(value) > LONGEST_TOKEN or _TOKEN.fullmatch(value) is None:
        raise Malformed(problem=name)
    return Secret(value)


def lifetime(value: object) -> timedelta | None:
    """What `expires_in` says. A number or a string of digits, above zero, fractions dropped; above ten years counts as ten years.

    Zero, negative, bool, NaN, infinite and everything else count as not said: a provider that says so of a token it just gave
    is mistaken, and the token is more likely good than dead.  Source: RFC 6749 section 5.1.
    """
    if isinstance(value, str) and _DIGITS.fullmatch(value) is not None:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not value >= 1 or value == float("inf"):
        return None
    return timedelta(seconds=int(min(value, LONGEST_TTL.total_seconds())))


def _scopes(value: object, separator: str) -> tuple[str, ...] | None:
    """What was granted. Split by the definition's separator and by spaces, which is what the standard has; lists pass too."""
    if isinstance(value, str):
        parts = value.replace(separator, " ").split()
    elif isinstance(value, list):
        parts = [part for part in value if isinstance(part, str)]
    else:
        return None
    scopes = tuple(dict.fromkeys(part for part in parts[:MOST_SCOPES] if _SCOPE.fullmatch(part)))
    return scopes or None


def _token_type(value: object) -> str:
    """Case does not count (section 7.1): `bearer` becomes `Bearer`. Missing or odd counts as Bearer."""
    if not isinstance(value, str) or _TYPE.fullmatch(value) is None or value.lower() == "bearer":
        return "Bearer"
    return value


def _extra(document: Mapping[str, Any]) -> dict[str, Secret]:
    extra: dict[str, Secret] = {}
    for name, value in document.items():
        text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else ""
        if name not in _STANDARD and _FIELD.fullmatch(name) and _EXTRA.fullmatch(text) and len(extra) < MOST_EXTRA:
            extra[name] = Secret(text)
    return extra
