"""Listens: uvicorn, without its access log (it prints `code` and `state`), its signal handlers and its way of giving up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.applications import Starlette

from connectors_grpc.http.protocol import BoundedProtocol
from connectors_grpc.settings import ServerSettings


@asynccontextmanager
async def listening(application: Starlette, settings: ServerSettings) -> AsyncIterator[None]:
    """Serve on `settings.http_listen` for the block. Raises: OSError, the address in its text."""
    config = uvicorn.Config(
        application,
        host=settings.http_listen.host,
        port=settings.http_listen.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        lifespan="off",
        limit_concurrency=500,
        http=BoundedProtocol,
        ws="none",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    server = _Uvicorn(config)
    task = asyncio.create_task(server.serve())
    up = asyncio.create_task(server.up.wait())
    await asyncio.wait((task, up), return_when=asyncio.FIRST_COMPLETED)
    up.cancel()
    if task.done():
        raise OSError(
            f"{settings.http_listen} can't be listened on: is the port in use? Choose another by --http-listen."
        )
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _Uvicorn(uvicorn.Server):
    """Says when it listens; leaves signals to `serve`, and a port that is taken to its caller."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Run; a port that is taken ends it at once."""
        with suppress(SystemExit):
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self.up.set()
