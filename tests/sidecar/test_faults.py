"""What a machine does to a process: no file descriptors, no disk for its logs, a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc.secret import Secret
from sidecar.descriptors import RESERVE, fitted
from sidecar.leases import Ask, Leases
from sidecar.limits import Limits
from sidecar.problem import Problem
from sidecar.route import Credential, Tenant
from sidecar.server import Address, Server
from tests.sidecar.harness import (
    OK,
    QUICK,
    SIDECAR_KEY,
    SOON,
    App,
    Got,
    Provider,
    aged,
    peers,
    process,
    world,
)

DESCRIPTORS = 112
LONG = 500.0


async def ended(app: App) -> None:
    """The sidecar closed the connection, with a word or without."""
    with contextlib.suppress(OSError):
        await app.reader.read()


async def test_a_process_with_few_descriptors_serves_whom_it_has_and_recovers(tmp_path: Path) -> None:
    """Connections beyond them are told so and closed; those that are there are answered; then all is well again."""
    async with process(tmp_path, descriptors=DESCRIPTORS) as (w, running):
        first = await w.app()
        assert (await first.ask(w.request())).status == 200
        for _ in range(2 * DESCRIPTORS):
            with contextlib.suppress(OSError):
                await w.app()
        async with asyncio.timeout(SOON):
            await asyncio.gather(*(ended(app) for app in w.apps[-DESCRIPTORS:]))
        assert running.returncode is None
        for _ in range(20):
            assert (await first.ask(w.request())).status == 200
        for app in w.apps[1:]:
            app.writer.transport.abort()
        async with asyncio.timeout(SOON):
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    if (await w.ask()).status == 200:
                        break
        assert (await first.ask(w.request())).status == 200


async def test_descriptors_are_asked_for_as_far_as_allowed_and_never_used_up() -> None:
    """Half for apps, half for upstreams, and a reserve; what is enough stays as it is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        assert fitted(Limits(connections=200, upstreams=200)) == Limits(connections=200, upstreams=200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 400 + RESERVE
        assert fitted(Limits(connections=9, upstreams=9)) == Limits(connections=9, upstreams=9)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 400 + RESERVE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_upstream_connections_are_bounded_over_all_origins() -> None:
    """One that is idle makes way for another origin's; where all are busy, a request waits for its turn."""
    async with world(limits=replace(QUICK, upstreams=1)) as w:
        other = Provider()
        server = await asyncio.start_server(other.serve, "127.0.0.1", 0)
        other.port = server.sockets[0].getsockname()[1]
        authority = f"127.0.0.1:{other.port}"
        w.connect("acme", "elsewhere", base_url=f"http://{authority}", allowed_hosts=[authority])
        assert (await w.ask()).status == 200
        assert (await w.ask("/~acme/elsewhere/x")).status == 200
        await w.until(lambda: w.provider.open == 0)
        gate = asyncio.Event()

        async def wait(_got: Got, _writer: asyncio.StreamWriter) -> bytes:
            await gate.wait()
            return OK

        other.replies = [wait]
        slow = asyncio.create_task(w.ask("/~acme/elsewhere/x"))
        await w.until(lambda: len(other.got) > 1)
        waits = asyncio.create_task(w.ask())
        await w.shows("upstream_waiting 1")
        gate.set()
        assert [(await each).status for each in (slow, waits)] == [200, 200]
        server.close()
        for task in list(other.tasks):
            task.cancel()
        await asyncio.gather(*other.tasks, return_exceptions=True)


async def test_a_full_disk_under_the_log_costs_lines_alone(tmp_path: Path) -> None:
    """From the first line on."""
    full = os.open("/dev/full", os.O_WRONLY)
    async with process(tmp_path, stderr=full) as (w, _):
        assert (await w.ask()).status == 200
        assert (await w.ask("/~acme/nothing/x")).status == 404
    os.close(full)


async def test_a_log_whose_reader_is_gone_costs_lines_alone(tmp_path: Path) -> None:
    """EPIPE, not an end."""
    async with process(tmp_path, stderr=asyncio.subprocess.PIPE) as (w, running):
        transport: Any = running._transport  # type: ignore[attr-defined]
        transport.get_pipe_transport(2).close()
        assert (await w.ask()).status == 200
        w.server.leases.clear()
        assert (await w.ask("/~acme/nothing/x")).status == 404


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
async def test_a_clock_that_jumps_neither_lengthens_nor_ends_what_is_held(step: float) -> None:
    """A lease lives by the loop's clock; only what is leased afterwards sees the new time."""
    now, jumped = [1000.0], [0.0]
    ask = Ask(Tenant("acme"), Credential("notes"), None)
    async with (
        peers() as there,
        Server(Address(there.address, Secret(SIDECAR_KEY))) as source,
        asyncio.TaskGroup() as tasks,
    ):
        lease = aged(there.world([]).connect(), 1)
        lease.expire_time.FromMilliseconds(int((time.time() + 100) * 1000))
        lease.refresh_after_ttl.seconds = 1000
        leases = Leases(source, tasks, clock=lambda: now[0], wall=lambda: time.time() + jumped[0])
        leases.watched = True
        held = await leases.get(ask)
        jumped[0] = step
        now[0] += 50
        assert leases.find(ask, now[0]) is held
        now[0] += 60
        with contextlib.suppress(Problem):
            assert leases.find(ask, now[0]) is None
    assert len(there.server.asked) == 1


@pytest.mark.timeout(LONG + SOON)
async def test_a_short_soak_loses_and_crosses_nothing() -> None:
    """The short form of `python -m bench.sidecar.soak`: mixed requests and faults, each answer checked; memory stays."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.sidecar.soak", "--requests", "2000",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(running.communicate(), LONG)
    assert running.returncode == 0, out.decode()[-2000:]
    assert b"2000 requests in" in out
