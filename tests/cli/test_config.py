"""`connectors config` against a real server: shown, done once, done again without a change, and kept up with by a watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from google.rpc import error_details_pb2

from connectors_grpc.cli.main import root
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from tests.canary import planted
from tests.cli.conftest import Cli
from tests.cli.conftest import Refused as ScriptedRefusal
from tests.cli.test_terminal import Terminal
from tests.openbao import OpenBao
from tests.running import Server, fresh_id, refused
from tests.worlds import Canary

DEADLINE = 60


@dataclass
class Place:
    """A folder with a file of its own, an owner of its own, and two integrations that take API keys."""

    server: Server
    folder: Path
    owner: str
    notes: str
    tasks: str
    key_file: Path
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> Path:
        """tenants.json."""
        return self.folder / "tenants.json"

    def secret(self) -> str:
        """A new secret in the environment; how the file refers to it."""
        name = fresh_id("SECRET").replace("-", "_").upper()
        self.secrets[name] = planted()
        return f"${{{name}}}"

    def write(self, named: dict[str, Any], **rest: Any) -> None:
        """Write the file, whole at once."""
        part = self.folder / ".part"
        part.write_text(json.dumps({"owner": self.owner, "tenants": named, **rest}))
        part.chmod(0o600)
        part.replace(self.file)

    @property
    def before(self) -> tuple[str, ...]:
        """Options in front of the command."""
        return ("--server", self.server.grpc_address, "--key-file", str(self.key_file))

    async def config(self, command: str, *arguments: str, stdin: str | None = None) -> Result:
        """One command, in a thread: the server lives in this one's loop."""
        line = [*self.before, "config", command, str(self.file), *arguments]
        return await asyncio.to_thread(CliRunner().invoke, root, line, input=stdin, env=self.secrets)

    async def done(self, command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Its JSON, after that exit code."""
        result = await self.config(command, *arguments, "--json")
        assert result.exit_code == code, result.output
        # The server logs in this process, and so between the lines.
        found: dict[str, Any] = json.loads([line for line in result.stdout.splitlines() if line.startswith("{")][-1])
        return found

    async def apply(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Apply without asking."""
        return await self.done("apply", "--yes", *arguments, code=code)

    async def credential(self, tenant: str, name: str = "") -> pb.Credential:
        """How a credential is."""
        request = pb.GetCredentialRequest(tenant=tenant, credential=name or self.notes)
        found: pb.Credential = (await self.server.admin.call("GetCredential", request)).credential
        return found

    async def tenant(self, name: str) -> tenants.Tenant:
        """How a tenant is."""
        found: tenants.Tenant = (
            await self.server.admin.call("GetTenant", tenants.GetTenantRequest(tenant=name))
        ).tenant
        return found

    async def put_in(self, tenant: str, name: str = "") -> str:
        """The secret that a sidecar would put in."""
        request = proxy.LeaseRequest(tenant=tenant, credential=name or self.notes)
        return str((await self.server.sidecar.call("Lease", request)).lease.headers[0].value)

    def holding(self, reference: str, **tenant: Any) -> dict[str, Any]:
        """A tenant with one credential."""
        inside = {self.notes: {"credentials": {self.notes: {"api_key": reference}}}}
        return {"integrations": inside, **tenant}


@pytest_asyncio.fixture(loop_scope="session")
async def place(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """One of this test's own."""
    for name in [name for name in os.environ if name.startswith("CONNECTORS_")]:
        monkeypatch.delenv(name)
    names = [fresh_id("notes"), fresh_id("tasks")]
    for name in names:
        api = {"base_url": "https://api.example.com", "placement": {"headers": {"X-Api-Key": "{api_key}"}}}
        oauth = {"authorization_endpoint": "https://example.com/a", "token_endpoint": "https://example.com/t"}
        await server.admin.create_integration(name, api=api, oauth=oauth)
    return Place(server, tmp_path, fresh_id("owner"), names[0], names[1], server.keys / "admin.key")


def things(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What a plan's steps are about."""
    return [(step["action"], f"{step['thing']} {step['tenant']}/{step['name']}".rstrip("/")) for step in found["steps"]]


async def test_a_file_is_shown_done_once_and_nothing_the_second_time(place: Place, openbao: OpenBao) -> None:
    """Tenants, quotas, allowed integrations, metadata, clients and credentials of every source; then no change at all."""
    one, two = fresh_id(), fresh_id()
    (place.folder / "key").write_text(f"{planted()}\n")
    seed = planted()
    await openbao.call("PUT", f"secret/data/{one}/seed", {"data": {"api_key": seed}}, await openbao.login())
    client = {"client_id": "theirs", "client_secret": place.secret(), "further_secrets": [place.secret()]}
    place.write(
        {
            one: {
                "display_name": "One",
                "labels": {"plan": "pro"},
                "quota": {"calls_per_second": 5},
                "integrations": {
                    place.notes: {
                        "oauth_client": client,
                        "credentials": {
                            place.notes: {"api_key": place.secret(), "labels": {"team": "docs"}},
                            "from-file": {"api_key": "${file:key}", "enabled": False},
                            "from-vault": {"vault": f"secret/data/{one}/seed"},
                            "by-person": {},
                        },
                    },
                    place.tasks: {"enabled": False},
                },
            },
            two: place.holding(place.secret(), suspended=True),
        }
    )
    shown = await place.done("diff", code=1)
    assert (shown["create"], shown["delete"]) == (7, 0)
    with refused("TENANT_NOT_FOUND"):
        await place.tenant(one)
    done = await place.apply()
    assert all(step["done"] for step in done["steps"]), done
    assert ["connect" in note for note in done["notes"]] == [True]
    record = await place.tenant(one)
    assert (record.display_name, record.labels["plan"], record.quota.calls_per_second) == ("One", "pro", 5)
    assert list(record.allowed_integrations.integrations) == [place.notes]
    assert (await place.tenant(two)).state == tenants.Tenant.STATE_SUSPENDED
    assert await place.put_in(one, "from-vault") == seed
    stored = await place.credential(one)
    assert (stored.labels["team"], stored.generation) == ("docs", 1)
    assert not (await place.credential(one, "from-file")).enabled
    with refused("INTEGRATION_NOT_ENABLED"):
        await place.server.admin.store(one, place.tasks, api_key={"api_key": planted()})

    again = await place.done("diff")
    assert (again["steps"], again["unchanged"]) == ([], 6)
    assert (await place.apply())["steps"] == []
    assert await place.credential(one) == stored
    assert await place.tenant(one) == record


async def test_what_changes_in_the_file_changes_at_the_server_and_nothing_else(place: Place) -> None:
    """A new secret is a new generation; labels, quota and a client change alone; a secret changed by hand is set right."""
    name, first = fresh_id(), place.secret()
    place.write({name: place.holding(first)})
    await place.apply()
    before = await place.credential(name)
    second = place.secret()
    place.write({name: place.holding(second, quota={"calls_at_once": 9}, labels={"a": "b"})})
    found = await place.apply()
    assert things(found) == [("change", f"tenant {name}"), ("change", f"credential {name}/{place.notes}")]
    assert (await place.credential(name)).generation == before.generation + 1
    assert await place.put_in(name) == place.secrets[second.strip("${}")]
    assert (await place.tenant(name)).quota.calls_at_once == 9
    place.write({name: place.holding(second)})
    assert things(await place.apply()) == [("change", f"tenant {name}")]
    assert not (await place.tenant(name)).HasField("quota")
    await place.server.admin.store(name, place.notes, api_key={"api_key": planted()})
    assert things(await place.apply()) == [("change", f"credential {name}/{place.notes}")]
    assert await place.put_in(name) == place.secrets[second.strip("${}")]


async def test_an_integration_of_the_platform_is_created_and_kept_as_the_file_has_it(place: Place) -> None:
    """Its definition and its client come before the tenants that use it; again, nothing changes."""
    wiki, name = fresh_id("wiki"), fresh_id()
    definition: dict[str, Any] = {
        "display_name": "Wiki",
        "api": {"base_url": "https://wiki.example", "placement": {"headers": {"X-Key": "{api_key}"}}},
        "oauth": {"authorization_endpoint": "https://wiki.example/a", "token_endpoint": "https://wiki.example/t"},
        "oauth_client": {"client_id": "c", "client_secret": place.secret()},
    }
    inside = {wiki: {"credentials": {wiki: {"api_key": place.secret()}}}}
    place.write({name: {"integrations": inside}}, integrations={wiki: definition})
    assert things(await place.apply())[0] == ("create", f"integration /{wiki}")
    assert (await place.apply())["steps"] == []
    definition["oauth_client"]["client_secret"] = place.secret()
    place.write({name: {"integrations": inside}}, integrations={wiki: definition})
    assert things(await place.apply()) == [("change", f"integration /{wiki}")]
    read = await place.server.admin.call("GetIntegration", integrations.GetIntegrationRequest(integration=wiki))
    assert read.integration.api.base_url == "https://wiki.example"


async def test_what_one_item_is_refused_for_stops_no_other_and_the_rest_is_done_next_time(place: Place) -> None:
    """Exit code 1 with the reason; once it is mended, the second run does what was left, and only that."""
    good, bad = fresh_id(), fresh_id()
    lost = {place.notes: {"credentials": {place.notes: {"vault": f"secret/data/{bad}/not-there"}}}}
    place.write({bad: {"integrations": lost}, good: place.holding(place.secret())})
    found = await place.apply(code=1)
    failed = [step for step in found["steps"] if not step["done"]]
    assert [(step["tenant"], step["name"]) for step in failed] == [(bad, place.notes)]
    assert "vault.path: no document lies there" in failed[0]["failed"]
    assert (await place.credential(good)).generation == 1
    place.write({bad: place.holding(place.secret()), good: place.holding(next(iter(place.secrets)).join(("${", "}")))})
    assert things(await place.apply()) == [("create", f"credential {bad}/{place.notes}")]


async def test_pruning_shows_what_it_deletes_and_takes_nothing_that_is_not_the_files(place: Place) -> None:
    """A tenant and a credential that the file no longer names; a tenant made by hand stays, and without --prune all do."""
    kept, gone, by_hand = fresh_id(), fresh_id(), (await place.server.admin.create_tenant()).id
    reference = place.secret()
    both = place.holding(reference)
    both["integrations"][place.tasks] = {"credentials": {"second": {"api_key": reference}}}
    place.write({kept: both, gone: {}})
    await place.apply()
    place.write({kept: place.holding(reference)})
    found = await place.apply()
    assert found["delete"] == 0
    asked = await place.config("apply", "--prune")
    assert asked.exit_code == 2, "nobody could be asked"
    assert f"- tenant {gone}" in asked.output
    assert f"- credential {kept}/second" in asked.output
    assert by_hand not in asked.output
    assert (await place.credential(kept, "second")).state == pb.Credential.STATE_ACTIVE
    assert (await place.apply("--prune"))["delete"] == 2
    assert (await place.credential(kept, "second")).state == pb.Credential.STATE_REVOKED
    async with asyncio.timeout(DEADLINE):
        with refused("TENANT_NOT_FOUND"):
            while (await place.tenant(gone)).state == tenants.Tenant.STATE_DELETING:
                pass
            raise AssertionError("it is still there")
    assert (await place.tenant(by_hand)).state == tenants.Tenant.STATE_ACTIVE
    place.write({})
    nothing = await place.config("apply", "--prune", "--yes")
    assert (nothing.exit_code, "names no tenant" in nothing.output) == (2, True)


async def test_another_files_tenant_is_not_taken_over_by_the_way(place: Place) -> None:
    """Two files that both name it: the second is refused, with the first one's owner."""
    name = fresh_id()
    place.write({name: {}})
    await place.apply()
    theirs, place.owner = place.owner, fresh_id("other")
    place.write({name: {"display_name": "Mine now"}})
    found = await place.apply(code=1)
    assert theirs in found["refusals"][0]
    assert (await place.tenant(name)).display_name == name
    assert things(await place.apply("--adopt")) == [("change", f"tenant {name}")]


async def test_no_secret_is_shown_or_logged_whatever_goes_wrong(place: Place, canary: Canary) -> None:
    """In plans, in JSON, in refusals: sources only."""
    name, reference = fresh_id(), place.secret()
    place.write({name: place.holding(reference)})
    for command, more in (("validate", ()), ("diff", ()), ("apply", ("--yes",)), ("diff", ("--json",))):
        canary.heard((await place.config(command, *more)).output)
    await place.server.admin.store(name, place.notes, api_key={"api_key": planted()})
    result = await place.config("diff")
    canary.heard(result.output)
    assert reference in result.output
    place.secrets[reference.strip("${}")] += "\n"
    canary.heard((await place.config("validate")).output)
    assert canary.find(*place.secrets.values()) == []


async def test_an_operators_key_does_not_compare_secrets(place: Place) -> None:
    """Planning needs an admin: refused with the reason, and nothing is changed."""
    name = fresh_id()
    place.write({name: place.holding(place.secret())})
    await place.apply()
    key = await place.server.admin.create_key([access.ROLE_OPERATOR], [name])
    place.key_file = place.folder / "operator.key"
    place.key_file.write_text(key)
    place.write({name: place.holding(place.secret())})
    result = await place.config("apply", "--yes")
    assert result.exit_code == 1
    assert "PERMISSION_DENIED" in result.output
    assert (await place.credential(name)).generation == 1


# --- watching


class Watch:
    """`connectors config watch` as a process, and what it logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, event: str) -> dict[str, Any]:
        """The next line of that event. Raises: TimeoutError."""
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, self.lines
                self.lines.append(line)
                found: dict[str, Any] = json.loads(line)
                if found["event"] == event:
                    return found


@contextlib.asynccontextmanager
async def watching(place: Place, *arguments: str) -> AsyncIterator[Watch]:
    """A watch until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connectors_grpc", *place.before, "config", "watch", str(place.file), *arguments,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **place.secrets},
    )  # fmt: skip
    try:
        yield Watch(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_watch_follows_the_file_keeps_what_was_good_and_ends_cleanly(place: Place) -> None:
    """Applied at the start and on each change, of a secret's file too; a broken file changes nothing and is told by its place."""
    name = fresh_id()
    secret = place.folder / "key"
    secret.write_text(planted())
    place.write({name: place.holding("${file:key}")})
    async with watching(place) as watch:
        assert "2 created" in (await watch.until("config_applied"))["result"]
        assert await place.put_in(name) == secret.read_text()
        place.file.write_text('{"tenants": {')
        assert "tenants.json:1:14" in (await watch.until("config_invalid"))["error"]
        await watch.until("config_kept")
        assert (await place.tenant(name)).state == tenants.Tenant.STATE_ACTIVE
        place.write({name: place.holding("${file:key}", quota={"calls_at_once": 4})})
        await watch.until("config_applied")
        assert (await place.tenant(name)).quota.calls_at_once == 4
        secret.write_text(planted())
        await watch.until("config_applied")
        assert await place.put_in(name) == secret.read_text()
        assert secret.read_text() not in "".join(watch.lines)
        watch.process.send_signal(signal.SIGTERM)
        await watch.until("config_watch_ended")
        assert await watch.process.wait() == 0


async def test_a_watch_sets_right_what_others_change_if_it_is_to(place: Place) -> None:
    """Without a change of the file."""
    name = fresh_id()
    place.write({name: {"quota": {"calls_at_once": 3}}})
    async with watching(place, "--every", "1") as watch:
        await watch.until("config_applied")
        cleared = tenants.UpdateTenantRequest(tenant=tenants.Tenant(id=name))
        cleared.update_mask.paths.append("quota")
        await place.server.admin.call("UpdateTenant", cleared)
        await watch.until("config_applied")
        assert (await place.tenant(name)).quota.calls_at_once == 3


async def test_a_watch_waits_for_a_server_that_is_away(place: Place) -> None:
    """It says so and when it tries again, and a signal ends the waiting at once."""
    place.write({fresh_id(): {}})
    away = Place(place.server, place.folder, place.owner, place.notes, place.tasks, place.key_file)
    away.server = Server("127.0.0.1:1", "", place.server.keys, place.server.channel)
    async with watching(away) as watch:
        assert (await watch.until("config_not_applied"))["retry_in_s"] > 0
        watch.process.send_signal(signal.SIGINT)
        await watch.until("config_watch_ended")
        assert await watch.process.wait() == 130


def test_schema_and_example_are_printed_as_they_are_shipped(tmp_path: Path) -> None:
    """And the example, with its secrets set, is a good file."""
    for name in ("schema", "example"):
        result = CliRunner().invoke(root, ["config", name])
        assert result.exit_code == 0
        (tmp_path / f"{name}.json").write_text(result.stdout)
    assert json.loads((tmp_path / "schema.json").read_text())["$defs"]["Tenant"]
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "acme-github-bots").write_text("token")
    names = ("ACME_OPENAI_KEY", "ACME_NOTION_SECRET", "GLOBEX_OPENAI_KEY")
    line = ["config", "validate", str(tmp_path / "example.json"), "--json"]
    result = CliRunner().invoke(root, line, env=dict.fromkeys(names, "secret"))
    assert json.loads(result.stdout) == {"tenants": 3, "integrations": 5, "credentials": 5}
    result = CliRunner().invoke(root, line)
    assert (result.exit_code, len(json.loads(result.stdout)["problems"])) == (2, 3)


# --- at a terminal


def new_tenant(cli: Cli, folder: Path) -> str:
    """A file with a tenant that the scripted server does not have."""
    file = folder / "tenants.json"
    file.write_text('{"tenants": {"acme": {"display_name": "Acme"}}}')
    info = error_details_pb2.ErrorInfo(reason="TENANT_NOT_FOUND", domain="connectors")

    def absent(_request: object) -> tenants.GetTenantResponse:
        raise ScriptedRefusal(grpc.StatusCode.NOT_FOUND, "There is no such tenant.", info)

    cli.script.answers["GetTenant"] = absent
    result = tenants.BatchCreateTenantsResult(tenant=tenants.Tenant(id="acme"))
    cli.script.answers["BatchCreateTenants"] = lambda _: tenants.BatchCreateTenantsResponse(results=[result])
    return str(file)


def test_at_a_terminal_the_plan_is_shown_and_yes_does_it(cli: Cli, tmp_path: Path) -> None:
    """In colour, with what changes; then a count, and how it ended."""
    terminal = Terminal(cli, "config", "apply", new_tenant(cli, tmp_path))
    terminal.until("Do it? [y/N]")
    assert "\x1b[32m+ tenant acme" in terminal.seen
    assert "display_name: Acme" in terminal.seen
    terminal.type("y\r")
    assert terminal.end() == 0
    assert "1 of 1" in terminal.seen
    assert "1 created, 0 changed, 0 deleted, 0 failed." in terminal.seen


def test_at_a_terminal_no_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    """The exit code says so."""
    terminal = Terminal(cli, "config", "apply", new_tenant(cli, tmp_path))
    terminal.until("Do it? [y/N]")
    terminal.type("n\r")
    assert terminal.end() == 1
    assert "Nothing was changed" in terminal.seen
    assert "BatchCreateTenants" not in [method for method, _ in cli.script.asked]


def test_what_rests_on_a_tenant_that_could_not_be_made_is_left_out(cli: Cli, tmp_path: Path) -> None:
    """Told as such, and not asked of the server; exit code 1."""
    file = new_tenant(cli, tmp_path)
    inside = {"integrations": {"notes": {"credentials": {"notes": {"api_key": "${KEY}"}}}}, "suspended": True}
    Path(file).write_text(json.dumps({"tenants": {"acme": inside}}))
    result = tenants.BatchCreateTenantsResult(
        error_reason="VAULT_UNAVAILABLE", error_message="The Vault does not answer."
    )
    cli.script.answers["BatchCreateTenants"] = lambda _: tenants.BatchCreateTenantsResponse(results=[result])
    line = ["--server", cli.script.address, "--key-file", str(cli.key_file), "config", "apply", file, "--yes", "--json"]
    done = CliRunner().invoke(root, line, env={"KEY": "k"})
    assert done.exit_code == 1
    failed = [step["failed"] for step in json.loads(done.stdout)["steps"]]
    assert failed == ["VAULT_UNAVAILABLE: The Vault does not answer.", *["its tenant could not be created"] * 2]
    assert {method for method, _ in cli.script.asked} == {"GetTenant", "BatchCreateTenants"}
