"""Which request becomes a span, and whose child it is: W3C trace context, read strictly. Pure.

The app's `traceparent` and `tracestate` go to the upstream untouched, with spans or without.  Source: W3C Trace Context.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


class Parent(NamedTuple):
    """The caller's span."""

    trace_id: int
    span_id: int
    sampled: bool


def parent(line: bytes) -> Parent | None:
    """What a `traceparent` line says; None if it says nothing that can be used."""
    match = _read(line)
    return Parent(int(match[2], 16), int(match[3], 16), bool(int(match[4], 16) & _SAMPLED)) if match else None


def trace_id(line: bytes) -> str:
    """The trace's id as it is written, or nothing."""
    match = _read(line)
    return match[2].decode() if match else ""


def _read(line: bytes) -> re.Match[bytes] | None:
    match = _PARENT.fullmatch(line) if 55 <= len(line) <= 512 else None
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5] is not None):
        return None
    return None if match[2] == b"0" * 32 or match[3] == b"0" * 16 else match


def wanted(above: Parent | None, ratio: float, draw: float) -> bool:
    """Whether a request becomes a span: as its caller decided, else by chance. `draw` is in [0, 1)."""
    return above.sampled if above is not None else draw < ratio
