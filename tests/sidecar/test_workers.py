"""`--workers`: several processes behind one address, as an operator runs them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from connectors_grpc.quota import Quota
from sidecar.command import arguments, command
from sidecar.listeners import open_sockets
from sidecar.settings import Tcp
from sidecar.worker import VARIABLE
from tests.ports import free_port
from tests.sidecar.harness import OK, SIDECAR_KEY, SOON, App, Got, World, address_of, peers


@dataclass
class Crew:
    """A supervisor with two workers, and what they talk to."""

    w: World
    process: asyncio.subprocess.Process
    socket: Path
    arguments: list[str]

    def workers(self) -> list[int]:
        """Their process ids."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    found.append(int(entry.name))
        return found

    async def measured(self) -> dict[str, float]:
        """The page: sums by name."""
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families((await self.w.metrics()).body.decode()):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    async def shows(self, **numbers: float) -> dict[str, float]:
        """The page once it has these: a worker that is busy, or only just there, may be missing from one page."""
        wanted = {f"connectors_sidecar_{name}": number for name, number in numbers.items()}
        async with asyncio.timeout(SOON):
            while not wanted.items() <= (found := await self.measured()).items():
                pass
        return found


@pytest_asyncio.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Crew]:
    """On a port, a port of one credential, and the way of metrics."""
    path, metrics = tmp_path / "s.sock", f"127.0.0.1:{free_port()}"
    (tmp_path / "key").write_text(SIDECAR_KEY)
    async with peers() as there:
        said = [
            "--listen", "127.0.0.1:0", "--map", f"unix:{path}=acme/notes", "--server", there.address,
            "--key-file", str(tmp_path / "key"), "--metrics-listen", metrics, "--workers", "2",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", *said, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        w = there.world([await address_of(process), metrics])
        w.connect()
        try:
            yield Crew(w, process, path, said)
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), SOON)
            for app in w.apps:
                app.close()


async def test_workers_share_an_address_and_are_counted_together(crew: Crew) -> None:
    """Many connections reach both; a Unix socket too; another sidecar can't slip in beside them."""
    w = crew.w
    for _ in range(40):
        assert (await w.ask()).status == 200
    reader, writer = await asyncio.open_unix_connection(str(crew.socket))
    assert (await App(reader, writer).ask(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
    writer.close()
    assert crew.socket.stat().st_mode & 0o777 == 0o600
    await crew.shows(workers=2, watch_up=2, responses_total=41, request_duration_seconds_count=41)
    assert len({got.connection for got in w.provider.got}) >= 2
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "--listen", w.address, "--server", "127.0.0.1:1", "--workers", "2",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(other.communicate(), SOON)
    assert (other.returncode, b"can't be listened on" in err) == (2, True)


async def test_who_finds_a_socket_taken_leaves_it_to_who_has_it(crew: Crew) -> None:
    """Refused by a sidecar's socket, or before it came to that: apps reach the first one still."""
    for listen, mapped in (("127.0.0.1:0", crew.socket), (crew.w.address, crew.socket)):
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", "--listen", listen, "--map", f"unix:{mapped}=acme/notes",
            "--server", "127.0.0.1:1", "--workers", "2",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await asyncio.wait_for(other.wait(), SOON) == 2
        reader, writer = await asyncio.open_unix_connection(str(crew.socket))
        assert (await App(reader, writer).ask(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
        writer.close()


async def test_a_worker_that_dies_is_started_again_and_the_end_waits_for_what_is_in_flight(crew: Crew) -> None:
    """SIGKILL for one; then SIGTERM for all, with a request under way: it is answered, and nobody is left."""
    w = crew.w
    before = crew.workers()
    assert len(before) == 2
    for _ in range(20):
        assert (await w.ask()).status == 200
    await crew.shows(responses_total=20)
    os.kill(before[0], signal.SIGKILL)
    found = await crew.shows(workers=2, worker_restarts_total=1)
    assert found["connectors_sidecar_responses_total"] == 20, "a counter fell"
    for _ in range(20):
        assert (await w.ask()).status == 200
    after = crew.workers()
    assert len(after) == 2
    assert before[1] in after
    gate = asyncio.Event()

    async def wait(_got: Got, _writer: asyncio.StreamWriter) -> bytes:
        await gate.wait()
        return OK

    w.provider.reply = wait
    count = len(w.provider.got)
    app = await w.app()
    await app.send(w.request())
    await w.until(lambda: len(w.provider.got) > count)
    crew.process.terminate()
    async with asyncio.timeout(SOON):
        while True:
            try:
                (await w.app()).close()
            except OSError:  # refused, or reset by a listener that just closed
                break
    gate.set()
    assert (await app.answer()).status == 200
    assert await asyncio.wait_for(crew.process.wait(), SOON) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in after)
    assert not crew.socket.exists()


async def test_workers_end_with_a_supervisor_that_was_killed(crew: Crew) -> None:
    """Nobody is left listening with a credential in hand."""
    workers = crew.workers()
    crew.process.kill()
    async with asyncio.timeout(SOON):
        while any(Path(f"/proc/{pid}").exists() for pid in workers):  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)


async def test_a_worker_that_can_not_start_ends_all_with_what_it_said(tmp_path: Path) -> None:
    """Its exit code, and one line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "--listen", "127.0.0.1:0", "--server", "127.0.0.1:1", "--workers", "2",
        "--access-log", str(tmp_path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), SOON)
    assert (process.returncode, out) == (2, b"")
    assert b"--access-log" in err
    assert b"Traceback" not in err


def test_a_worker_is_told_all_that_was_chosen() -> None:
    """By flags and by the environment; what is unset, zero and false stays apart."""
    said = ["--map", "127.0.0.1:1=a/b", "--map", "127.0.0.1:2=a/c", "--open", "--otlp-ratio", "0", "--workers", "3"]
    context = command.make_context("sidecar", said)
    again = arguments(context)
    assert again[1:3] == ["-m", "sidecar"]
    assert isinstance(command.make_context("sidecar", again[3:]), click.Context)
    assert command.make_context("sidecar", again[3:]).params == context.params
    assert VARIABLE not in os.environ


def test_workers_get_a_port_that_was_free_never_anothers() -> None:
    """The kernel chooses it for the first of them: between a look for a free one and its use, another could take it."""
    with contextlib.ExitStack() as stack:
        groups = [open_sockets(Tcp("127.0.0.1", 0), 2) for _ in range(100)]
        for sock in itertools.chain(*groups):
            stack.enter_context(sock)
        ports = [{sock.getsockname()[1] for sock in group} for group in groups]
        assert all(len(of) == 1 for of in ports)
        assert len(set().union(*ports)) == len(groups)


def test_a_bound_is_divided_among_workers() -> None:
    """Rounded up, so that none becomes nothing; no bound stays none."""
    assert Quota(10, 3, 0).part(4) == Quota(3, 1, 0)
    assert Quota(10, 3, 7).part(1) == Quota(10, 3, 7)
