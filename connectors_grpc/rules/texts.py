"""The texts that definitions are written in: which characters, how long, templates and pointers. Knows no field."""

from __future__ import annotations

import json
import re

from connectors_grpc.inject.templates import FIELD_VALUE, PLACEHOLDER

LONGEST_VALUE = 1024

_POINTER = re.compile(r"(?:/(?:[\x20-\x2e\x30-\x7d]|~[01])*)+")
"""Source: RFC 6901 section 3."""
_PARAMETER = re.compile(r"[A-Za-z0-9._~\[\]-]{1,64}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


def is_visible(text: str) -> bool:
    """Visible ASCII, not empty."""
    return _VISIBLE.fullmatch(text) is not None


def is_printable(text: str) -> bool:
    """Visible ASCII and spaces; perhaps empty.  Source: RFC 6749 appendix A, VSCHAR."""
    return _PRINTABLE.fullmatch(text) is not None


def is_parameter(name: str) -> bool:
    """A parameter's name: unreserved characters, and brackets."""
    return _PARAMETER.fullmatch(name) is not None


def is_pointer(text: str) -> bool:
    """A JSON pointer, not empty.  Source: RFC 6901 section 3."""
    return len(text) <= 200 and _POINTER.fullmatch(text) is not None


def is_json(text: str) -> bool:
    """JSON, written in ASCII."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return len(text) <= LONGEST_VALUE and is_printable(text)


def is_field_value(text: str, least: int = 1) -> bool:
    """What a header may have, without white space around it."""
    return least <= len(text) <= LONGEST_VALUE and FIELD_VALUE.fullmatch(text) is not None and text == text.strip()


def is_template(text: str) -> bool:
    """A field's value, in which braces stand around names only."""
    rest = PLACEHOLDER.sub("", text)
    return is_field_value(text, least=0) and "{" not in rest and "}" not in rest
