"""Heads and bodies on any bytes: a value or a refusal, the same whole or byte by byte; and as an independent reader sees them."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.body import Chunked, Sized, UntilClose
from sidecar.framing import CHUNKED, UNTIL_CLOSE, Fields, Malformed, parse_request, parse_response, still_text

TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).map(str.encode)
VALUE = st.text([chr(c) for c in (*range(0x20, 0x7F), *range(0x80, 0x100), 9)], max_size=30).map(
    lambda text: text.strip(" \t\x85\xa0").encode("latin-1")
)
LINES = st.lists(st.tuples(TOKEN, VALUE), max_size=8)
NOISE = st.lists(
    st.sampled_from(
        [b"GET / HTTP/1.1", b"\r\n", b"\n", b"\r", b"Host: a", b"Content-Length: 3", b"Content-Length: 4", b" ", b"\t", b":",
         b"\0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"X: y", b"HTTP/1.0", b"\r\n\r\n", b"3", b"a", b"0",
         b";", b"\xff"]
    ),
    max_size=24,
).map(b"".join)  # fmt: skip


def all_pass(fields: Fields) -> Fields:
    """No trailer is dropped."""
    return fields


def head_of(lines: Fields) -> bytes:
    """A request head with these lines."""
    return b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n"


@given(LINES)
def test_a_good_head_is_read_as_it_was_written(lines: Fields) -> None:
    """Names and values exactly, in order, but for the framing lines and the like, which may be refused."""
    try:
        head = parse_request(head_of(lines))
    except Malformed:
        assert any(name.lower().replace(b"_", b"-") in (b"host", b"te") for name, _ in lines)
        return
    assert head.fields == [(b"Host", b"a"), *lines]


def test_a_line_that_is_only_a_known_name_is_malformed() -> None:
    """The cache of names that were seen says nothing of the colon."""
    good = b"GET / HTTP/1.1\r\nHost: a\r\nX-Seen: 1\r\n\r\n"
    parse_request(good)
    for bad in (good.replace(b"X-Seen: 1", b"X-Seen"), good.replace(b"Host: a", b"Host: a\r\nHost")):
        with pytest.raises(Malformed):
            parse_request(bad)


@given(NOISE)
@settings(max_examples=400)
def test_any_bytes_are_a_head_or_malformed(noise: bytes) -> None:
    """Never another exception; and what passes, a strict reader (h11) reads the same."""
    data = b"GET / HTTP/1.1\r\nHost: a" + noise.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        head = parse_request(data)
    except Malformed:
        return
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reader.receive_data(data)
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert [(name.lower(), value) for name, value in head.fields] == list(event.headers)
    assert (event.method, event.target) == (head.method, head.target)
    lengths = [value for name, value in event.headers if name == b"content-length"]
    assert head.length == (CHUNKED if b"transfer-encoding" in dict(event.headers) else int((lengths or [b"0"])[0]))


@given(NOISE)
def test_any_bytes_are_an_answers_head_or_malformed(noise: bytes) -> None:
    """Never another exception."""
    data = b"HTTP/1.1 200 OK\r\n" + noise.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        parse_response(data, b"GET")
    except Malformed:
        return


@given(NOISE)
def test_an_unfinished_head_is_refused_only_if_the_whole_would_be(noise: bytes) -> None:
    """Cut anywhere, what `parse_request` takes was never refused before its end came."""
    data = noise.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        parse_request(data)
    except Malformed:
        return
    for cut in range(1, len(data)):
        assert still_text(data[:cut], b"")
        assert still_text(data[cut : cut + 1], data[cut - 1 : cut])


def feed(body: Chunked | Sized | UntilClose, data: bytes, step: int) -> tuple[bytes, bytes] | None:
    """Everything that came out, and what was left over; None if it was malformed."""
    out, at = b"", 0
    try:
        while at < len(data) and not body.done:
            piece, rest = body.feed(data[at : at + step])
            out += piece
            at = min(len(data), at + step) - len(rest)
        body.end()
    except Malformed:
        return None
    return out, data[at:]


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(CHUNKS, LINES, st.binary(max_size=10))
def test_a_chunked_body_is_the_same_whole_and_byte_by_byte(chunks: list[bytes], trailers: Fields, after: bytes) -> None:
    """Decoded, it is what went in; passed on, an independent reader (h11) finds the same."""
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    wire += b"0\r\n" + b"".join(b"%b: %b\r\n" % line for line in trailers) + b"\r\n"
    for decode in (False, True):
        whole = feed(Chunked(strict=True, keep=all_pass, decode=decode), wire + after, 1 << 20)
        split = feed(Chunked(strict=True, keep=all_pass, decode=decode), wire + after, 1)
        assert whole == split
        if whole is None:
            return
        assert whole[1] == after
        if decode:
            assert whole[0] == b"".join(chunks)
    passed = feed(Chunked(strict=True, keep=all_pass), wire, 7)
    assert passed is not None
    again = feed(Chunked(strict=True, keep=all_pass, decode=True), passed[0], 3)
    assert again == (b"".join(chunks), b"")


@given(NOISE, st.booleans())
@settings(max_examples=400)
def test_any_bytes_are_a_chunked_body_or_malformed_the_same_in_any_pieces(noise: bytes, strict: bool) -> None:
    """The verdict does not depend on how the network cut it."""
    whole = feed(Chunked(strict=strict, keep=all_pass, decode=True), noise, 1 << 20)
    for step in (1, 2, 5):
        assert feed(Chunked(strict=strict, keep=all_pass, decode=True), noise, step) == whole


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(1, 60))
def test_a_sized_body_ends_at_its_size(data: bytes, size: int, step: int) -> None:
    """What lies behind is given back; too little is not whole."""
    got = feed(Sized(size), data, step)
    assert got == ((data[:size], data[size:]) if len(data) >= size else None)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5))
def test_a_body_without_length_becomes_chunks(pieces: list[bytes]) -> None:
    """Which say where it ended."""
    body = UntilClose(chunk=True)
    wire = b"".join(body.feed(piece)[0] for piece in pieces) + body.end()
    assert feed(Chunked(strict=True, keep=all_pass, decode=True), wire, 3) == (b"".join(pieces), b"")


@pytest.mark.parametrize(
    ("status", "lines", "method", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", b"Content-Length: 5\r\n", b"GET", 5, True),
        (b"HTTP/1.1 200", b"Content-Length: 5\r\nConnection: Close\r\n", b"GET", 5, False),
        (b"HTTP/1.1 200 ", b"Transfer-Encoding: Chunked\r\n", b"GET", CHUNKED, True),
        (b"HTTP/1.1 200 OK", b"", b"GET", UNTIL_CLOSE, False),
        (b"HTTP/1.1 200 OK", b"Content-Length: 5\r\n", b"HEAD", 0, True),
        (b"HTTP/1.1 204 No Content", b"", b"GET", 0, True),
        (b"HTTP/1.1 304 Not Modified", b"Content-Length: 5\r\n", b"GET", 0, True),
        (b"HTTP/1.0 200 OK", b"Content-Length: 5\r\n", b"GET", 5, False),
        (b"HTTP/1.0 200 OK", b"Content-Length: 5\r\nConnection: Keep-Alive\r\n", b"GET", 5, True),
    ],
)
def test_where_an_answer_ends(status: bytes, lines: bytes, method: bytes, length: int, keep_alive: bool) -> None:
    """RFC 9112 section 6.3, case by case."""
    head = parse_response(status + b"\r\n" + lines + b"\r\n", method)
    assert (head.length, head.keep_alive) == (length, keep_alive)
