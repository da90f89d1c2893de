"""Serving the simulated provider on a loopback socket until it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import uvicorn

from connectors_grpc.simulator.app import create_app
from connectors_grpc.simulator.settings import SimulatorSettings
from connectors_grpc.simulator.simulator import Simulator

START_DEADLINE = 10.0
STOP_DEADLINE = 5.0
MOST_CONNECTIONS = 1_000
KEEP_ALIVE = 60
"""Seconds. Longer than clients keep a connection, so that no request meets its end: a token request is not sent again."""


async def serve(settings: SimulatorSettings, ready: Callable[[str], None]) -> None:
    """Serve until cancelled; `ready` is called once with the URL. Raises: StateFileInvalid, OSError."""
    async with running(settings) as simulator:
        ready(simulator.url)
        await simulator.closing.wait()


@contextlib.asynccontextmanager
async def running(settings: SimulatorSettings, clock: Callable[[], float] = time.time) -> AsyncIterator[Simulator]:
    """A simulator that serves while the block runs. Raises: StateFileInvalid, OSError."""
    listener = _listen(settings)
    try:
        app = create_app(replace(settings, port=listener.getsockname()[1]), clock)
        simulator: Simulator = app.state.simulator
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,  # it would print codes and states
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve([listener]))
        task.add_done_callback(lambda _: simulator.close())  # should it die by itself, `serve` ends too
        try:
            async with asyncio.timeout(START_DEADLINE):
                await server.up.wait()
            yield simulator
        finally:
            simulator.close()
            server.should_exit = True
            await asyncio.wait([task], timeout=STOP_DEADLINE)
            if not task.done():
                task.cancel()
            await task
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs the loop, and says when it accepts."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


def _listen(settings: SimulatorSettings) -> socket.socket:
    """A listening socket on the loopback address asked for. Raises: OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    # The protocol is named, or asyncio leaves Nagle's algorithm on and every reply costs 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, settings.port))
        listener.listen(128)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
