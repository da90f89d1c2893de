"""The engine's reading of both sides held against h11's, whole and byte by byte. The longer form is `make fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.laws import answer_law, request_law
from tests.fuzz.wire import BEFORE, HOST, KEY

SHORT = settings(max_examples=400)

END = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])
KEYED = b"Authorization: Bearer " + KEY.encode()
LINES = [
    b"Host: " + HOST, KEYED, b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: 03", b"Content-Length: +3",
    b"Content-Length: 3, 3", b"Content-Length : 3", b"content_length: 3", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked, identity", b"Connection: close", b"Connection: keep-alive",
    b"Connection: content-length", b"Expect: 100-continue", b"X-A: b", b"X-A:", b": b", b"X-A", b" folded", b"X-\xe9: a",
    b"X-A: \xe9", b"X-A: a\x00b", b"Cookie: a=b", b"Via: 1.1 a", b"Upgrade: h2c", b"Trailer: X-T", b"TE: trailers",
]  # fmt: skip
BODIES = st.sampled_from([
    b"", b"abc", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"3;x=y\r\nabc\r\n0\r\n\r\n", b"03\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    b"3\nabc\n0\n\n", b"3\r\nabcd\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n",
    b"0\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"ffffffffffffffff\r\nabc", b"3\r\nabc\r\n0\r\n",
])  # fmt: skip


@st.composite
def messages(draw: st.DrawFn, first: st.SearchStrategy[bytes], needed: list[bytes]) -> bytes:
    """A message, mostly sound, with lines that two readers may take differently, and perhaps a byte changed."""
    lines = draw(st.lists(st.sampled_from(LINES), max_size=4))
    if draw(st.integers(0, 9)):
        lines = [*needed, *lines]
    out = draw(first) + draw(END)
    for line in draw(st.permutations(lines)):
        out += line + draw(END)
    out += draw(END) + draw(BODIES)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(out)))
        cut = draw(st.integers(0, 2))
        out = out[:at] + draw(st.binary(max_size=3)) + out[at + cut :]
    return out


REQUEST_LINES = st.builds(
    b"%b%b%b%b%b".__mod__,
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"get", b"OPTIONS", b"CONNECT", b"G(T", b""]),
        st.sampled_from([b" "] * 6 + [b"  ", b"\t"]),
        st.sampled_from([
            BEFORE + b"/v1/a", BEFORE + b"/v1/b?c=d", BEFORE + b"/a%2Fb", BEFORE + b"/../c", BEFORE + b"//d", BEFORE + b"/\xe9",
            b"/~globex/notes/x", b"*", b"http://api.test/x", b"",
        ]),
        st.sampled_from([b" "] * 6 + [b"  ", b"\t"]),
        st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10", b"HTTP/0.9", b""]),
    ),
)  # fmt: skip
STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 6
    + [b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 ", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue",
       b"HTTP/1.1 101 Switching", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/2 200 OK", b"ICY 200 OK", b"HTTP/1.1 600 X",
       b"HTTP/1.1 401 No", b"HTTP/1.1 500 \xe9", b"HTTP/1.1  200 OK", b" HTTP/1.1 200 OK"]
)  # fmt: skip
REQUESTS = st.lists(messages(REQUEST_LINES, [b"Host: " + HOST, KEYED]), min_size=1, max_size=3).map(b"".join)
ANSWERS = messages(STATUS_LINES, [])


async def test_the_laws_see_what_passes() -> None:
    """Sound messages do pass, so that the laws below are not kept by silence."""
    one = b"POST %b/v1/a HTTP/1.1\r\nHost: %b\r\n%b\r\nContent-Length: 3\r\n\r\nabc" % (BEFORE, HOST, KEYED)
    assert [message.core for message in request_law(one + one, 1)] == [((b"POST", b"/v1/a"), b"abc")] * 2
    answer = answer_law(b"HTTP/1.0 200 OK\r\n\r\nabc", ended=True)
    assert answer is not None
    assert answer.core == ((b"200",), b"abc")


@pytest.mark.parametrize("line", [b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked", b"Content-Length: 3"])
async def test_an_answer_whose_trailers_speak_of_framing_is_none(line: bytes) -> None:
    """The second reader refuses some of them; found by the guided fuzzer."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n%b\r\n\r\n" % line
    assert answer_law(data, ended=False) is None
    assert answer_law(data, ended=False, size=1) is None


@SHORT
@given(REQUESTS)
async def test_what_reaches_the_upstream_is_what_a_second_reader_saw(data: bytes) -> None:
    """Whole and byte by byte alike: the same requests, with our token, none besides."""
    assert request_law(data) == request_law(data, 1)


@SHORT
@given(ANSWERS, st.booleans(), st.sampled_from([b"GET", b"HEAD", b"POST"]))
async def test_what_reaches_the_app_is_what_a_second_reader_saw(data: bytes, ended: bool, method: bytes) -> None:
    """Whole and byte by byte alike: the same answer, or a refusal or a broken connection for both."""
    whole = answer_law(data, method=method, ended=ended)
    single = answer_law(data, method=method, ended=ended, size=1)
    assert (whole and whole.core) == (single and single.core)


@SHORT
@given(st.binary(max_size=300))
async def test_noise_never_reaches_the_upstream(data: bytes) -> None:
    """From either side, whole or cut."""
    assert request_law(data) == request_law(data, 7)
    answer_law(data, ended=True)
