"""The load: wrk, or a loader of our own where it is not installed. Counts, and times by percentile."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.sidecar import tools
from bench.sidecar.cases import REQUEST_HEADERS, Case
from bench.sidecar.proc import LOAD

SCRIPT = """
local paths, at = {{}}, 0
local headers = {{ {headers} }}
local body = {body}
function init(args)
  wrk.headers = headers; wrk.body = body; wrk.method = {method}
  for i = 0, {tenants} - 1 do paths[i] = wrk.format(nil, "/~t" .. i .. "/notes{path}") end
end
function request() local made = paths[at]; at = (at + 1) % {tenants}; return made end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p99": %f, "p999": %f}}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one round. Units: microseconds."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    p999: float


def headers(case: Case, port: int, key: str) -> dict[str, str]:
    """As an app sends them: its own key where the SDK's token goes."""
    return {
        "Host": f"127.0.0.1:{port}",
        "Authorization": f"Bearer {key}",
        **(REQUEST_HEADERS if case.headers else {}),
    }


async def run(case: Case, port: int, key: str, seconds: float, work: Path) -> Load:
    """One round against a port."""
    wrk = tools.program("wrk")
    if wrk is None:
        return await _own(case, port, key, seconds)
    script = work / "load.lua"
    lines = ", ".join(f'["{name}"] = {json.dumps(value)}' for name, value in headers(case, port, key).items())
    script.write_text(
        SCRIPT.format(
            headers=lines,
            tenants=case.tenants,
            path=case.path,
            body=f'string.rep("x", {case.up})' if case.up else "nil",
            method='"POST"' if case.up else '"GET"',
        )
    )
    where = f"http://127.0.0.1:{port}"
    args = [wrk, "-t1", f"-c{case.connections}", f"-d{seconds:.0f}s", "--timeout", "20s", "-s", str(script), where]
    child = await asyncio.create_subprocess_exec(*args, stdout=asyncio.subprocess.PIPE)
    os.sched_setaffinity(child.pid, LOAD)
    async with asyncio.timeout(seconds + 40):
        out, _ = await child.communicate()
    return Load(**json.loads(out.splitlines()[-1]))


async def _own(case: Case, port: int, key: str, seconds: float) -> Load:
    """An asyncio loader: dearer than wrk, so that requests/s say less; the proxy's CPU a request stays comparable."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    begun = time.perf_counter()
    errors = sum(
        await asyncio.gather(*(_client(case, port, key, end, number, times) for number in range(case.connections)))
    )
    times.sort()
    return Load(len(times), time.perf_counter() - begun, errors, *(_at(times, part) for part in (0.5, 0.99, 0.999)))


async def _client(case: Case, port: int, key: str, end: float, number: int, times: list[float]) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers(case, port, key).items())
    method, length = ("POST", f"Content-Length: {case.up}\r\n") if case.up else ("GET", "")
    errors, at = 0, number
    try:
        while (began := time.perf_counter()) < end:
            at += 1
            path = f"/~t{at % case.tenants}/notes{case.path}"
            writer.write(f"{method} {path} HTTP/1.1\r\n{lines}{length}\r\n".encode() + b"x" * case.up)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(size)
            errors += b" 200 " not in head[:16]
            times.append((time.perf_counter() - began) * 1e6)
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        print(type(error).__name__, file=sys.stderr)
        errors += 1
    finally:
        writer.close()
    return errors


def _at(times: Sequence[float], part: float) -> float:
    return times[min(len(times) - 1, int(len(times) * part))] if times else 0.0
