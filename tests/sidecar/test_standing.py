"""An answer that lasts ends with the right to it: promise 6, attack 40."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from tests.sidecar.harness import SOON, World, world


def revoke_key(here: World) -> None:
    """The app's key is revoked."""
    here.server.grants.clear()
    here.server.tell(pb.WatchLeasesResponse(api_key_changed=pb.ApiKeyChanged(key_id=here.key.key_id)))


def suspend_tenant(here: World) -> None:
    """The tenant is suspended: no lease is given any more."""
    here.server.leases.clear()
    here.server.tell(pb.WatchLeasesResponse(tenant_changed=pb.TenantChanged(tenant="acme")))


async def endless(_got: object, writer: asyncio.StreamWriter) -> bytes:
    """Server-sent events until nobody listens."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
    return b""


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the answer was cut, and not brought to a good end."""
    try:
        async with asyncio.timeout(SOON):
            while await reader.readuntil(b"\r\n") != b"0\r\n":
                pass
    except (asyncio.IncompleteReadError, ConnectionError):
        return True
    return False


@pytest.mark.parametrize("befalls", [revoke_key, suspend_tenant])
async def test_40_an_endless_answer_is_cut_when_the_right_to_it_ends(befalls: Callable[[World], None]) -> None:
    """Server-sent events do not outlive the key or the tenant, though nothing new is asked."""
    async with world() as here:
        here.provider.reply = endless
        app = await here.app()
        await app.send(here.request())
        await app.reader.readuntil(b"x\r\n")
        befalls(here)
        assert await ended(app.reader)


async def test_an_endless_answer_goes_on_while_the_right_to_it_stands() -> None:
    """A renewed lease cuts nothing."""
    async with world() as here:
        here.provider.reply = endless
        app = await here.app()
        await app.send(here.request())
        await app.reader.readuntil(b"x\r\n")
        here.server.tell(pb.WatchLeasesResponse(resync=pb.Resync()))
        await here.until(lambda: len(here.server.asked) > 1)  # whether it still stands
        await here.shows('lease_answers_total{result="granted"} 2')
        async with asyncio.timeout(SOON):
            for _ in range(20):
                await app.reader.readuntil(b"x\r\n")
