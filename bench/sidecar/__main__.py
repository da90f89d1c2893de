"""Measure the sidecar beside its peers.

    make bench                               # about a quarter of an hour
    python -m bench.sidecar --quick          # about two minutes
    python -m bench.sidecar --only ours,haproxy --case base --seconds 4

Everything is on loopback; every process started is ended by its pid. Needs nginx as the upstream; wrk, haproxy, node where
installed; the peers' packages go under .bench/.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

import grpc.aio

from bench.sidecar import load, report, tools
from bench.sidecar.cases import BASE, CASES, Case
from bench.sidecar.peers import ALL, SLOW, NotInstalled, Peer, Setup
from bench.sidecar.peers.ours import Ours, leases
from bench.sidecar.upstream import Upstream
from bench.sidecar.upstream import start as start_upstream
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as stubs
from tests.sidecar.harness import Key, Leaser

QUICK = ("base", "plain upstream", "1 connection", "256 KiB down", "10,000 tenants")
QUICK_PEERS = ("ours", "ours-compiled", "haproxy", "nginx", "envoy-lua", "undici", "aiohttp")


class Bench:
    """One run. Results are rows: case, peer, round, and what was measured."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options = options
        self.work = work
        self.key = Key.of("bench")
        self.leaser = Leaser()
        self.rows: list[report.Row] = []
        self.missing: dict[str, str] = {}

    async def run(self) -> None:
        """All groups, one after the other."""
        upstream = start_upstream(self.work)
        server = grpc.aio.server()
        stubs.add_ProxyServiceServicer_to_server(self.leaser, server)  # type: ignore[no-untyped-call]
        Ours.server = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        beating = asyncio.create_task(self._beat())
        try:
            wanted = [case for case in CASES if case.name in self.options.case]
            for setup in dict.fromkeys(case.setup for case in wanted):
                await self._group(upstream, *setup, [case for case in wanted if case.setup == setup])
        finally:
            beating.cancel()
            await server.stop(None)
            upstream.process.stop()

    async def _beat(self) -> None:
        """As the server does: without it a sidecar takes its watch for dead, and asks for every lease anew."""
        while True:
            await asyncio.sleep(10)
            self.leaser.tell(pb.WatchLeasesResponse(heartbeat=pb.Heartbeat()))

    async def _group(self, upstream: Upstream, tls: bool, tenants: int, cases: Sequence[Case]) -> None:
        """Proxies set up alike, and what is measured with them, in interleaved rounds."""
        setup = Setup.of(self.work, upstream, tls, tenants)
        leases(self.leaser, setup, self.key)
        async with self._peers(setup) as peers:
            for case in cases:
                rounds = self.options.rounds + (2 if case == BASE and not self.options.quick else 0)
                taking_part = [peer for peer in peers if peer.name not in SLOW or case == BASE]
                if case.connections == 1:
                    taking_part.append(Direct(setup))
                for number in range(rounds):
                    for peer in taking_part:
                        await self._round(case, peer, number)

    @contextlib.asynccontextmanager
    async def _peers(self, setup: Setup) -> AsyncIterator[list[Peer]]:
        peers: list[Peer] = []
        try:
            for kind in ALL:
                if kind.name not in self.options.only:
                    continue
                peer = kind(setup)
                try:
                    await asyncio.to_thread(peer.start)
                    peers.append(peer)
                    await asyncio.to_thread(verify, peer, self.key.text)
                except (NotInstalled, RuntimeError) as error:
                    self.missing.setdefault(kind.name, str(error))
                    print(f"{kind.name}: left out: {error}", flush=True)
                    if peer in peers:
                        peers.remove(peer)
                        peer.process.stop()
            yield peers
        finally:
            for peer in peers:
                peer.process.stop()

    async def _round(self, case: Case, peer: Peer, number: int) -> None:
        seconds = self.options.seconds
        if number == 0:
            warm = max(2.0, case.tenants / 2500)
            await load.run(case, peer.port, self.key.text, warm, self.work)
        before = peer.process.cpu()
        got = await load.run(case, peer.port, self.key.text, seconds, self.work)
        user, kernel = (
            (now - then) / max(1, got.requests) * 1e6 for now, then in zip(peer.process.cpu(), before, strict=True)
        )
        rate = got.requests / got.seconds
        row = report.Row(
            case.name,
            peer.name,
            number,
            user + kernel,
            kernel,
            rate,
            got.p50,
            got.p99,
            got.p999,
            peer.process.rss(),
            got.errors,
        )
        self.rows.append(row)
        print(f"{case.name:16} {peer.name:15} cpu {row.cpu:9.1f} us ({kernel:.1f} kernel)  {rate:9.0f}/s  "
              f"p50 {got.p50:9.0f}  p99 {got.p99:9.0f}  rss {row.rss:6.1f}  errors {got.errors}", flush=True)  # fmt: skip


class Direct(Peer):
    """No proxy: what the upstream itself takes, by plain HTTP (wrk's own TLS would be measured otherwise)."""

    name = "no proxy"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.process = setup.upstream.process
        self.port = setup.upstream.direct


def verify(peer: Peer, key: str) -> None:
    """The right bearer arrives, for the first tenant and the last; an unknown tenant is refused. Raises: RuntimeError."""
    names = list(peer.setup.tokens)
    for tenant in (names[0], names[-1]):
        status, body = ask(peer.port, f"/~{tenant}/notes/echo", key)
        if (status, body) != (200, f"Bearer {peer.setup.tokens[tenant]}"):
            raise RuntimeError(f"does not put the bearer in: {status} {body[:200]}")
    status, _ = ask(peer.port, "/~stranger/notes/echo", key)
    if status not in (403, 404):
        raise RuntimeError(f"does not refuse an unknown tenant: {status}")


def ask(port: int, path: str, key: str) -> tuple[int, str]:
    """One request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        raise RuntimeError(type(error).__name__) from None
    finally:
        connection.close()


def parse() -> argparse.Namespace:
    """Options; lists are checked against what there is."""
    parser = argparse.ArgumentParser(prog="python -m bench.sidecar", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="few cases and peers: about two minutes")
    parser.add_argument("--only", help="peers, by comma")
    parser.add_argument("--case", action="append", help="a case's name; repeatable")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round")
    parser.add_argument("--out", type=Path, default=tools.HOME / "results", help="folder of results")
    options = parser.parse_args()
    names = [kind.name for kind in ALL]
    options.only = options.only.split(",") if options.only else list(QUICK_PEERS) if options.quick else names
    options.case = options.case or (list(QUICK) if options.quick else [case.name for case in CASES])
    options.rounds = options.rounds or (2 if options.quick else 3)
    if unknown := (set(options.only) - set(names)) | (set(options.case) - {case.name for case in CASES}):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    options = parse()
    tools.prepare()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        work = Path(folder)
        work.chmod(0o755)
        bench = Bench(options, work)
        asyncio.run(bench.run())
    options.out.mkdir(parents=True, exist_ok=True)
    versions = {kind.name: kind.version() for kind in ALL if kind.name in options.only}
    document = {
        "machine": report.machine(),
        "versions": versions,
        "left_out": bench.missing,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "rows": [asdict(row) for row in bench.rows],
    }
    (options.out / "sidecar.json").write_text(json.dumps(document, indent=1))
    table = report.table(bench.rows)
    (options.out / "sidecar.txt").write_text(table)
    (options.out / "sidecar.svg").write_text(report.svg(bench.rows))
    print(f"\n{table}\n{options.out}/sidecar.json, .txt, .svg  ({document['minutes']} min)")


if __name__ == "__main__":
    main()
