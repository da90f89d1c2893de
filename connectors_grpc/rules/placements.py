"""What a definition may have put into requests: where the credential goes, headers and parameters. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from connectors_grpc.domain.definition import Placement
from connectors_grpc.errors import FieldViolation
from connectors_grpc.inject.plan import CONTROL, CREDENTIALS, FORWARDING, HOP_BY_HOP
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.rules import Violations
from connectors_grpc.rules.texts import LONGEST_VALUE, is_field_value, is_parameter, is_printable, is_template

MOST_ENTRIES = 32

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""A header's name.  Source: RFC 9110 section 5.6.2."""
_NEVER_SET = HOP_BY_HOP | CONTROL | FORWARDING | {b"host", b"content-length", b"cookie", b"cookie2"}


def placement_violations(field: str, placement: Placement) -> Violations:
    """What is wrong with where a credential goes."""
    if not (placement.headers or placement.query or placement.basic):
        yield FieldViolation(field, "say where the credential goes: headers, query or basic")
    if len(placement.headers) + len(placement.query) > MOST_ENTRIES:
        yield FieldViolation(field, f"up to {MOST_ENTRIES} headers and parameters")
    yield from _header_names(f"{field}.headers", placement.headers)
    templates = {
        f"{field}.headers": tuple(placement.headers.values()),
        f"{field}.query": tuple(placement.query.values()),
        f"{field}.basic": (placement.basic.username, placement.basic.password) if placement.basic else (),
    }
    for where, texts in templates.items():
        if not all(is_template(text) for text in texts):
            yield FieldViolation(
                where, "templates of printable characters; braces only around a field's name (`{api_key}`)"
            )
    bare = [text for text in (*placement.headers.values(), *placement.query.values()) if not PLACEHOLDER.search(text)]
    if bare or (placement.basic and not PLACEHOLDER.search(placement.basic.username + placement.basic.password)):
        yield FieldViolation(field, "each names a field of the credential; constants belong to `default_headers`")
    if placement.basic and ":" in PLACEHOLDER.sub("", placement.basic.username):
        yield FieldViolation(f"{field}.basic", "no colon in the user name")
    if placement.basic and any(normal(name) == b"authorization" for name in placement.headers):
        yield FieldViolation(f"{field}.basic", "either `basic` or a header `Authorization`, not both")
    if any(not is_parameter(name) for name in placement.query):
        yield FieldViolation(f"{field}.query", "names of 1 to 64 unreserved characters")


def default_header_violations(field: str, headers: Mapping[str, str], placed: Collection[bytes]) -> Violations:
    """What is wrong with headers that are always sent. `placed`: the names, in one spelling, where the credential goes."""
    if len(headers) > MOST_ENTRIES:
        yield FieldViolation(field, f"up to {MOST_ENTRIES} headers")
    yield from _header_names(field, headers)
    if any(not is_field_value(value) for value in headers.values()):
        yield FieldViolation(field, f"values of 1 to {LONGEST_VALUE} printable characters")
    names = {normal(name) for name in headers}
    if names & (CREDENTIALS | set(placed)):
        yield FieldViolation(field, "never a header that carries the credential; that is `placement`")


def _header_names(field: str, headers: Mapping[str, str]) -> Violations:
    if any(not is_token(name) for name in headers):
        yield FieldViolation(field, "names are HTTP tokens of up to 128 characters")
        return
    names = [normal(name) for name in headers]
    if len(set(names)) < len(names):
        yield FieldViolation(field, "each name once; case does not count, nor `_` for `-`")
    if any(name in _NEVER_SET or name.startswith((b"x-connectors-", b"x-forwarded-")) for name in names):
        yield FieldViolation(field, "no header of framing, routing, cookies, or our own")


def parameter_violations(field: str, parameters: Mapping[str, str], reserved: frozenset[str]) -> Violations:
    """What is wrong with parameters that are always sent."""
    if len(parameters) > MOST_ENTRIES:
        yield FieldViolation(field, f"up to {MOST_ENTRIES} parameters")
    if any(not is_parameter(name) for name in parameters):
        yield FieldViolation(field, "names of 1 to 64 unreserved characters")
    if any(len(value) > LONGEST_VALUE or not is_printable(value) for value in parameters.values()):
        yield FieldViolation(field, f"values of up to {LONGEST_VALUE} printable ASCII characters")
    if reserved & set(parameters):
        yield FieldViolation(field, "not a parameter of the protocol; those are set by the server")


def is_token(name: str) -> bool:
    """A header's name."""
    return _TOKEN.fullmatch(name) is not None


def normal(name: str) -> bytes:
    """A header's name in the one spelling in which names are compared."""
    return name.lower().replace("_", "-").encode("utf-8", "replace")
