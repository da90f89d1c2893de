"""Heads as they are written, on both sides. Pure: bytes in, bytes out."""

from __future__ import annotations

from connectors_grpc.inject import Plan, Target
from sidecar.framing import CHUNKED, Fields, RequestHead, ResponseHead
from sidecar.held import Held
from sidecar.rewrite import Addressing, has_links, rewrite
from sidecar.route import Route

_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host", b"expect"))


def request(head: RequestHead, plan: Plan, target: Target) -> bytes:
    """What goes to the provider. Raises: PathNotAllowed."""
    lines = [head.method + b" " + plan.target(target) + b" HTTP/1.1"]
    lines += map(b": ".join, plan.request_headers(head.fields))
    if head.length == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def request_trailers(fields: Fields, plan: Plan) -> Fields:
    """The trailer fields that pass: none that frames, none like a header of ours.  Source: RFC 9110 section 6.5.1."""
    passed = plan.passed(fields)
    return [pair for pair in passed if pair[0].lower() not in _FRAMING]


def interim(response: ResponseHead, plan: Plan) -> bytes:
    """A 1xx answer."""
    lines = [b"HTTP/1.1 %d %b" % (response.status, response.status_text)]
    lines += map(b": ".join, plan.response_headers(response.fields))
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def response(
    response: ResponseHead, held: Held, route: Route, head: RequestHead, *, chunked: bool, keep_alive: bool
) -> bytes:
    """What goes to the app."""
    plan = held.plan
    fields = plan.response_headers(response.fields)
    if has_links(fields):
        ours = b"http://" + head.marks[b"host"] + route.prefix
        fields = rewrite(fields, Addressing(ours, plan.scheme.encode(), plan.authority, plan.base_path))
    lines = [b"HTTP/1.1 %d %b" % (response.status, response.status_text)]
    lines += map(b": ".join, fields)
    if route.vary:
        lines.append(b"Vary: X-Tenant-Id")
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if not keep_alive:
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)
