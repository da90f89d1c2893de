"""Many credentials by one stream: each with an answer of its own, repeatable whole, and bounded in what it holds."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import credential_service_pb2_grpc
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import ErrorReason
from connectors_grpc.simulator import protocol
from connectors_grpc.simulator.book import Code
from connectors_grpc.unordered import unordered
from tests.openbao import OpenBao
from tests.running import Client, Server, fresh_id, refusals, refused, running_server
from tests.vault_gate import VaultGate, vault_gate
from tests.worlds import World, until

API = {
    "base_url": "https://api.notes.example",
    "placement": {"headers": {"authorization": "Bearer {api_key}"}},
}
FIGURE = 500


async def begun(client: Client, requests: AsyncIterator[Any], timeout: float | None = 30) -> Any:
    """The stream."""
    stub = credential_service_pb2_grpc.CredentialServiceStub(client.channel)
    return stub.ImportCredentials(requests, metadata=client.metadata, timeout=timeout)


async def fed(items: Iterable[pb.ImportCredentialsRequest]) -> AsyncIterator[pb.ImportCredentialsRequest]:
    """One after the other."""
    for item in items:
        yield item


async def imported(
    client: Client, *items: pb.ImportCredentialsRequest, timeout: float | None = 30
) -> dict[str, pb.ImportCredentialsResponse]:
    """The answers by item. Raises: Refused."""
    with refusals():
        return {answer.item: answer async for answer in await begun(client, fed(items), timeout)}


def item(name: str, tenant: str, integration: str, key: str = "key-1", **fields: Any) -> pb.ImportCredentialsRequest:
    """One with an API key."""
    if not {"basic", "oauth", "grant"} & set(fields):
        fields["api_key"] = pb.ApiKeyMaterial(api_key=key)
    wanted = pb.StoreCredentialRequest(tenant=tenant, integration=integration, **fields)
    return pb.ImportCredentialsRequest(item=name, credential=wanted)


def reason(answer: pb.ImportCredentialsResponse) -> str:
    """Why it was refused; empty if it was not."""
    return ErrorReason.Name(answer.refusal.reason).removeprefix("ERROR_REASON_") if answer.HasField("refusal") else ""


async def place(client: Client, tenants: int = 1) -> tuple[list[str], str]:
    """Tenants, and an integration that takes API keys."""
    made = [(await client.create_tenant()).id for _ in range(tenants)]
    return made, (await client.create_integration(fresh_id("keys"), api=API)).id


async def test_one_bad_item_ends_nothing_and_says_why(server: Server) -> None:
    """Each is refused for its own reason, with its fields; the good ones among them are stored."""
    (tenant,), notes = await place(server.admin)
    answers = await imported(
        server.admin,
        item("good", tenant, notes),
        item("no label", "Not A Label", notes),
        item("no tenant", "nobody-" + fresh_id(), notes),
        item("no integration", tenant, "none-" + fresh_id()),
        item("bad key", tenant, notes, key="line\nbreak", credential="other"),
        pb.ImportCredentialsRequest(item="nothing"),
        item("", tenant, notes),
        item("x" * 65, tenant, notes),
        item("stale", tenant, notes, etag="77"),
        item("last", tenant, notes, credential="last", labels={"plan": "pro"}),
    )
    assert {name: reason(answer) for name, answer in answers.items()} == {
        "good": "", "no label": "INVALID_FIELD", "no tenant": "TENANT_NOT_FOUND", "no integration": "INTEGRATION_NOT_FOUND",
        "bad key": "INVALID_FIELD", "nothing": "INVALID_FIELD", "": "INVALID_FIELD", "x" * 64: "INVALID_FIELD",
        "stale": "CONFLICT", "last": "",
    }  # fmt: skip
    fields = {name: [each.field for each in answer.refusal.field_violations] for name, answer in answers.items()}
    assert fields["no label"] == ["tenant"]
    assert fields["bad key"] == ["api_key.api_key"]
    assert fields["nothing"] == ["tenant", "integration"]
    assert fields[""] == fields["x" * 64] == ["item"]
    assert not answers["no label"].refusal.HasField("retry_delay")
    assert dict(answers["last"].credential.labels) == {"plan": "pro"}
    assert answers["good"].credential.state == pb.Credential.STATE_ACTIVE


async def test_an_import_can_be_repeated_whole(server: Server) -> None:
    """What is there already keeps its generation; only what differs is stored, and labels alone are no new material."""
    (tenant,), notes = await place(server.admin)
    basic = pb.BasicMaterial(username="me", password="p")
    oauth = pb.OAuthMaterial(access_token="at", scopes=["read"])
    both = (await server.admin.create_integration(fresh_id("any"), api={"base_url": "https://api.notes.example"})).id
    named = (
        await server.admin.create_integration(
            fresh_id("basic"),
            api={**API, "placement": {"basic": {"username": "{username}", "password": "{password}"}}},
        )
    ).id
    items = [
        item("a", tenant, notes, labels={"n": "1"}),
        item("b", tenant, named, basic=basic),
        item("c", tenant, both, oauth=oauth),
    ]
    first, again = await imported(server.admin, *items), await imported(server.admin, *items)
    assert [first[name].unchanged for name in "abc"] == [False] * 3
    assert [again[name].unchanged for name in "abc"] == [True] * 3
    assert [again[name].credential.etag for name in "abc"] == [first[name].credential.etag for name in "abc"]
    changed = await imported(
        server.admin,
        item("a", tenant, notes, labels={"n": "2"}),
        item("b", tenant, named, basic=pb.BasicMaterial(username="me", password="q")),
        item("c", tenant, both, oauth=pb.OAuthMaterial(access_token="at", scopes=["read", "write"])),
    )
    assert [changed[name].unchanged for name in "abc"] == [True, False, False]
    assert [changed[name].credential.generation for name in "abc"] == [1, 2, 2]
    assert dict(changed["a"].credential.labels) == {"n": "2"}


async def test_an_import_never_puts_an_old_refresh_token_over_the_one_that_replaced_it(world: World) -> None:
    """The token was rotated since: the old one is dead, and storing it again would end the connection."""
    stored = await _import_tokens_of_the_simulator(world)
    assert [each.unchanged for each in stored] == [False, True]
    renewed = await world.refresh("imported")
    assert renewed.generation == 2
    (after,) = (await imported(world.admin, _item_of(world))).values()
    assert after.unchanged
    assert after.credential.generation == 2
    assert (await world.refresh("imported")).generation == 3


def _item_of(world: World) -> pb.ImportCredentialsRequest:
    tokens = pb.OAuthMaterial(access_token=world.secrets[-2], refresh_token=world.secrets[-1])
    return item("it", world.tenant, world.integration, credential="imported", oauth=tokens)


async def _import_tokens_of_the_simulator(world: World) -> list[pb.ImportCredentialsResponse]:
    """Tokens that somebody got elsewhere, imported twice."""
    client = world.sim.clients[world.client_id]
    by = protocol.Chance(world.sim.clock(), world.sim.mint)
    code = Code(client.client_id, "https://app.example/cb", None, "alice", "notes.read", by.now + 60)
    value = protocol.new_code(world.sim.book, code, by.mint)
    issued = protocol.exchange_code(world.sim.book, client, value, redirect_uri=code.redirect_uri, verifier=None, by=by)
    assert isinstance(issued, protocol.Issued)
    assert issued.refresh_token is not None
    world.secrets += [issued.access_token, issued.refresh_token]
    return [(await imported(world.admin, _item_of(world)))["it"] for _ in range(2)]


async def test_items_of_one_credential_are_stored_as_they_came(server: Server) -> None:
    """The last of them is what stays, however many are under way."""
    (tenant,), notes = await place(server.admin)
    answers = await imported(server.admin, *(item(f"{n}", tenant, notes, key=f"key-{n}") for n in range(20)))
    assert [answers[f"{n}"].credential.generation for n in range(20)] == list(range(1, 21))


async def test_each_item_is_authorised_as_in_a_call_of_its_own(server: Server) -> None:
    """An operator's items for others' tenants are refused alike, whether those exist or not; its own are stored."""
    (mine, theirs), notes = await place(server.admin, 2)
    operator = await server.app(mine, role=access.ROLE_OPERATOR)
    answers = await imported(
        operator,
        item("mine", mine, notes),
        item("theirs", theirs, notes),
        item("nobody's", "nobody-" + fresh_id(), notes),
        item("theirs, malformed", theirs, "NO"),
        pb.ImportCredentialsRequest(item="nothing"),
    )
    assert reason(answers["mine"]) == ""
    denials = {name: answer.refusal for name, answer in answers.items() if name != "mine"}
    assert {reason(answers[name]) for name in denials} == {"PERMISSION_DENIED"}
    assert len({denial.SerializeToString() for denial in denials.values()}) == 1
    narrow = await server.app(mine, role=access.ROLE_OPERATOR, credentials=["only"])
    answers = await imported(narrow, item("only", mine, notes, credential="only"), item("other", mine, notes))
    assert {name: reason(answer) for name, answer in answers.items()} == {"only": "", "other": "PERMISSION_DENIED"}
    with refused("PERMISSION_DENIED"):
        await imported(await server.app(mine), item("app", mine, notes))


async def test_a_key_that_is_revoked_ends_the_stream(server: Server) -> None:
    """However long it is open, nothing more is stored."""
    (tenant,), notes = await place(server.admin)
    name = fresh_id("key")
    made = await server.admin.call(
        "CreateApiKey",
        access.CreateApiKeyRequest(key_id=name, api_key=access.ApiKey(roles=[access.ROLE_OPERATOR], tenants=[tenant])),
    )
    revoked = asyncio.Event()

    async def items() -> AsyncIterator[pb.ImportCredentialsRequest]:
        yield item("before", tenant, notes)
        await revoked.wait()
        yield item("after", tenant, notes, credential="after")

    stream = await begun(server.client(made.secret), items())
    assert (await stream.read()).item == "before"
    await server.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=name))
    revoked.set()
    with refused("API_KEY_INVALID"):
        await stream.read()
        await stream.read()


async def test_bytes_that_are_no_message_end_the_stream_after_what_came_before(server: Server) -> None:
    """There is no item to answer to."""
    (tenant,), notes = await place(server.admin)

    async def items() -> AsyncIterator[bytes]:
        yield item("good", tenant, notes).SerializeToString()
        yield b"\xff\xff\xff"

    path = "/connectors.v1.CredentialService/ImportCredentials"
    call = server.channel.stream_stream(path, lambda data: data, pb.ImportCredentialsResponse.FromString)
    stream: Any = call(items(), metadata=server.admin.metadata, timeout=20)
    assert (await stream.read()).item == "good"
    with refused("MALFORMED_REQUEST"):
        await stream.read()


@asynccontextmanager
async def gated(openbao: OpenBao, short_tmp: Path, keys: Path) -> AsyncIterator[tuple[Server, VaultGate]]:
    """A server whose Vault can be taken away."""
    async with (
        vault_gate(openbao.socket_path, Path(tempfile.mkdtemp(dir=short_tmp)) / "g") as gate,
        running_server(openbao, keys, vault_addr=gate.address) as found,
    ):
        yield found, gate


async def test_a_vault_that_is_away_is_waited_for_and_else_said_item_by_item(
    server: Server, openbao: OpenBao, short_tmp: Path
) -> None:
    """Within the deadline; what is refused then says when to come again, and the stream goes on."""
    async with gated(openbao, short_tmp, server.keys) as (apart, gate):
        (tenant,), notes = await place(apart.admin)
        assert not reason((await imported(apart.admin, item("warm", tenant, notes)))["warm"])
        gate.refuse()
        names = [f"n-{number}" for number in range(40)]
        items = [item(name, tenant, notes, credential=name) for name in names]
        answers = await imported(apart.admin, *items, timeout=10)
        assert {reason(answer) for answer in answers.values()} == {"VAULT_UNAVAILABLE"}
        assert set(answers) == set(names)
        assert all(answer.refusal.retry_delay.ToMilliseconds() > 0 for answer in answers.values())
        waiting = asyncio.create_task(imported(apart.admin, *items, timeout=20))
        before = gate.refused
        await until(lambda: _came(gate, before + 4))
        gate.serve_again()
        assert {reason(answer) for answer in (await waiting).values()} == {""}


async def _came(gate: VaultGate, count: int) -> bool:
    return gate.refused >= count


async def test_what_is_not_taken_is_not_read() -> None:
    """Sixteen under way or waiting to be taken: then the writer waits, and a reader that leaves ends them."""
    read, left = 0, 0

    async def items() -> AsyncIterator[int]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield number

    async def work(number: int) -> int:
        nonlocal left
        try:
            if number >= 16:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            left += 1
            raise
        return number

    answers = unordered(items(), work, most=16, key=lambda number: number)
    taken = [await anext(answers) for _ in range(4)]
    assert sorted(taken) == [0, 1, 2, 3]
    for _ in range(50):
        await asyncio.sleep(0)
    assert read == 16 + 3  # the fourth is in our hands still
    await answers.aclose()
    assert left == 3


async def test_an_error_of_the_source_comes_after_the_answers_to_what_came_before() -> None:
    """Nothing that was begun is lost."""

    async def items() -> AsyncIterator[int]:
        for number in range(5):
            yield number
        raise ValueError

    async def work(number: int) -> int:
        for _ in range(10 - number):
            await asyncio.sleep(0)
        return number

    found: list[int] = []

    async def take() -> None:
        async for number in unordered(items(), work, most=16, key=lambda number: number % 2):
            found.append(number)  # noqa: PERF401 - an error ends it

    with pytest.raises(ValueError):
        await take()
    assert sorted(found) == [0, 1, 2, 3, 4]


async def test_five_hundred_credentials_are_imported_in_one_stream(
    server: Server, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    """The figure is printed (`pytest -s`); the secrets of all are in no log, the sum is in the audit."""
    tenants, notes = await place(server.admin, 10)
    items = [
        item(f"{n}", tenants[n % 10], notes, key=f"canary-import-{n:04d}", credential=f"c-{n}") for n in range(FIGURE)
    ]
    caplog.clear()
    began = time.monotonic()
    first = await imported(server.admin, *items, timeout=None)
    middle = time.monotonic()
    again = await imported(server.admin, *items, timeout=None)
    ended = time.monotonic()
    assert len(first) == len(again) == FIGURE
    assert not any(reason(answer) for answer in (*first.values(), *again.values()))
    assert all(answer.unchanged for answer in again.values())
    print(f"{FIGURE} imported in {middle - began:.2f} s, again in {ended - middle:.2f} s")
    record_property("import_500_s", round(middle - began, 2))
    assert "canary-import-" not in caplog.text


async def command(server: Server, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """The command line, against the server: exit code, stdout, stderr."""
    before = ("--server", server.grpc_address, "--key-file", str(server.keys / "admin.key"))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connectors_grpc", *before, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(child.communicate(stdin.encode()), 60)
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def test_a_file_is_imported_line_by_line_and_what_is_wrong_is_named_by_its_line(
    server: Server, tmp_path: Path
) -> None:
    """Exit code 1 if any was refused; no line's content is ever repeated; again, and nothing is changed."""
    (tenant,), notes = await place(server.admin)
    ours = {"tenant": tenant, "integration": notes}
    lines = [
        json.dumps({**ours, "api_key": "canary-cli-1"}),
        "",
        "canary-cli-2 is no JSON",
        json.dumps({**ours, "apiKey": {"apiKey": "canary-cli-3"}, "credential": "three", "labels": {"n": "3"}}),
        json.dumps({**ours, "canary-cli-4": 1}),
        json.dumps({**ours, "api_key": "canary-cli-5", "credential": "NO"}),
        json.dumps({**ours, "api_key": 7}),
        json.dumps({**ours, "password": "canary-cli-8"}),
        json.dumps(["canary-cli-9"]),
        json.dumps({**ours, "api_key": "canary-cli-10" + "x" * 300_000}),
    ]
    file = tmp_path / "credentials.jsonl"
    file.write_text("\n".join(lines))
    code, out, err = await command(server, "credential", "import", str(file))
    assert (code, out) == (1, "")
    refused_lines = {line.partition(": ")[0]: line for line in err.splitlines() if line.startswith("line ")}
    assert set(refused_lines) == {f"line {number}" for number in (3, 5, 6, 7, 8, 9, 10)}
    assert "INVALID_FIELD" in refused_lines["line 6"]
    assert " credential: a lower-case DNS label is wanted" in refused_lines["line 6"]
    assert err.endswith("2 stored, 0 unchanged, 7 refused.\n")
    assert "canary-cli" not in err
    good = f"{lines[0]}\n{lines[3]}"
    code, out, err = await command(server, "credential", "import", "-", "--json", stdin=good)
    assert (code, err) == (0, "")
    answers = {each["item"]: each for each in map(json.loads, out.splitlines())}
    assert [(answers[line]["unchanged"], answers[line]["credential"]["id"]) for line in "12"] == [
        (True, notes),
        (True, "three"),
    ]
    assert "canary-cli" not in out


async def test_what_cannot_be_imported_at_all_is_said_once(server: Server, tmp_path: Path) -> None:
    """A file that is not there, and a key that may not."""
    assert (await command(server, "credential", "import", str(tmp_path / "none")))[0] == 2
    key = tmp_path / "app.key"
    key.write_text((await server.app((await place(server.admin))[0][0])).key)
    line = json.dumps({"tenant": "a", "integration": "b", "api_key": "k"})
    code, _, err = await command(server, "--key-file", str(key), "credential", "import", "-", stdin=line)
    assert code == 4
    assert "PERMISSION_DENIED" in err
