"""What a connection remembers of its app changes no verdict, and no byte of what is sent: a law over any sequence of requests."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from connectors_grpc.inject import Injection, Plan
from connectors_grpc.secret import Secret
from sidecar.admission import Door, Visitor
from sidecar.engine import heads
from sidecar.framing import Malformed, Own, head_end, parse_request
from sidecar.problem import Problem
from sidecar.route import Credential, Fixed, Tenant

KEYS = [b"cnk_app_" + letter * 43 for letter in (b"a", b"b")]
TARGETS = st.sampled_from(
    [b"/~acme/notes/v1", b"/~acme/notes", b"/~acme/notes?q=1", b"/~acme/notesx/v1", b"/~beta/notes/v1", b"/notes/v1", b"/notes",
     b"/~acme/notes/../x", b"/~acme/notes/%2e%2e/x", b"/~acme/notes//v1", b"*", b"http://h/", b"/"]
)  # fmt: skip
LINES = st.lists(
    st.sampled_from(
        [*(b"Authorization: Bearer " + key for key in KEYS), *(b"X-Connectors-Key: " + key for key in KEYS),
         b"Authorization: Bearer sk-dummy", b"X-Api-Key: " + KEYS[0], b"X-Tenant-Id: acme", b"X-Tenant-Id: beta",
         b"X-Tenant-Id: A", b"Notion-Version: 2", b"Cookie: a=b", b"X-Plain: 1", b"Connection: close, X-Plain",
         b"Content-Length: 2", b"X-Inject: mine",
         b"Origin: http://evil.test", b"Sec-Fetch-Site: none", b"Sec-Fetch-Site: same-origin"]
    ),
    max_size=4,
)  # fmt: skip
METHODS = st.sampled_from([b"GET", b"OPTIONS", b"TRACE", b"CONNECT"])
HOSTS = st.sampled_from([b"here:1", b"HERE:1", b"evil.test", b"here:1:2"])
DOORS = [
    Door(frozenset((b"here:1",)), key_required=True),
    Door(None, key_required=False),
    Door(None, key_required=False, fixed=Fixed(Tenant("acme"), Credential("notes"))),
]
Verdict = tuple[object, ...]


def plan(name: str, value: str, **more: str) -> Plan:
    """Of one integration."""
    return Plan.of(
        Injection({name: Secret(value)}, {}),
        base_url="https://api.test",
        allowed_hosts=["api.test"],
        default_headers=more,
    )


PLANS = {
    "acme": plan("Authorization", "Bearer acme", **{"Notion-Version": "1"}),
    "beta": plan("Authorization", "Bearer beta", **{"Notion-Version": "1"}),
    None: plan("X-Inject", "nobody"),
}


def verdict(visitor: Visitor, head: bytes) -> Verdict:
    """Admitted, or how it was refused."""
    try:
        assert head_end(head + head, visitor.own) == len(head)
        parsed = parse_request(head, visitor.own)
        visitor.check_host(parsed)
        admitted = visitor.admit(parsed)
    except Problem as problem:
        return Problem, (problem.reason, problem.detail, problem.close)
    except Malformed as malformed:
        return Malformed, malformed.args
    sent = heads.request(parsed, PLANS[admitted.route.tenant], admitted.target)
    return admitted.route, admitted.target, admitted.ask, sent


@given(
    st.sampled_from(DOORS), st.lists(st.tuples(METHODS, TARGETS, HOSTS, LINES), min_size=2, max_size=6)
)  # fmt: skip
@example(DOORS[0], [(b"GET", b"/~acme/notes/v1", b"here:1", [b"Authorization: Bearer " + key]) for key in KEYS])
@example(DOORS[2], [(b"GET", b"/v1", b"a", []), (b"OPTIONS", b"*", b"a", [])])
def test_a_connection_that_saw_other_requests_judges_as_a_new_one(
    door: Door, requests: list[tuple[bytes, bytes, bytes, list[bytes]]]
) -> None:
    """The same admission with the same head for the provider, or the same refusal, whatever came before."""
    visitor = Visitor(door)
    for method, target, host, lines in requests:
        text = b"".join(line + b"\r\n" for line in [b"Host: " + host, *lines])
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, text)
        assert verdict(visitor, head) == verdict(Visitor(door), head)


def test_an_app_that_sends_the_same_lines_again_has_them_read_once() -> None:
    """Whatever it calls; with other lines they are read anew, and a long block is not kept."""
    own = Own()
    lines = b"Host: a\r\nX-Plain: 1\r\n\r\n"
    first = parse_request(b"GET /1 HTTP/1.1\r\n" + lines, own).block
    assert parse_request(b"POST /2 HTTP/1.1\r\n" + lines, own).block is first
    assert parse_request(b"GET /1 HTTP/1.1\r\nX-More: 1\r\n" + lines, own).block is own.last is not first
    kept = own.last
    parse_request(b"GET /1 HTTP/1.1\r\nX-Long: %b\r\n" % (b"x" * 5000) + lines, own)
    assert own.last is kept


def test_what_may_hold_a_secret_is_remembered_by_its_connection_alone() -> None:
    """And only so much of it."""
    own = Own()
    for number in range(100):
        parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: session=%d\r\nX-Plain: 1\r\n\r\n" % number, own)
    assert 0 < len(own.lines) <= 16
    assert all(line.startswith(b"Cookie") for line in own.lines)
