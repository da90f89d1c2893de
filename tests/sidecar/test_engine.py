"""The engine on real sockets: one request after the other, on connections that are used again."""

from __future__ import annotations

from tests.sidecar.harness import World


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
