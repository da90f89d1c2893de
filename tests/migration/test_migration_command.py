"""`connectors migrate` as an operator has it: killed and resumed, told in JSON and in words, and never with a secret."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.domain.ids import CredentialId, TenantId, TenantUid
from connectors_grpc.domain.records import Tenant, TenantState
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.migration.policies import policy
from connectors_grpc.vault import VaultCiphers, VaultDocuments, VaultSettings, connect
from tests.migrating import OldBao, OldPlace, place_of, secret
from tests.migration.test_migration import Three, three
from tests.migration.test_migration_rollback import issued
from tests.running import Server, fresh_id
from tests.worlds import Canary, Timed, make_world, until

STEPS = ("plan", "run", "verify", "cutover", "rollback", "finish")
MANY = 96
"""`python -m bench.migration` does the same with five hundred."""
ROUNDS = (0, 60)
"""After how many lines of the journal a run is killed; at 0, somewhere in its beginning."""


@dataclass
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, str]]:
        """What it said under --json, but for the sum."""
        return [json.loads(line) for line in self.out.splitlines()][:-1]


@dataclass
class Tool:
    """The command line, for one old place and one server."""

    place: OldPlace
    server: Server
    token: Path
    state: Path
    canary: Canary

    def before(self) -> list[str]:
        """How every command begins."""
        key = str(self.server.keys / "admin.key")
        return [sys.executable, "-m", "connectors_grpc", "--server", self.server.grpc_address, "--key-file", key]

    def words(self, *arguments: str, last: Sequence[str] = ()) -> list[str]:
        """The whole command; of an option that is there twice, the last counts."""
        source = ["--from-vault-addr", self.place.bao.address, "--from-token-file", str(self.token)]
        return [*self.before(), "migrate", *arguments, *source, "--from-path", self.place.path, *last]

    async def start(self, *arguments: str, last: Sequence[str] = ()) -> asyncio.subprocess.Process:
        """Run it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTORS_")}
        environment = kept | {"CONNECTORS_STATE_DIR": str(self.state)}
        words = self.words(*arguments, last=last) if arguments[0] in STEPS else [*self.before(), *arguments]
        self.canary.heard(words)
        return await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment)

    async def __call__(self, *arguments: str, last: Sequence[str] = ()) -> Said:
        """Run it to its end."""
        process = await self.start(*arguments, last=last)
        out, err = await process.communicate()
        self.canary.heard(out.decode())
        self.canary.heard(err.decode())
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    @property
    def journal(self) -> Path:
        """Where it lies unless another place is given."""
        return self.state / "migration.jsonl"

    def journalled(self) -> int:
        """How many lines it has."""
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0

    async def killed(self, lines: int, *arguments: str) -> None:
        """Run it, and kill it once the journal has grown by so many lines, or in the midst of its beginning."""
        before = self.journalled()
        process = await self.start(*arguments)

        async def far_enough() -> bool:
            return process.returncode is not None or self.journalled() >= before + lines

        if not lines:
            await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=random.uniform(0.5, 1.5))
        await until(far_enough, 60)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


@pytest_asyncio.fixture(loop_scope="session")
async def tool(old_bao: OldBao, placed: Server, tmp_path: Path, canary: Canary) -> AsyncIterator[Tool]:
    """In place, with every policy; afterwards no secret may have been said, or lie in the journal."""
    place = place_of(old_bao)
    token = await old_bao.token_file(*(policy(step, place.path) for step in ("read", "rollback", "finish")))
    found = Tool(place, placed, token, tmp_path / "state", canary)
    yield found
    if found.journal.exists():
        canary.heard(found.journal.read_text())
    assert canary.find(*place.planted, token.read_text()) == []


async def many(place: OldPlace, kinds: Three, count: int) -> dict[tuple[str, str], dict[str, str]]:
    """So many old records, half of them sealed; their secrets by tenant and integration."""
    wanted: dict[tuple[str, str], dict[str, str]] = {}
    while len(wanted) < count:
        tenant = fresh_id("corp")
        wanted[tenant, kinds.oauth] = {"access_token": secret("at"), "refresh_token": secret("rt")}
        wanted[tenant, kinds.key] = {"api_key": secret("key")}
        wanted[tenant, kinds.basic] = {"username": secret("user"), "password": secret("pw")}
    free = asyncio.Semaphore(16)

    async def store(number: int, tenant: str, integration: str, fields: dict[str, str]) -> None:
        async with free:
            sealed = (
                {each: await place.seal(tenant, integration, text) for each, text in fields.items()}
                if number % 2
                else {}
            )
            await place.write(tenant, integration, **(fields | sealed))

    chosen = list(wanted.items())[:count]
    await asyncio.gather(*(store(n, *names, fields) for n, (names, fields) in enumerate(chosen)))
    return dict(chosen)


