"""Requests into our own words: identifiers, pages, labels, times, masks. Each refusal names the field and what is wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId, is_label
from connectors_grpc.errors import ConnectorsError, Reason, invalid
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.quota import Quota

LABEL_WANTED = "a lower-case DNS label is wanted: a-z, 0-9 and inner hyphens, 1 to 63 characters"
PAGE_DEFAULT, PAGE_MOST = 50, 500
BILLION = 1_000_000_000
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*")
MOST_OF_QUOTA = {"calls_at_once": 1_000_000, "calls_per_second": 1_000_000, "bytes_per_second": 1 << 40}
MOST_INTEGRATIONS = 1000
SECRET = re.compile(r"[\x20-\x7e]{1,16384}")


def label(text: str, field: str) -> str:
    """Any identifier. Raises: INVALID_FIELD."""
    if not is_label(text):
        raise invalid(field, LABEL_WANTED)
    return text


def tenant_id(text: str, field: str = "tenant") -> TenantId:
    """A tenant's id."""
    return TenantId(label(text, field))


def integration_id(text: str, field: str = "integration") -> IntegrationId:
    """An integration's id."""
    return IntegrationId(label(text, field))


def credential_id(text: str, field: str = "credential") -> CredentialId:
    """A credential's id."""
    return CredentialId(label(text, field))


def key_id(text: str, field: str = "key") -> KeyId:
    """A key's id."""
    return KeyId(label(text, field))


def page(page_size: int, page_token: str) -> tuple[str, int]:
    """Where the page begins and how long it is. The token is the last id of the page before (AIP-158).

    Raises: INVALID_FIELD, INVALID_PAGE_TOKEN.
    """
    if page_size < 0:
        raise invalid("page_size", "0 or more is wanted")
    if page_token and not is_label(page_token):
        raise ConnectorsError(Reason.INVALID_PAGE_TOKEN)
    return page_token, min(page_size or PAGE_DEFAULT, PAGE_MOST)


def display_name(text: str, field: str) -> str:
    """Up to 200 printable characters."""
    if len(text) > 200 or PRINTABLE.fullmatch(text) is None:
        raise invalid(field, "up to 200 printable characters are wanted")
    return text


def labels(pairs: Mapping[str, str], field: str) -> dict[str, str]:
    """Up to 32 pairs."""
    fits = all(1 <= len(k) <= 63 and len(v) <= 200 and PRINTABLE.fullmatch(k + v) for k, v in pairs.items())
    if len(pairs) > 32 or not fits:
        raise invalid(field, "at most 32 pairs, keys of 1 to 63 and values of up to 200 printable characters")
    return dict(pairs)


def quota(bounds: tenants.Quota, field: str) -> Quota:
    """What a tenant may use of one process. Raises: INVALID_FIELD."""
    for name, most in MOST_OF_QUOTA.items():
        if not 0 <= getattr(bounds, name) <= most:
            raise invalid(f"{field}.{name}", f"0 to {most} is wanted")
    return Quota(bounds.calls_at_once, bounds.calls_per_second, bounds.bytes_per_second)


def allowed_integrations(tenant: tenants.Tenant, field: str) -> tuple[IntegrationId, ...] | None:
    """Which integrations a tenant may use; None: all. Raises: INVALID_FIELD."""
    if not tenant.HasField("allowed_integrations"):
        return None
    found = tenant.allowed_integrations.integrations
    where = f"{field}.allowed_integrations.integrations"
    if len(found) > MOST_INTEGRATIONS:
        raise invalid(where, f"at most {MOST_INTEGRATIONS} are wanted")
    return tuple(sorted({integration_id(name, f"{where}[{at}]") for at, name in enumerate(found)}))


def request_id(text: str) -> str:
    """A UUID, or empty."""
    if text and UUID.fullmatch(text) is None:
        raise invalid("request_id", "a UUID is wanted")
    return text.lower()


def version(etag: str) -> int:
    """The version that an etag names; 0 if none was given. Raises: CONFLICT for what is no etag of ours."""
    if not etag:
        return 0
    if not (etag.isascii() and etag.isdigit() and len(etag) < 16 and int(etag)):
        raise ConnectorsError(Reason.CONFLICT)
    return int(etag)


def secret_text(text: str, field: str, *, empty: bool = False) -> str:
    """Visible ASCII, 1 to 16,384 characters: what can stand in a header line (attack 19)."""
    if (text or not empty) and (SECRET.fullmatch(text) is None or text != text.strip()):
        raise invalid(field, "1 to 16,384 visible ASCII characters are wanted, without surrounding white space")
    return text


def mask(given: FieldMask, message: Message, known: Iterable[str]) -> set[str]:
    """Which fields an update changes: the mask's, all for `*`, those that are set for none (AIP-134)."""
    allowed = set(known)
    if not given.paths:
        return {d.name for d, _ in message.ListFields()} & allowed
    if list(given.paths) == ["*"]:
        return allowed
    unknown = set(given.paths) - allowed
    if unknown:
        raise invalid("update_mask", f"only {', '.join(sorted(allowed))} or * may be named")
    return set(given.paths)


def moment(time: Timestamp, field: str) -> datetime:
    """An aware datetime. Raises: INVALID_FIELD for years before 1970 or after 9998."""
    if not (0 <= time.seconds < 253_339_228_800 and 0 <= time.nanos < BILLION):
        raise invalid(field, "a time between 1970 and 9998 is wanted")
    return time.ToDatetime(tzinfo=UTC)


def length(duration: Duration, field: str, most: timedelta) -> timedelta:
    """A length of time, 0 to `most`."""
    if not (0 <= duration.seconds <= most.total_seconds() and 0 <= duration.nanos < BILLION):
        raise invalid(field, f"0 to {int(most.total_seconds())} s is wanted")
    return duration.ToTimedelta()
