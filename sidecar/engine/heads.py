"""Heads as they are written, on both sides. Pure: bytes in, bytes out."""

from __future__ import annotations

from urllib.parse import urlsplit

from connectors_grpc.inject import Plan, Target
from connectors_grpc.inject.target import authority
from sidecar.framing import CHUNKED, Fields, RequestHead, ResponseHead, forget_lines
from sidecar.held import Held
from sidecar.rewrite import Addressing, has_links, rewrite
from sidecar.route import Route


def request(head: RequestHead, plan: Plan, target: Target) -> bytes:
    """What goes to the provider. Raises: PathNotAllowed."""
    block = head.block
    if block.policy is not plan.policy:
        block.policy, block.passed = plan.policy, plan.policy.passed(block.fields)
    end = b"Transfer-Encoding: chunked\r\n\r\n" if head.length == CHUNKED else b"\r\n"
    where = plan.target(target)
    if block.passed is None:
        lines = [b"%b: %b\r\n" % pair for pair in plan.request_headers(block.fields)]
        return b"".join((head.method, b" ", where, b" HTTP/1.1\r\n", *lines, end))
    return b"".join((head.method, b" ", where, b" HTTP/1.1\r\n", plan.before, block.passed, plan.after, end))


def interim(response: ResponseHead, plan: Plan) -> bytes:
    """A 1xx answer."""
    lines = [b"%b: %b\r\n" % pair for pair in plan.response_headers(response.fields)]
    return b"".join((response.line, *lines, b"\r\n"))


def response(
    response: ResponseHead, held: Held, route: Route, head: RequestHead, *, chunked: bool, keep_alive: bool
) -> bytes:
    """What goes to the app."""
    block = held.plan.response_block(response.line, response.written, response.fresh)
    if block is None:
        block = _closely(response, held, route, head)
    return block + _end(route, chunked, keep_alive)


def relayed(
    status: int, fields: Fields, base_url: str, route: Route, head: RequestHead, *, chunked: bool, keep_alive: bool
) -> bytes:
    """What goes to the app where the server made the call: the fields are already those that pass."""
    if has_links(fields):
        parts = urlsplit(base_url)
        where = Addressing(
            _ours(route, head), parts.scheme.encode(), authority(base_url).encode(), parts.path.rstrip("/").encode()
        )
        fields = rewrite(fields, where)
    block = b"".join([b"%b: %b\r\n" % pair for pair in fields])
    return b"".join((b"HTTP/1.1 %d \r\n" % status, block, _end(route, chunked, keep_alive)))


def _ours(route: Route, head: RequestHead) -> bytes:
    return b"http://" + head.marks[b"host"] + route.prefix


def _end(route: Route, chunked: bool, keep_alive: bool) -> bytes:
    """Our own lines, and the empty one."""
    if keep_alive and not chunked and not route.vary:
        return b"\r\n"
    end = b"Vary: X-Tenant-Id\r\n" if route.vary else b""
    if chunked:
        end += b"Transfer-Encoding: chunked\r\n"
    if not keep_alive:
        end += b"Connection: close\r\n"
    return end + b"\r\n"


def _closely(response: ResponseHead, held: Held, route: Route, head: RequestHead) -> bytes:
    """Lines that point at the upstream, or echo the credential, among the rest."""
    plan, line = held.plan, response.line
    if plan.echoes(b"\n".join((line, *response.lines))):
        forget_lines()
        if plan.echoes(line):
            line = b"HTTP/1.1 %d \r\n" % response.status
    fields = plan.response_headers(response.fields)
    if has_links(fields):
        fields = rewrite(fields, Addressing(_ours(route, head), plan.scheme.encode(), plan.authority, plan.base_path))
    return b"".join([line, *[b"%b: %b\r\n" % pair for pair in fields]])
