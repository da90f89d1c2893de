"""The engine's own cost of an exchange: no socket, no kernel, no other process, so that small changes can be seen.

python -m bench.sidecar.inprocess                    # ns an exchange, the best of many short loops
python -m bench.sidecar.inprocess --instructions     # under valgrind: what does not depend on who else is at work
python -m bench.sidecar.inprocess --profile base     # where the time goes, by function
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import hashlib
import itertools
import os
import pstats
import re
import subprocess
import sys
import time
from collections.abc import Callable

import uvloop

from bench.sidecar.cases import REQUEST_HEADERS
from bench.sidecar.upstream import ANSWER_HEADERS
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from sidecar import compiled
from tests.fuzz.wire import HOST, KEY, Pipe, Wire

LOOP = 100
"""Exchanges of one short loop."""
TENANTS = 1000


class Sink(Pipe):
    """A transport that forgets what is written."""

    def write(self, data: object) -> None:
        """To nowhere."""


def request(tenant: str, number: int = 0) -> bytes:
    """As in the bench's base case; another `number` is another request id, key and trace."""
    lines = {"Host": HOST.decode(), "Authorization": f"Bearer {KEY}", **REQUEST_HEADERS}
    if number:
        lines |= {name: f"{number:08x}{lines[name][8:]}" for name in ("X-Request-Id", "Idempotency-Key", "Traceparent")}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET /~{tenant}/notes/v1/pages HTTP/1.1\r\n{text}\r\n".encode()


def answer(number: int = 0) -> bytes:
    """512 bytes under the head that the bench's upstream sends."""
    lines = {
        "Server": "nginx/1.22.1", "Date": "Mon, 23 Nov 2026 10:00:00 GMT", "Content-Type": "application/json",
        "Content-Length": "512", "Connection": "keep-alive", **ANSWER_HEADERS,
    }  # fmt: skip
    if number:
        lines |= dict.fromkeys(("X-Request-Id", "ETag", "X-RateLimit-Remaining"), f"{number:08x}")
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 200 OK\r\n{text}\r\n".encode() + b"x" * 512


def exchanges(case: str, wire: Wire) -> Callable[[int], None]:
    """A loop of that case: `base`, all alike; `changing`, with what an app changes in every call; `tenants`, of many."""
    many = 1 if case == "base" else 997
    tenants = TENANTS if case == "tenants" else 1
    changes = case == "changing"
    heads = [request("acme" if tenants == 1 else f"t{at}", at if changes else 0) for at in range(max(many, tenants))]
    answers = [answer(at if changes else 0) for at in range(many)]
    following = zip(itertools.cycle(heads), itertools.cycle(answers), strict=False)
    down, up, view = wire.down, wire.ups[0], wire.down.view

    def loop(times: int) -> None:
        for head, back in itertools.islice(following, times):
            view[: len(head)] = head
            down.buffer_updated(len(head))
            view[: len(back)] = back
            up.buffer_updated(len(back))

    return loop


def wired() -> Wire:
    """One app's connection, one upstream's, and leases of many tenants."""
    wire = Wire.of(1)
    wire.down.transport = Sink()
    wire.ups[0].transport = Sink()
    for at, tenant in enumerate(["acme", *(f"t{at}" for at in range(TENANTS))]):
        lease = pb.Lease(
            tenant=tenant, tenant_uid=f"uid-{at}", credential="notes", integration="notes", generation=1,
            base_url="http://api.test", allowed_hosts=["api.test"],
            headers=[pb.InjectedField(name="Authorization", value=f"Bearer {hashlib.sha256(b'%d' % at).hexdigest()}")],
            default_headers=[pb.Header(name="Notion-Version", value="2025-09-03")],
        )  # fmt: skip
        lease.refresh_after_ttl.seconds = 3600
        wire.hold(lease)
    return wire


CASES = ("base", "changing", "tenants")


async def measure(case: str, loops: int) -> float:
    """ns an exchange. The best loop: what disturbs only adds."""
    loop = exchanges(case, wired())
    loop(2 * LOOP)
    best = float("inf")
    gc.freeze()
    for _ in range(loops):
        began = time.thread_time_ns()
        loop(LOOP)
        best = min(best, (time.thread_time_ns() - began) / LOOP)
    return best


async def profile(case: str) -> None:
    """Print the functions that take most."""
    loop = exchanges(case, wired())
    loop(2 * LOOP)
    profiler = cProfile.Profile()
    profiler.runcall(loop, 20 * LOOP)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


async def exactly(case: str, times: int) -> None:
    """For callgrind: warm up, then so many."""
    exchanges(case, wired())(LOOP + times)


def instructions(case: str) -> float:
    """Of one exchange: the difference between two runs under callgrind, so that starting up is not counted."""
    counted = []
    for times in (LOOP, 3 * LOOP):
        args = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-m", __spec__.name]
        env = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [*args, "--exactly", case, str(times)], capture_output=True, text=True, check=True, env=env
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found is not None, done.stderr
        counted.append(int(found[1]))
    return (counted[1] - counted[0]) / (2 * LOOP)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sidecar.inprocess", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "--instructions", action="store_true", help="count them, under valgrind; about two minutes a case"
    )
    parser.add_argument("--profile", metavar="CASE", choices=CASES)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--loops", type=int, default=600)
    parser.add_argument("--exactly", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.exactly:
        uvloop.run(exactly(options.exactly[0], int(options.exactly[1])))
        return
    if options.profile:
        uvloop.run(profile(options.profile))
        return
    print(f"engine: {'compiled' if compiled() else 'interpreted'}, Python {sys.version.split()[0]}")
    for case in options.case or CASES:
        text = f"{case:10} {uvloop.run(measure(case, options.loops)):9,.0f} ns"
        if options.instructions:
            text += f"  {instructions(case):9,.0f} instructions"
        print(text, flush=True)


if __name__ == "__main__":
    main()
