"""The engine on real sockets: one request after the other, on connections that are used again."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.limits import Limits
from tests.ports import free_port
from tests.sidecar.harness import OK, SOON, Got, World, world


async def test_a_request_goes_out_with_the_tenants_credential_and_its_answer_comes_back(w: World) -> None:
    """The first thing to work."""
    answer = await w.ask("/~acme/notes/v1/pages?x=1", b"Accept: text/plain\r\n")
    assert (answer.status, answer.body) == (200, b"ok")
    got = w.provider.got[0]
    assert got.line == b"GET /v1/pages?x=1 HTTP/1.1"
    assert got.all(b"authorization") == [w.token()]
    assert got.all(b"host") == [f"127.0.0.1:{w.provider.port}".encode()]
    assert got.all(b"accept") == [b"text/plain"]


async def test_connections_are_used_again_on_both_sides(w: World) -> None:
    """Keep-alive that silently reconnects would pass every other test."""
    app = await w.app()
    for _ in range(50):
        assert (await app.ask(w.request())).status == 200
    assert len(w.provider.got) == 50
    assert w.provider.connections == 1
    assert len(w.server.asked) == 1


async def test_pipelined_requests_are_answered_strictly_in_order(w: World) -> None:
    """The second is not even read while the first is in flight."""

    async def reply(got: Got, writer: asyncio.StreamWriter) -> bytes:
        body = got.line.split()[1]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    w.provider.reply = reply
    app = await w.app()
    await app.send(b"".join(w.request(f"/~acme/notes/{n}", b"", "POST", b"x" * n) for n in range(40)))
    for n in range(40):
        assert (await app.answer()).body == b"/%d" % n
    assert w.provider.connections == 1


async def test_a_pipelined_request_whose_body_comes_later_is_read_on(w: World) -> None:
    """Behind one in flight, and behind one that is refused."""
    gate = asyncio.Event()

    async def wait(got: Got, writer: asyncio.StreamWriter) -> bytes:
        await gate.wait()
        return OK

    w.provider.replies = [wait]
    app = await w.app()
    body = b"x" * 1_000_000
    post = w.request(method="POST", body=body)
    await app.send(w.request() + post[:300])
    await w.until(lambda: len(w.provider.got) == 1)
    gate.set()
    assert (await app.answer()).status == 200
    await app.send(post[300:] + w.request("/~acme/unknown/x") + post[:400])
    assert [(await app.answer()).status for _ in range(2)] == [200, 404]
    await app.send(post[400:])
    assert (await app.answer()).status == 200
    assert [len(got.body) for got in w.provider.got] == [0, len(body), len(body)]


async def test_a_refused_request_does_not_take_the_next_with_it(w: World) -> None:
    """Refused after its body was read: what lies behind is the next request."""
    w.connect(refused_urls=[f"http://127.0.0.1:{w.provider.port}/token"])
    app = await w.app()
    assert (await app.ask(w.request())).status == 200
    await app.send(
        w.request("/~acme/notes/token", b"", "POST", b"abc")
        + w.request()
        + w.request("/~acme/notes/token")
        + w.request()
    )
    assert [(await app.answer()).status for _ in range(4)] == [403, 200, 403, 200]


async def test_refusals_between_pipelined_requests_keep_their_place(w: World) -> None:
    """Our own answers take their turn, and the connection goes on."""
    app = await w.app()
    await app.send(
        w.request() + w.request("/~acme/unknown/x", method="POST", body=b"abc") + w.request("/-/healthz") + w.request()
    )
    assert [(await app.answer()).status for _ in range(4)] == [200, 404, 200, 200]


async def test_a_head_that_comes_byte_by_byte_is_read_the_same(w: World) -> None:
    """As is a body."""
    app = await w.app()
    for byte in w.request(method="POST", body=b"hello"):
        app.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await app.answer()).status == 200
    assert w.provider.got[0].body == b"hello"


async def test_head_204_and_304_have_no_body_whatever_their_length_says(w: World) -> None:
    """And the connections stay good."""
    app = await w.app()
    w.provider.replies = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: x\r\n\r\n",
    ]
    answer = await app.ask(w.request(method="HEAD"), "HEAD")
    assert answer.all(b"content-length") == [b"1234"]
    assert (await app.ask(w.request())).status == 204
    assert (await app.ask(w.request())).status == 304
    assert (await app.ask(w.request())).body == b"ok"
    assert w.provider.connections == 1


async def test_100_continue_and_other_interim_answers_pass(w: World) -> None:
    """The app waits for the 100 before it sends its body."""

    async def on_head(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        assert b"expect: 100-continue" in head.lower()
        writer.write(b"HTTP/1.1 103 Early Hints\r\nX-Connectors-Evil: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        return False

    w.provider.on_head = on_head
    app = await w.app()
    request = w.request(lines=b"Expect: 100-continue\r\n", method="POST", body=b"hello")
    head, _, body = request.partition(b"\r\n\r\n")
    await app.send(head + b"\r\n\r\n")
    early = await app.answer()
    assert early.status == 103
    assert b"connectors" not in early.head.lower()
    assert (await app.answer()).status == 100
    await app.send(body)
    assert (await app.answer()).status == 200
    assert w.provider.got[0].body == b"hello"


async def test_an_http_1_0_app_gets_an_answer_that_it_can_read(w: World) -> None:
    """Decoded, and ended by the connection's end."""
    w.provider.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"
    answer = await w.ask(lines=b"")
    assert answer.body == b"ok!"
    app = await w.app()
    answer = await app.ask(w.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer.body == b"ok!"
    assert answer.all(b"transfer-encoding") == []
    assert await app.closed()


async def test_the_apps_close_is_honoured(w: World) -> None:
    """The provider's connection stays."""
    app = await w.app()
    assert (await app.ask(w.request(lines=b"Connection: close\r\n"))).all(b"connection") == [b"close"]
    assert await app.closed()
    assert (await w.ask()).status == 200
    assert w.provider.connections == 1


async def test_a_connection_that_died_while_idle_is_replaced_for_a_request_that_may_be_repeated(w: World) -> None:
    """GET and PUT are sent again, once; POST is not."""

    async def die(got: Got, writer: asyncio.StreamWriter) -> None:
        return None

    app = await w.app()
    for method, body, status in (("GET", b"", 200), ("PUT", b"abc", 200), ("POST", b"abc", 502)):
        assert (await app.ask(w.request())).status == 200
        w.provider.replies = [die]
        answer = await app.ask(w.request(method=method, body=body))
        assert answer.status == status
    w.provider.replies = [die, die]
    assert (await app.ask(w.request())).status == 502


async def test_an_idle_connection_that_the_provider_ends_is_not_used(w: World) -> None:
    """It leaves the pool as soon as it is seen."""
    assert (await w.ask()).status == 200
    for writer in list(w.provider.writers):
        writer.close()
    await w.shows("upstream_connections 0")
    assert (await w.ask(method="POST", body=b"x")).status == 200


async def test_an_app_that_leaves_takes_its_request_with_it(w: World) -> None:
    """The provider's connection is cut, so that it need not go on."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def wait(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked.set()
        assert await reader.read() == b""
        left.set()
        return True

    w.provider.on_head = wait
    app = await w.app()
    await app.send(w.request())
    await asked.wait()
    app.close()
    await asyncio.wait_for(left.wait(), SOON)


async def test_an_upstream_that_is_too_slow_is_given_up(w: World) -> None:
    """504, by a deadline of each phase."""

    async def hang(got: Got, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with world(limits=Limits(first_byte=0.1, tick=0.02)) as slow:
        slow.provider.reply = hang
        answer = await slow.ask()
        assert (answer.status, answer.reason) == (504, "UPSTREAM_TIMEOUT")


async def test_an_answer_that_stalls_is_cut(w: World) -> None:
    """The app sees that it is not whole."""
    async with world(limits=Limits(idle=0.1, tick=0.02)) as slow:

        async def stall(got: Got, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await asyncio.Event().wait()

        slow.provider.reply = stall
        app = await slow.app()
        await app.send(slow.request())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await app.answer()


async def test_an_app_that_is_too_slow_is_told_so(w: World) -> None:
    """Heads and bodies alike: 408, and the connection closes."""
    async with world(limits=Limits(head=0.1, upload_idle=0.1, tick=0.02, linger=0.1)) as impatient:
        for part in (impatient.request()[:20], impatient.request(method="POST", body=b"hello")[:-1]):
            app = await impatient.app()
            assert (await app.ask(part)).status == 408
            assert await app.closed()


async def test_an_unreachable_upstream_is_a_502(w: World) -> None:
    """With what to do."""
    port = free_port()
    w.connect(base_url=f"http://127.0.0.1:{port}", allowed_hosts=[f"127.0.0.1:{port}"])
    answer = await w.ask()
    assert (answer.status, answer.reason) == (502, "UPSTREAM_UNREACHABLE")


async def test_upstream_connections_are_bounded_and_waiting_is_fair(w: World) -> None:
    """More requests than connections: all are served, by no more connections than allowed."""
    async with world(limits=Limits(per_origin=3, tick=0.05)) as small:
        answers = await asyncio.gather(*(small.ask() for _ in range(30)))
        assert [answer.status for answer in answers] == [200] * 30
        assert small.provider.connections <= 3
    async with world(limits=Limits(per_origin=1, waiting=1, tick=0.05)) as tiny:
        gate = asyncio.Event()

        async def wait(got: Got, writer: asyncio.StreamWriter) -> bytes:
            await gate.wait()
            return OK

        tiny.provider.reply = wait
        first = asyncio.create_task(tiny.ask())
        await tiny.until(lambda: len(tiny.provider.got) == 1)
        others = {asyncio.create_task(tiny.ask()) for _ in range(2)}
        done, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        refused = done.pop().result()
        assert (refused.status, refused.reason, refused.all(b"retry-after")) == (429, "LIMIT_EXCEEDED", [b"1"])
        gate.set()
        assert (await first).status == (await waiting.pop()).status == 200


async def test_an_upgrade_that_is_no_websockets_is_not_implemented_or_ignored(w: World) -> None:
    """A malformed one is refused; other protocols are ignored, as HTTP allows."""
    lines = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    assert (await w.ask(lines=lines, method="POST")).status == 501
    assert (await w.ask(lines=b"Connection: upgrade\r\nUpgrade: h2c\r\n")).status == 200
    assert w.provider.got[0].all(b"upgrade") == []


async def test_limits_of_a_head_are_kept(w: World) -> None:
    """431 for headers, 414 for the target."""
    assert (await w.ask(lines=b"".join(b"X-%d: y\r\n" % n for n in range(130)))).status == 431
    assert (await w.ask(lines=b"X: " + b"y" * 70_000 + b"\r\n")).status == 431
    assert (await w.ask("/~acme/notes/" + "x" * 17_000)).status == 414


async def test_links_back_to_the_upstream_lead_to_the_sidecar(w: World) -> None:
    """Pagination by Link goes on with the credential."""
    own = f"http://127.0.0.1:{w.provider.port}"
    w.connect(base_url=f"{own}/api")
    w.provider.reply = (
        f"HTTP/1.1 200 OK\r\nLink: <{own}/api/v1?page=2>; rel=\"next\", <https://docs.example.com/>; rel=help,"
        f" <{own}/other>; rel=x\r\nContent-Location: /api/v1/1\r\nContent-Length: 0\r\n\r\n"
    ).encode()  # fmt: skip
    answer = await w.ask()
    base = f"http://{w.address}/~acme/notes"
    link = f'<{base}/v1?page=2>; rel="next", <https://docs.example.com/>; rel=help, <{own}/other>; rel=x'
    assert answer.all(b"link") == [link.encode()]
    assert answer.all(b"content-location") == [f"{base}/v1/1".encode()]
    assert w.provider.got[0].line == b"GET /api/v1/pages HTTP/1.1"


async def test_a_dedicated_listener_leaves_the_path_alone(w: World) -> None:
    """For SDKs that take no path prefix."""
    async with world(fixed=("acme", "notes")) as fixed:
        app = await fixed.app(fixed.all_addresses[1])
        request = fixed.request("/v1/pages?x=1").replace(fixed.host, fixed.all_addresses[1].encode())
        own = f"http://127.0.0.1:{fixed.provider.port}"
        fixed.provider.reply = f"HTTP/1.1 302 Found\r\nLocation: {own}/v2\r\nContent-Length: 0\r\n\r\n".encode()
        answer = await app.ask(request)
        assert fixed.provider.got[0].line == b"GET /v1/pages?x=1 HTTP/1.1"
        assert answer.all(b"location") == [f"http://{fixed.all_addresses[1]}/v2".encode()]


async def test_stopping_finishes_what_is_in_flight(w: World) -> None:
    """SIGTERM: no new connection, the answer comes, the connection closes."""
    gate = asyncio.Event()

    async def wait(got: Got, writer: asyncio.StreamWriter) -> bytes:
        await gate.wait()
        return OK

    w.provider.reply = wait
    app, idle = await w.app(), await w.app()
    assert (await idle.ask(w.request("/-/readyz"))).status == 200
    await app.send(w.request())
    await w.until(lambda: len(w.provider.got) == 1)
    w.stop.set()
    assert await idle.closed()
    gate.set()
    answer = await app.answer()
    assert (answer.status, answer.all(b"connection")) == (200, [b"close"])
    assert w.running is not None
    await asyncio.wait_for(asyncio.shield(w.running), SOON)


async def test_metrics_are_on_a_port_of_their_own(w: World) -> None:
    """Prometheus text, without tenant or path."""
    async with world() as measured:
        assert (await measured.ask()).status == 200
        assert (await measured.ask("/~acme/nothing/x")).status == 404
        app = await measured.app(measured.all_addresses[-1])
        page = await app.ask(b"GET /-/metrics HTTP/1.1\r\nHost: " + measured.all_addresses[-1].encode() + b"\r\n\r\n")
        assert b'connectors_sidecar_responses_total{integration="notes",status="2xx"} 1' in page.body
        assert b'connectors_sidecar_refusals_total{integration="",reason="CREDENTIAL_NOT_FOUND"} 1' in page.body
        assert b"acme" not in page.body
        app = await measured.app(measured.all_addresses[-1])
        assert (await app.ask(b"GET /-/metrics HTTP/1.1\r\nHost: evil.com\r\n\r\n")).status == 421
