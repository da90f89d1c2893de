"""What a replica does now and then: store what was left behind, remove what nobody comes back for, keep idle tokens alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from connectors_grpc import logs

EVERY = 600.0
"""Seconds from the end of one round to the next."""

Chore = Callable[[], Awaitable[object]]
log = logs.get("upkeep")


@asynccontextmanager
async def done_now_and_then(chores: Sequence[Chore]) -> AsyncIterator[None]:
    """Do the chores, in order, at once and every EVERY seconds for the block. One that fails is tried again next time."""

    async def rounds() -> None:
        while True:
            for chore in chores:
                try:
                    await chore()
                except Exception as error:  # one bad record must not end all upkeep
                    log.warning("chore_ended_early", action=chore.__qualname__, error=type(error).__name__)
            await asyncio.sleep(EVERY)

    task = asyncio.create_task(rounds())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
