"""A coverage-guided fuzzer of the engine: `make fuzz`. Needs atheris, which lives under .bench/, beside the project's lock.

    python -m tests.fuzz.fuzz_wire -max_total_time=120 [corpus folder]

The first byte of an input chooses the law and how the rest is cut.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["sidecar", "connectors_grpc.inject"]):
    import sidecar.body
    import sidecar.engine  # noqa: F401
    from connectors_grpc.inject import Injection, Plan, Target
    from connectors_grpc.secret import Secret
    from sidecar.engine import heads
    from sidecar.framing import Malformed, Own, parse_request, parse_response
    from tests.fuzz.laws import answer_law, request_law
    from tests.fuzz.wire import BEFORE, HOST, KEY

PLAN = Plan.of(
    Injection({"Authorization": Secret("Bearer tok-0123456789abcdef")}, {}),
    base_url="https://api.test",
    allowed_hosts=["api.test"],
    default_headers={"Notion-Version": "1"},
)
SEEDS = [
    b"GET %b/v1/a HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n\r\n" % (BEFORE, HOST, KEY.encode()),
    b"POST %b/a HTTP/1.1\r\nHost: %b\r\nX-Api-Key: %b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    % (BEFORE, HOST, KEY.encode()),
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nLink: <http://api.test/x>\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close, X-A\r\nX-A: b\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
]


def lines_law(data: bytes, *, request: bool) -> None:
    """The block that is written is the lines that may pass, written; read for the first time or remembered."""
    own = Own()
    for _ in range(2):
        try:
            block = _written(data + b"\r\n\r\n", own) if request else _returned(data + b"\r\n\r\n")
        except Malformed:
            return
        if block is not None:
            pairs, lines = block
            written = sorted(b"%b: %b\r\n" % pair for pair in pairs)
            assert sorted(lines.splitlines(keepends=True)) == written or b"\x0b" in lines or b"\x0c" in lines


def _written(data: bytes, own: Own) -> tuple[list[tuple[bytes, bytes]], bytes]:
    head = parse_request(data, own)
    lines = heads.request(head, PLAN, Target(b"/", None)).partition(b"\r\n")[2]
    return PLAN.request_headers(head.fields), lines.removesuffix(b"\r\n").removesuffix(
        b"Transfer-Encoding: chunked\r\n"
    )


def _returned(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
    head = parse_response(data, b"GET", PLAN.policy.returned.known)
    block = PLAN.response_block(b"", head.written, head.fresh)
    return None if block is None else (PLAN.response_headers(head.fields), block)


async def one(data: bytes) -> None:
    """One input under one law."""
    choice, rest = data[:1] or b"\0", data[1:]
    size = (None, 1, 3)[choice[0] >> 3 & 3] if choice[0] >> 3 & 3 < 3 else 7
    match choice[0] & 7:
        case 0 | 1 | 2:
            request_law(rest, size)
        case 3 | 4:
            answer_law(rest, ended=bool(choice[0] & 32), method=b"HEAD" if choice[0] & 64 else b"GET", size=size)
        case 5:
            lines_law(rest, request=False)
        case _:
            lines_law(rest, request=True)


def main() -> None:
    """For libFuzzer."""
    loop = asyncio.new_event_loop()

    def target(data: bytes) -> Any:
        loop.run_until_complete(one(data))

    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


def seeds() -> list[bytes]:
    """Where to begin: sound messages under each law."""
    whole = [bytes([choice]) + seed for choice, seed in zip((0, 8, 3, 0x2B), SEEDS, strict=True)]
    heads = [bytes([6 if at < 2 else 5]) + seed.partition(b"\r\n\r\n")[0] for at, seed in enumerate(SEEDS)]
    return whole + heads


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--seeds":
        from pathlib import Path

        folder = Path(sys.argv[2])
        folder.mkdir(parents=True, exist_ok=True)
        for at, seed in enumerate(seeds()):
            (folder / f"seed-{at}").write_bytes(seed)
    else:
        main()
