"""A running world for each test of the sidecar."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.sidecar.harness import World, world


@pytest_asyncio.fixture
async def w() -> AsyncIterator[World]:
    """A sidecar between a recording upstream and a server that hands out leases; acme/notes is connected."""
    async with world() as running:
        yield running
