"""The engine's own tests once more on uvloop, which runs in production: its transports differ from asyncio's in detail."""

from __future__ import annotations

import asyncio
import sys

import pytest

SUITE = ["tests/sidecar/test_engine.py", "tests/sidecar/test_bodies.py", "tests/sidecar/test_dial.py"]
RUN = """
import asyncio, sys, uvloop, pytest
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", SUITE)
async def test_the_engine_does_the_same_on_uvloop(suite: str) -> None:
    """In a process of its own, since a loop's policy is the process's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, suite, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 500)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, out.decode()[-4000:]
