"""Fill a definition's templates with a credential's fields: done by the server, once a lease. Knows no URL and no request."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from connectors_grpc.domain.definition import Placement
from connectors_grpc.secret import Secret

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,62})\}")
FIELD_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]*")
"""What may stand in a field line.  Source: RFC 9110 section 5.5, without HTAB."""


class PlaceholderUnresolved(Exception):
    """A template names a field that the credential does not have. `args[0]` is the field's name."""


class FieldRefused(Exception):
    """A resolved value can't stand where it should (CR, LF, NUL, or a colon in a Basic user name). `args[0]` names the place."""


@dataclass(frozen=True, slots=True)
class Injection:
    """Resolved fields: header lines and query parameters, by name."""

    headers: Mapping[str, Secret]
    query: Mapping[str, Secret]


def resolve(placement: Placement, fields: Mapping[str, Secret]) -> Injection:
    """Fill a definition's templates with a credential's fields.

    Raises: PlaceholderUnresolved (attack 23), FieldRefused (attack 19).
    """
    headers = {name: _fill(template, fields, name) for name, template in placement.headers.items()}
    if placement.basic is not None:
        username = _fill(placement.basic.username, fields, "username").reveal()
        password = _fill(placement.basic.password, fields, "password").reveal()
        if ":" in username:
            raise FieldRefused("username")
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        headers["Authorization"] = Secret(f"Basic {pair}")
    return Injection(headers, {name: _fill(template, fields, name) for name, template in placement.query.items()})


def _fill(template: str, fields: Mapping[str, Secret], place: str) -> Secret:
    def value(match: re.Match[str]) -> str:
        try:
            return fields[match[1]].reveal()
        except KeyError:
            raise PlaceholderUnresolved(match[1]) from None

    text = PLACEHOLDER.sub(value, template)
    if FIELD_VALUE.fullmatch(text) is None or text != text.strip():
        raise FieldRefused(place)
    return Secret(text)