async def opened_here(
    bao: OldBao, server: Server, token: Path, names: list[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, str]]:
    """What the new layout holds of each, opened by the test's own way in, which asks nobody of the migration."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    async with connect(VaultSettings(address=bao.address, token_file=token)) as client:
        keeper = Keeper(VaultDocuments(client), VaultCiphers(client), SystemClock())
        for tenant_id in {tenant for tenant, _ in names}:
            made = (await server.admin.call("GetTenant", tenants.GetTenantRequest(tenant=tenant_id))).tenant
            now = SystemClock().now()
            tenant = Tenant(TenantId(made.id), TenantUid(made.uid), "", TenantState.ACTIVE, {}, now, now)
            for name in (integration for each, integration in names if each == tenant_id):
                held = await keeper.read(tenant, CredentialId(name))
                assert held is not None
                material = await keeper.open(tenant, held)
                fields = {each: value.reveal() for each, value in material.fields.items()}
                if material.refresh_token is not None:
                    fields["refresh_token"] = material.refresh_token.reveal()
                found[tenant_id, name] = fields
    return found


async def test_every_credential_survives_kills_at_any_point(tool: Tool) -> None:
    """Kill -9 in the beginning, the middle and near the end, of the copying and of the cut-over: none is lost, each is equal."""
    kinds = await three(tool.server.admin)
    wanted = await many(tool.place, kinds, MANY)
    for lines in ROUNDS:
        await tool.killed(lines, "run", "--execute")
    done = await tool("run", "--execute", "--json")
    assert (done.code, len(done.lines)) == (0, MANY), done.err
    assert {line["result"] for line in done.lines} == {"verified"}
    assert await opened_here(tool.place.bao, tool.server, tool.token, list(wanted)) == wanted
    await tool.killed(60, "cutover", "--old-stopped", "--execute")
    done = await tool("cutover", "--old-stopped", "--execute", "--json")
    assert {line["result"] for line in done.lines} == {"cut over"}
    checked = await tool("verify")
    assert (checked.code, checked.out.split(".")[0]) == (0, f"{MANY} in use")
    assert await opened_here(tool.place.bao, tool.server, tool.token, list(wanted)) == wanted


async def test_nothing_is_done_unless_it_is_said(tool: Tool) -> None:
    """A dry run of each step says what there is, and leaves both layouts as they are."""
    kinds, tenant = await three(tool.server.admin), fresh_id("acme")
    await tool.place.write(tenant, kinds.key, api_key=secret())
    dry = await tool("run")
    assert (dry.code, dry.out.split(".")[0]) == (0, "1 to migrate: api_key")
    assert "say --execute" in dry.err
    missing = await tool.server.admin.call("ListTenants", tenants.ListTenantsRequest(page_size=500))
    assert tenant not in {each.id for each in missing.tenants}
    assert (await tool("run", "--execute")).code == 0
    dry = await tool("rollback")
    assert (dry.code, dry.out.split(".")[0], "say --execute" in dry.err) == (0, "1 verified", True)


async def test_finish_asks_and_refuses_while_anything_is_not_in_use(tool: Tool) -> None:
    """Nobody at the terminal: --yes; not all cut over: --partial, or nothing is deleted."""
    kinds, tenant = await three(tool.server.admin), fresh_id("acme")
    await tool.place.write(tenant, kinds.key, api_key=secret())
    await tool.place.write(tenant, kinds.basic, username="u", pin="1")
    assert (await tool("run", "--execute")).code == 1
    assert (await tool("cutover", "--old-stopped", "--execute")).code == 1
    asked = await tool("finish", "--execute")
    assert (asked.code, "--yes" in asked.err) == (2, True)
    refused = await tool("finish", "--execute", "--yes")
    assert (refused.code, "Nothing was deleted" in refused.err) == (1, True)
    assert await tool.place.read(tenant, kinds.key)
    some = await tool("finish", "--execute", "--yes", "--partial", "--json")
    assert {line["credential"]: line["result"] for line in some.lines} == {
        kinds.key: "finished",
        kinds.basic: "left alone",
    }
    assert not await tool.place.read(tenant, kinds.key)
    assert await tool.place.read(tenant, kinds.basic)


async def test_a_plan_is_a_table_with_what_stands_in_the_way(tool: Tool) -> None:
    """And a file of proposals, which the next plan takes."""
    kinds, own = await three(tool.server.admin), fresh_id("own")
    await tool.place.write(f"ACME {own}", kinds.key, api_key=secret())
    ids = tool.state.parent / "ids.csv"
    said = await tool("plan", "--write-map", str(ids))
    assert said.code == 1
    assert f"ACME {own}/{kinds.key}\t\t{kinds.key}\tleft alone\t" in said.out
    assert ids.read_text() == f"old,new\nACME {own},acme-{own}\n"
    said = await tool("plan", "--map", str(ids))
    assert (said.code, "to migrate: api_key" in said.out) == (0, True)


async def test_a_rollback_by_command_gives_back_what_was_made(tool: Tool, timed: Timed) -> None:
    """In place one way into the Vault is enough, also for tokens that were refreshed since."""
    world = await make_world(tool.server, timed.sim, timed.clock)
    tokens, place = issued(world), tool.place
    await place.write(
        world.tenant, world.integration, access_token=tokens.access_token, refresh_token=tokens.refresh_token
    )
    assert (await tool("run", "--execute", "--rate", "50")).code == 0
    listed = await tool("credential", "list", world.tenant)
    assert "\tstaged\t" in listed.out
    assert (await tool("cutover", "--old-stopped", "--execute")).code == 0
    await world.refresh()
    newest = (await world.token()).access_token
    done = await tool("rollback", "--execute")
    assert (done.code, done.out.split(".")[0]) == (0, "1 rolled back"), done.err
    assert (await place.read(world.tenant, world.integration))["access_token"] == newest != tokens.access_token


async def test_what_can_not_be_used_is_said_with_its_exit_code(tool: Tool, tmp_path: Path) -> None:
    """A file that is no token, a Vault that is not there, a path that is none."""
    (tmp_path / "empty").write_text("")
    for arguments, code, text in (
        (("plan", "--map", "/nowhere"), 2, "can't be read"),
        (("plan", "--from-token-file", str(tmp_path / "empty")), 2, "token file"),
        (("plan", "--from-vault-addr", "http://vault.example"), 2, "in the clear"),
        (("plan", "--from-vault-addr", "http://127.0.0.1:9"), 3, "can't be reached"),
    ):
        said = await tool(arguments[0], last=arguments[1:])
        assert (said.code, text in said.err) == (code, True), said.err
