"""How a document of many texts goes through OpenBao, which refuses a request of more than 1,000 JSON strings.

Names of members count as strings. Such a document is stored as one member whose value is the document as JSON; all others
stay as they are, to be read by people and by `bao kv get`. Pure.
Source: OpenBao's listener parameter `max_request_json_strings`, 1,000 unless set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from connectors_grpc.ports import Json

PACKED: Final = "packed_json"
MOST_STRINGS: Final = 900
"""Below OpenBao's bound by what the request itself needs, and by some for a Vault that counts in another way."""


def pack(data: Json) -> Json:
    """As it is to be stored. What looks packed is packed again, so that `unpack` gives back exactly what came."""
    if set(data) != {PACKED} and _strings(data) <= MOST_STRINGS:
        return data
    return {PACKED: json.dumps(data, separators=(",", ":"), ensure_ascii=False)}


def unpack(stored: Mapping[str, Any]) -> dict[str, Any]:
    """As it was given to `pack`.  Raises: ValueError if it is no packed document after all."""
    if set(stored) != {PACKED}:
        return dict(stored)
    text = stored[PACKED]
    data = json.loads(text) if isinstance(text, str) else None
    if isinstance(data, dict):
        return data
    raise ValueError("a packed document is an object as JSON")


def _strings(value: object) -> int:
    """How many there are, names included."""
    match value:
        case str():
            return 1
        case dict():
            return sum(1 + _strings(item) for item in value.values())
        case list() | tuple():
            return sum(map(_strings, value))
        case _:
            return 0
