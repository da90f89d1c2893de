"""What an older, single-tenant layout kept of one credential: the forms that are taken, and how a newer token goes back into one.

Pure: knows no Vault. A document is an object of fields, each plain or sealed by itself, or one sealed object in `ciphertext`.
Nothing is guessed: a field that is not known here is a problem, and the document is left alone.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connectors_grpc.domain.records import CredentialKind
from connectors_grpc.secret import Secret

SEALED: Final = "vault:v"
"""How a transit ciphertext begins."""
WHOLE: Final = "ciphertext"
"""The one field of a document that is sealed as a whole."""
DESCRIPTIVE: Final = frozenset(("tenant", "tenant_id", "integration", "provider", "created_at", "updated_at"))
"""Fields that say nothing that the new layout needs."""
OBTAINED: Final = ("obtained_at", "obtained")
MARKS: Final = {
    "access_token": CredentialKind.OAUTH,
    "api_key": CredentialKind.API_KEY,
    "username": CredentialKind.BASIC,
}
FIELDS: Final = {
    CredentialKind.OAUTH: frozenset(
        ("access_token", "refresh_token", "expires_at", "expires_in", *OBTAINED, "token_type", "scope", "scopes")
    ),
    CredentialKind.API_KEY: frozenset(("api_key",)),
    CredentialKind.BASIC: frozenset(("username", "password")),
}
LATEST_SECONDS: Final = 10**11
"""Above this a time is in milliseconds, which nobody said."""

NAMESPACE: Final = uuid.UUID("0d8f6c1e-52b7-4f0a-9a39-6f1f5f6c2b11")


def request_id(path: str, tenant: str) -> str:
    """What a migration makes a tenant with: by it, the tenants that it made are told from others of the same id."""
    return str(uuid.uuid5(NAMESPACE, f"{path.strip('/')}/{tenant}"))


class FormUnknown(Exception):
    """The document is in no form that is taken; the text says why, and holds nothing of its values."""


@dataclass(frozen=True, slots=True)
class OldDocument:
    """One document, opened. `sealed` names the fields that were ciphertexts; `whole`: all of them, as one."""

    fields: Mapping[str, Any] = field(repr=False)
    sealed: frozenset[str] = frozenset()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class OldCredential:
    """What a document says. Holds secrets."""

    kind: CredentialKind
    fields: Mapping[str, Secret]
    refresh_token: Secret | None = None
    expire_time: datetime | None = None
    scopes: tuple[str, ...] = ()


def ciphertexts(data: Mapping[str, Any]) -> list[str]:
    """The ciphertexts in a stored document, to be opened before `opened`."""
    return [value for value in data.values() if isinstance(value, str) and value.startswith(SEALED)]


def opened(data: Mapping[str, Any], plain: Mapping[str, str]) -> OldDocument:
    """The document, its ciphertexts replaced by what they opened to. Raises: FormUnknown."""
    sealed = frozenset(name for name, value in data.items() if isinstance(value, str) and value.startswith(SEALED))
    fields = {name: plain[value] if name in sealed else value for name, value in data.items()}
    if set(data) != {WHOLE}:
        return OldDocument(fields, sealed)
    try:
        inner = json.loads(fields[WHOLE])
    except (ValueError, TypeError, RecursionError):
        inner = None
    if not sealed or not isinstance(inner, dict):
        raise FormUnknown("`ciphertext` alone must be a transit ciphertext of a JSON object")
    return OldDocument(inner, whole=True)


def parse(document: OldDocument, *, ignore: Collection[str] = ()) -> OldCredential:
    """The credential. `ignore`: further fields that an operator says are not needed. Raises: FormUnknown."""
    fields = {
        name: value
        for name, value in document.fields.items()
        if name not in DESCRIPTIVE and name not in ignore and value is not None
    }
    kinds = [kind for mark, kind in MARKS.items() if mark in fields]
    if len(kinds) != 1:
        raise FormUnknown("exactly one of access_token, api_key, username is wanted")
    (kind,) = kinds
    if unknown := sorted(set(fields) - FIELDS[kind]):
        raise FormUnknown(f"the field {_named(unknown[0])} is not known beside {_mark(kind)}: --ignore leaves it out")
    match kind:
        case CredentialKind.API_KEY:
            return OldCredential(kind, {"api_key": _secret(fields, "api_key")})
        case CredentialKind.BASIC:
            password = _secret(fields, "password") if fields.get("password") else Secret("")
            return OldCredential(kind, {"username": _secret(fields, "username"), "password": password})
        case CredentialKind.OAUTH:
            return _oauth(fields)


def renewed(document: OldDocument, newer: OldCredential, now: datetime) -> OldDocument:
    """The document with newer tokens in it; times and scopes as they were written there before."""
    there = dict(document.fields)
    there["access_token"] = newer.fields["access_token"].reveal()
    if newer.refresh_token is not None:
        there["refresh_token"] = newer.refresh_token.reveal()
    for name in ("scope", "scopes"):
        if name in there and newer.scopes:
            there[name] = " ".join(newer.scopes) if isinstance(there[name], str) else list(newer.scopes)
    _end_renewed(there, newer.expire_time, now.replace(microsecond=0))
    sealed = document.sealed | (
        {"refresh_token"} if "access_token" in document.sealed and newer.refresh_token else set()
    )
    return replace(document, fields=there, sealed=sealed)


def _end_renewed(there: dict[str, Any], end: datetime | None, now: datetime) -> None:
    """The token's end, in the way that it was there; `expires_at` where it was not."""
    relative = "expires_at" not in there and any(name in there for name in ("expires_in", *OBTAINED))
    if end is None:
        for name in ("expires_at", "expires_in"):
            there.pop(name, None)
    elif relative:
        obtained = next((name for name in OBTAINED if name in there), OBTAINED[0])
        there["expires_in"] = _like(there.get("expires_in"), int((end - now).total_seconds()))
        there[obtained] = _written(now, there.get(obtained))
    else:
        there["expires_at"] = _written(end, there.get("expires_at"))


