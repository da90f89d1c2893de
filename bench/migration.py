"""What a migration of five hundred credentials takes, and that kills in its middle lose none: one run, one machine.

    python -m bench.migration            # about a minute; python -m bench.migration 2000 for more

Old layout and new lie in one OpenBao (in place, KV v2, every second record sealed by a key of its own). The tool is a process
of its own, started anew for each step; the server runs in this one.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from connectors_grpc import logs
from connectors_grpc.migration.policies import STEPS, policy
from tests.migrating import OldPlace, place_of, running_bao, server_at
from tests.migration.test_migration import three
from tests.migration.test_migration_command import Tool, many, opened_here
from tests.running import Server
from tests.worlds import Canary

COUNT = 500
KILLS = 4
Secrets = dict[tuple[str, str], dict[str, str]]


class Bench:
    """One old place, and the tool pointed at it."""

    def __init__(self, tool: Tool, wanted: Secrets) -> None:
        self.tool = tool
        self.wanted = wanted

    async def timed(self, title: str, *arguments: str) -> None:
        """One step, to its end; prints how long it took and what it said."""
        began = time.perf_counter()
        said = await self.tool(*arguments)
        seconds = time.perf_counter() - began
        print(f"| {title} | {seconds:.1f} s | {said.out.strip()} |", flush=True)
        if said.code:
            raise SystemExit(said.err)

    async def equal(self) -> None:
        """Each credential of the new layout, opened by a way of our own, is what was written into the old one."""
        found = await opened_here(self.tool.place.bao, self.tool.server, self.tool.token, list(self.wanted))
        assert found == self.wanted
        print(f"| {len(found)} of {len(self.wanted)} decrypt equal | | |", flush=True)

    async def old_records(self) -> list[dict[str, object]]:
        """Every old record, as it lies there."""
        return [await self.tool.place.read(tenant, integration) for tenant, integration in self.wanted]


async def prepared(place: OldPlace, server: Server, directory: Path, count: int) -> Bench:
    """So many old records, and the tool with every policy."""
    wanted = await many(place, await three(server.admin), count)
    token = await place.bao.token_file(*(policy(step, place.path) for step in STEPS))
    return Bench(Tool(place, server, token, directory, Canary()), wanted)


async def main(count: int) -> None:
    """Twice: at one go, and killed."""
    logs.configure("error")
    print("| step | time | said |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="migration-") as name:
        directory = Path(name)
        async with running_bao(directory) as bao, server_at(bao, directory) as server:
            whole = await prepared(place_of(bao), server, directory / "one", count)
            await whole.timed("dry run", "run")
            await whole.timed("run", "run", "--execute")
            await whole.equal()
            await whole.timed("cutover", "cutover", "--old-stopped", "--execute")
            await whole.timed("verify", "verify")
            await whole.timed("rollback", "rollback", "--execute")
            await whole.timed("run again", "run", "--execute")
            await whole.timed("cutover again", "cutover", "--old-stopped", "--execute")
            await whole.equal()
            await whole.timed("finish --destroy", "finish", "--destroy", "--execute", "--yes")

            killed = await prepared(place_of(bao), server, directory / "two", count)
            for step, how in (("run", ()), ("cutover", ("--old-stopped",))):
                for _ in range(KILLS):
                    lines = random.randrange(1, count // KILLS)
                    await killed.tool.killed(lines, step, *how, "--execute")
                    print(f"| {step}, killed | | {killed.tool.journalled()} lines in the journal |", flush=True)
                await killed.timed(f"{step}, resumed", step, *how, "--execute")
                await killed.equal()
            before = await killed.old_records()
            for _ in range(2):
                await killed.tool.killed(count // 5, "rollback", "--execute")
                print(f"| rollback, killed | | {killed.tool.journalled()} lines in the journal |", flush=True)
            await killed.timed("rollback, resumed", "rollback", "--execute")
            assert await killed.old_records() == before
            print(f"| {len(before)} old records as they were | | |", flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT))
