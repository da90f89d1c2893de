"""Peers that reset connections as they are made, on the event loop that production uses: never a bug of ours."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.outbound import HttpOutbound
from connectors_grpc.ports import HttpRequest
from connectors_grpc.vault.adapter import AsyncAdapter
from connectors_grpc.vault.settings import VaultSettings

AT_ONCE, CALLS = 24, 120
"""In one call of ten uvloop learns of the reset after it has reported the connection, and before anybody asks for its socket."""
RESETS = struct.pack("ii", 1, 0)


def _serve(listener: socket.socket) -> None:
    """Reset every connection, until the listener is shut down."""
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        peer.close()


@contextlib.contextmanager
def resetting(listener: socket.socket) -> Iterator[None]:
    """That listener, resetting all that comes, in a thread: while the loop is busy with one call, the next is reset."""
    with listener:
        listener.listen(AT_ONCE)
        thread = threading.Thread(target=_serve, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def reasons(call: Callable[[], Awaitable[object]]) -> set[Reason]:
    """Why calls failed, many at once, again and again. Raises: anything that is not an error of ours."""
    found = set()

    async def again() -> None:
        for _ in range(CALLS // AT_ONCE):
            with pytest.raises(ConnectorsError) as caught:
                await call()
            found.add(caught.value.reason)

    async with asyncio.timeout(60):
        await asyncio.gather(*(again() for _ in range(AT_ONCE)))
    return found


@pytest.fixture(params=["tcp", "unix"])
def vault(request: pytest.FixtureRequest, short_tmp: Path, tmp_path: Path) -> Iterator[VaultSettings]:
    """The way to a Vault that resets."""
    token = tmp_path / "token"
    token.write_text("t")
    family = socket.AF_INET if request.param == "tcp" else socket.AF_UNIX
    listener = socket.socket(family)
    listener.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(short_tmp / "resetting"))
    name = listener.getsockname()
    with resetting(listener):
        yield VaultSettings(
            address=f"http://127.0.0.1:{name[1]}" if family == socket.AF_INET else f"unix://{name}", token_file=token
        )


async def test_a_vault_that_resets_connections_as_they_are_made_is_away(vault: VaultSettings) -> None:
    """As a node does that is killed: VAULT_UNAVAILABLE, over TCP and over the Unix socket."""

    async def ask() -> set[Reason]:
        adapter = AsyncAdapter(vault)
        try:
            return await reasons(lambda: adapter.request("get", "/v1/secret/data/a/b"))
        finally:
            await adapter.aclose()

    assert await asyncio.to_thread(uvloop.run, ask()) == {Reason.VAULT_UNAVAILABLE}


async def test_a_provider_that_resets_connections_as_they_are_made_is_unavailable() -> None:
    """PROVIDER_UNAVAILABLE."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    request = HttpRequest(
        "GET",
        f"http://127.0.0.1:{listener.getsockname()[1]}/",
        (),
        b"",
        allow_private_addresses=True,
        timeout=30,
        max_body=1024,
    )

    async def send() -> set[Reason]:
        outbound = HttpOutbound()
        try:
            return await reasons(lambda: outbound.send(request))
        finally:
            await outbound.aclose()

    with resetting(listener):
        assert await asyncio.to_thread(uvloop.run, send()) == {Reason.PROVIDER_UNAVAILABLE}