def closed(document: OldDocument, seal: Mapping[str, str]) -> Mapping[str, Any]:
    """The document as it is to be stored; `seal` has the ciphertext for each text of `to_seal`."""
    if document.whole:
        return {WHOLE: seal[_whole(document)]}
    return {name: seal[str(value)] if name in document.sealed else value for name, value in document.fields.items()}


def to_seal(document: OldDocument) -> list[str]:
    """The texts that `closed` needs sealed."""
    if document.whole:
        return [_whole(document)]
    return [str(value) for name, value in document.fields.items() if name in document.sealed]


def _whole(document: OldDocument) -> str:
    return json.dumps(document.fields, separators=(",", ":"), ensure_ascii=False)


def _oauth(fields: Mapping[str, Any]) -> OldCredential:
    token_type = fields.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise FormUnknown("token_type is not Bearer")
    return OldCredential(
        CredentialKind.OAUTH,
        {"access_token": _secret(fields, "access_token")},
        _secret(fields, "refresh_token") if fields.get("refresh_token") else None,
        _end(fields),
        _scopes(fields),
    )


def _end(fields: Mapping[str, Any]) -> datetime | None:
    """When the access token ends.  Raises: FormUnknown."""
    if "expires_at" in fields:
        return _time(fields["expires_at"], "expires_at")
    if "expires_in" not in fields:
        return None
    obtained = next((name for name in OBTAINED if name in fields), None)
    if obtained is None:
        raise FormUnknown("expires_in says nothing without obtained_at")
    seconds = _number(fields["expires_in"])
    if seconds is None or not 0 <= seconds < LATEST_SECONDS:
        raise FormUnknown("expires_in is not a number of seconds")
    return _time(fields[obtained], obtained) + timedelta(seconds=seconds)


def _time(value: object, name: str) -> datetime:
    """Seconds since 1970, or RFC 3339 with its offset.  Raises: FormUnknown."""
    number = _number(value)
    if number is not None and 0 <= number < LATEST_SECONDS:
        return datetime.fromtimestamp(number, UTC)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and number is None else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise FormUnknown(f"{name} is neither seconds since 1970 nor RFC 3339 with an offset")
    return moment.astimezone(UTC)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if number == number else None


def _written(moment: datetime, like: object) -> object:
    """A time in the way of another one: seconds, or RFC 3339; seconds where there is none."""
    if isinstance(like, str) and _number(like) is None:
        return moment.isoformat().replace("+00:00", "Z")
    return _like(like, int(moment.timestamp()))


def _like(there: object, number: int) -> object:
    return str(number) if isinstance(there, str) else number


def _scopes(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """`scopes` as a list, or `scope` or `scopes` as a text with blanks between.  Raises: FormUnknown."""
    if "scope" in fields and "scopes" in fields:
        raise FormUnknown("both scope and scopes are there")
    given = fields.get("scope", fields.get("scopes", ()))
    found = given.split() if isinstance(given, str) else given
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise FormUnknown("scopes are texts, or one text with blanks between")
    return tuple(found)


def _secret(fields: Mapping[str, Any], name: str) -> Secret:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise FormUnknown(f"{name} is no text")
    return Secret(value)


def _mark(kind: CredentialKind) -> str:
    return next(mark for mark, each in MARKS.items() if each is kind)


def _named(name: str) -> str:
    """A field's name, if it looks like one: a secret in its place is not repeated."""
    return name if name.isidentifier() and len(name) <= 32 else "with a name that can't be shown"
