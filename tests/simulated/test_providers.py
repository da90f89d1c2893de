"""The helpers themselves: the recording upstream keeps exact bytes, the browser behaves as browsers do."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from tests.providers import UpstreamRequest, browser, recording_upstream

PAGE = (
    b'<form action="/go?x=1" method="post"><input type="hidden" name="h" value="&quot;1"><input name="login">'
    b'<input type="password" name="p"><select name="s"><option value="a"><option value="bob"></select>'
    b'<button name="d" value="yes">Yes</button><button name="d" value="no">No</button></form>'
)


def html(body: bytes, *headers: bytes) -> bytes:
    """A raw reply with a page."""
    head = [b"HTTP/1.1 200 OK", b"Content-Type: text/html", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_the_upstream_keeps_heads_and_bodies_byte_for_byte() -> None:
    """Names as sent, order as sent, chunked framing beside the decoded body."""
    head = b"POST /a%2Fb?q HTTP/1.1\r\nHOST: x\r\nx-Odd:  v \r\nTransfer-Encoding: chunked\r\n\r\n"
    framed = b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
    async with recording_upstream() as up:
        _reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(head + framed + b"GET /second HTTP/1.1\r\n\r\n")
        first, second = await up.seen(2)
        writer.close()
        await writer.wait_closed()
        assert (first.head, first.raw_body, first.body) == (head, framed, b"abcde")
        assert (first.method, first.target) == ("POST", "/a%2Fb?q")
        assert first.headers[1] == ("x-Odd", "v")
        assert first.header("host") == ["x"]
        assert (second.target, second.connection, up.connections) == ("/second", 1, 1)


async def test_the_upstream_answers_as_told_and_counts_connections() -> None:
    """In order from the list, then by the function; closed where asked."""

    def named(request: UpstreamRequest) -> bytes:
        body = request.target.encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async with recording_upstream(named) as up, httpx2.AsyncClient(trust_env=False) as http:
        up.replies = [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b""]
        assert (await http.get(up.url)).status_code == 503
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get(up.url)
        assert (await http.get(f"{up.url}/x")).text == "/x"
        assert (await http.get(f"{up.url}/y")).text == "/y"
        assert (up.connections, len(up.requests)) == (3, 4)


async def test_the_upstream_hands_over_its_connection_where_a_handler_is_set() -> None:
    """For early replies, half replies and hangs."""
    async with recording_upstream() as up, httpx2.AsyncClient(trust_env=False) as http:

        async def early(head: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()

        up.handler = early
        assert (await http.post(up.url, content=b"x" * 10)).status_code == 413
        assert (await up.seen_heads(1))[0].startswith(b"POST / HTTP/1.1\r\n")


async def test_a_person_fills_in_the_form_and_keeps_the_cookies() -> None:
    """Hidden fields, account, select, the first button; Origin and Sec-Fetch-Site as a browser sends them."""
    async with recording_upstream() as there, recording_upstream(html(b"done")) as up, browser() as person:
        up.replies = [
            html(PAGE, b"Set-Cookie: c=1; Path=/"),
            b"HTTP/1.1 303 See Other\r\nLocation: /end\r\nContent-Length: 0\r\n\r\n",
        ]
        there.reply = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % up.url.encode()
        page = await person.consent(there.url, account="bob")
        assert (page.text, str(page.url)) == ("done", f"{up.url}/end")
        _, posted, last = up.requests
        assert posted.target == "/go?x=1"
        assert posted.body == b"d=yes&h=%221&login=bob&p=a+password&s=bob"
        assert posted.header("cookie") == ["c=1"]
        assert (posted.header("origin"), posted.header("sec-fetch-site")) == ([up.url], ["same-origin"])
        assert up.requests[0].header("sec-fetch-site") == ["none"]
        assert (last.method, last.body) == ("GET", b"")


async def test_a_person_presses_the_button_they_are_told_to() -> None:
    """To refuse, for one."""
    async with recording_upstream(html(b"done")) as up, browser() as person:
        up.replies = [html(PAGE)]
        await person.consent(up.url, press="no")
        assert up.requests[1].body.startswith(b"d=no&")


async def test_pages_in_a_circle_end_with_an_error() -> None:
    """Not with a hang."""
    async with recording_upstream(html(PAGE)) as up, browser() as person:
        with pytest.raises(RuntimeError):
            await person.consent(up.url)
