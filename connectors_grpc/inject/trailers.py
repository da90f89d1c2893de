"""Which trailer fields may pass. Pure.  Source: RFC 9110 section 6.5.1."""

from __future__ import annotations

from connectors_grpc.inject.plan import Headers, Plan

_FRAMING = frozenset(
    (b"content-length", b"transfer-encoding", b"host", b"expect", b"content-encoding", b"content-type")
)
"""Say how a message is read, or where it goes: too late, behind it."""


def request_trailers(plan: Plan, lines: Headers) -> list[tuple[bytes, bytes]]:
    """An app's: none that frames, none like a header of ours."""
    return [pair for pair in plan.passed(lines) if pair[0].lower() not in _FRAMING]


def response_trailers(plan: Plan, lines: Headers) -> list[tuple[bytes, bytes]]:
    """A provider's: none that frames, and as its header lines."""
    return [pair for pair in plan.response_headers(lines) if pair[0].lower() not in _FRAMING]
