"""Attack 27: killed at every step of a refresh, a server and a Vault lose no refresh token that anything could have kept.

What comes of each credential stands in the table of docs/reliability.md, row by row.
"""

from __future__ import annotations

import asyncio
import json
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connectors_grpc.credentials import renewing, storing
from connectors_grpc.credentials.refresh_lease import LONG_DEAD, TTL
from connectors_grpc.embedded import EmbeddedVault
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.simulator import Simulator, SimulatorSettings
from connectors_grpc.simulator.misbehaviour import Misbehaviour
from connectors_grpc.simulator.settings import RotatingWithGrace
from tests.clock import ManualClock
from tests.openbao import SETTINGS, OpenBao, copy_state, opened
from tests.providers import running_simulator
from tests.replicas import NAMED, Account, make_account, replica_process
from tests.running import Refused, Server, refused, running_server
from tests.vault_gate import At, Held, VaultGate, vault_gate
from tests.worlds import ShiftedClock, State, forms, gated, until

ACTIVE, INTERRUPTED = "ACTIVE", "NEEDS_REAUTH (refresh_interrupted)"
SERVER_STEPS = ("before the call", "asked", "answered, unread", "spilled", "written", "unreleased")
VAULT_STEPS = ("before the call", "answered", "unwritten", "written", "unreleased")


@dataclass
class Place:
    """An OpenBao to be killed, a gate to it, a server past the gate, and a provider."""

    openbao: OpenBao
    gate: VaultGate
    calm: Server
    sim: Simulator
    keys: Path
    tmp: Path

    def server(
        self, name: str, *, direct: bool = False, clock: ShiftedClock | None = None
    ) -> AbstractAsyncContextManager[Server]:
        """A replica of that name in this process, behind the gate unless `direct`."""
        address = self.openbao.address if direct else self.gate.address
        return running_server(self.openbao, self.keys, clock=clock, vault_addr=address, state_dir=self.tmp / name)


@asynccontextmanager
async def new_place(short_tmp: Path, template: Path, tmp_path: Path) -> AsyncIterator[Place]:
    """A place."""
    own = Path(tempfile.mkdtemp(prefix="crash-", dir=short_tmp))
    async with AsyncExitStack() as stack:
        vault = EmbeddedVault(copy_state(template, own / "s"), SETTINGS)
        openbao = opened(await stack.enter_async_context(vault))
        sim = await stack.enter_async_context(running_simulator(SimulatorSettings(clients=())))
        gate = await stack.enter_async_context(vault_gate(openbao.socket_path, own / "g"))
        calm = await stack.enter_async_context(running_server(openbao, tmp_path / "keys"))
        yield Place(openbao, gate, calm, sim, tmp_path / "keys", tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(
    short_tmp: Path, openbao_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """One for this file."""
    async with new_place(short_tmp, openbao_template, tmp_path_factory.mktemp("crash")) as made:
        yield made


@dataclass
class Case:
    """One credential in mid-refresh: `reached` says that it is at its step, `rule` is what holds it there."""

    rotation: str
    step: str
    account: Account
    rule: Held | None = None

    def spilled(self, state_dir: Path) -> Path:
        """Where its answer would lie."""
        return state_dir / "spill" / f"{self.account.tenant}.{self.account.integration}.2.sealed"


def set_step(case: Case, gate: VaultGate) -> Callable[[Path], Awaitable[None]]:
    """Have the refresh stop at the case's step; gives what waits until it is there."""
    account = case.account

    async def asked() -> bool:
        return bool(account.asked())

    async def acted() -> bool:
        return any(seen.token_id for seen in account.asked())

    patterns = {
        "before the call": (f"POST transit/datakey/plaintext/{account.tenant}$", At.REQUEST, 0),
        "spilled": (f"POST transit/encrypt/{account.tenant}$", At.REQUEST, 0),
        "unwritten": (f"POST transit/encrypt/{account.tenant}$", At.REQUEST, 0),
        "written": (f"POST secret/data/{account.tenant}/", At.REPLY, 0),
        "unreleased": (f"POST connectors/data/refresh/{account.tenant}", At.REQUEST, 1),
    }
    if case.step in patterns:
        pattern, at, after = patterns[case.step]
        case.rule = gate.hold(pattern, at, after=after)
    if case.step == "asked":
        account.next(Misbehaviour.HANG)
    elif case.step == "answered, unread":
        account.next(Misbehaviour.HANG_AFTER_ACTING)

    async def there(state_dir: Path) -> None:
        if case.rule is not None:
            await case.rule.reached()
        elif case.step == "asked":
            await until(asked)
        else:
            await until(acted)
        if case.step == "spilled":
            await appears(case.spilled(state_dir))

    return there


async def appears(path: Path) -> None:
    """Wait for a file."""
    async with asyncio.timeout(60):
        while not path.exists():  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)


async def vanishes(path: Path) -> None:
    """Wait until a file is no more."""
    async with asyncio.timeout(60):
        while path.exists():  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)


async def outcome(account: Account, server: Server) -> str:
    """What became of a credential: refreshed and called with, or the state and detail that it ended in."""
    try:
        await account.refresh(server)
    except Refused as error:
        found = await account.read(server)
        return f"{error.reason} ({found.state_detail})"
    assert await account.whoami(server) == 200
    return ACTIVE


async def outcomes(cases: list[Case], server: Server) -> dict[tuple[str, str], str]:
    """What became of each, by step and rotation."""
    found = await asyncio.gather(*(outcome(case.account, server) for case in cases))
    return {(case.step, case.rotation): what for case, what in zip(cases, found, strict=True)}


async def all_cases(place: Place, steps: tuple[str, ...], **fields: Any) -> list[Case]:
    """A new credential for each step and rotation."""
    return [
        Case(name, step, await make_account(place.calm, place.sim, rotation, **fields))
        for step in steps
        for name, rotation in NAMED.items()
    ]


async def test_a_server_killed_at_any_step_loses_only_what_nothing_had_kept(place: Place) -> None:
    """Thirty-six refreshes under way, one kill -9; half is taken over by another replica, half by the next life of this one.

    A person is needed only where a used token is dead at once *and* the new one was never in our hands, or is on the disk of
    the replica that is still down.
    """
    theirs, ours = await all_cases(place, SERVER_STEPS), await all_cases(place, SERVER_STEPS)
    secret_id = place.openbao.vault.secret_id_file
    state_dir = place.tmp / "victim"
    async with replica_process(place.gate.address, secret_id, place.keys, state_dir) as victim:
        waits = [set_step(case, place.gate) for case in (*theirs, *ours)]
        calls = [asyncio.create_task(case.account.refresh(victim.server)) for case in (*theirs, *ours)]
        await asyncio.gather(*(there(state_dir) for there in waits))
        await victim.kill()
        await asyncio.gather(*calls, return_exceptions=True)
    for case in (*theirs, *ours):
        if case.rule is not None:
            case.rule.cut()
    clock = ShiftedClock()
    clock.advance(TTL + LONG_DEAD.total_seconds() + 1)
    async with place.server("other", direct=True, clock=clock) as other:
        taken_over = await outcomes(theirs, other)
        for case in theirs:
            if taken_over[case.step, case.rotation] != ACTIVE:
                await case.account.store(other.admin)
                assert await outcome(case.account, other) == ACTIVE
    async with replica_process(place.gate.address, secret_id, place.keys, state_dir) as again:
        spilled = [case for case in ours if case.step == "spilled"]
        await asyncio.gather(*(vanishes(case.spilled(state_dir)) for case in spilled))
        assert [len(case.account.asked()) for case in spilled] == [1, 1, 1], "recovered without asking again"
        resumed = await outcomes(ours, again.server)
    assert resumed == expected(SERVER_STEPS, ("answered, unread", "at once"))
    assert taken_over == expected(SERVER_STEPS, ("answered, unread", "at once"), ("spilled", "at once"))
    check_documented("server", "its next life", SERVER_STEPS, resumed)
    check_documented("server", "another replica", SERVER_STEPS, taken_over)


def expected(steps: tuple[str, ...], *lost: tuple[str, str]) -> dict[tuple[str, str], str]:
    """All ACTIVE, but for those."""
    return {(step, name): INTERRUPTED if (step, name) in lost else ACTIVE for step in steps for name in NAMED}


async def test_a_vault_killed_at_any_step_costs_nobody_anything(place: Place) -> None:
    """Fifteen refreshes under way, kill -9 of OpenBao: each answer is spilled, and stored once it is back."""
    async with gated(place.sim) as provider, place.server("steady") as steady:
        cases = await all_cases(place, tuple(step for step in VAULT_STEPS if step != "answered"))
        late = await all_cases(place, ("answered",), oauth={"token_endpoint": f"{provider.url}/token"})
        waits = [set_step(case, place.gate) for case in cases]
        provider.shut()
        calls = [asyncio.create_task(case.account.refresh(steady, 60)) for case in (*cases, *late)]
        await asyncio.gather(*(there(place.tmp) for there in waits), provider.reached(len(late)))
        await place.openbao.kill()
        place.gate.refuse()
        for case in cases:
            assert case.rule is not None
            case.rule.cut()
        provider.open.set()
        state_dir = place.tmp / "steady"
        kept = [case for case in (*cases, *late) if case.step in ("answered", "unwritten", "written")]
        await asyncio.gather(*(appears(case.spilled(state_dir)) for case in kept))
        for case in kept:
            check_sealed(case.spilled(state_dir), case.account)
        await place.openbao.vault.start()
        place.gate.serve_again()
        # A caller whose refresh had not begun waits out the outage as well: the server tries again for it.
        assert {each.generation for each in await asyncio.gather(*calls)} == {2}
        assert {len(case.account.asked()) for case in (*cases, *late)} == {1}
        assert not any(case.spilled(state_dir).exists() for case in kept)
        found = await outcomes([*cases, *late], steady)
        assert found == expected(VAULT_STEPS)
        check_documented("Vault", "the same server", VAULT_STEPS, found)


def check_documented(killed: str, by: str, steps: tuple[str, ...], found: dict[tuple[str, str], str]) -> None:
    """The table of docs/reliability.md has these very rows."""
    page = (Path(__file__).parent.parent.parent / "docs" / "reliability.md").read_text()
    for step in steps:
        row = f"| {killed} | {step} | {by} | " + " | ".join(found[step, name] for name in NAMED) + " |"
        assert row in page, row


def check_sealed(path: Path, account: Account) -> None:
    """For its owner only, and no token in it."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_text()
    tokens = [
        token for seen in account.asked() for token in (seen.fields["refresh_token"], account.client.client_secret)
    ]
    assert not any(form in content for token in tokens if token for form in forms(token))
    assert "sim_" not in content
    assert not any(form in content for form in forms("sim_rt_"))


async def test_a_server_killed_while_its_vault_is_down_recovers_from_its_disk(place: Place) -> None:
    """The answer comes while the Vault is away, and then we die too: the next life stores it and asks nobody."""
    account = await make_account(place.calm, place.sim)
    case = Case("at once", "spilled", account)
    state_dir = place.tmp / "twice"
    secret_id = place.openbao.vault.secret_id_file
    async with replica_process(place.gate.address, secret_id, place.keys, state_dir) as victim:
        held = place.gate.hold(f"POST transit/encrypt/{account.tenant}$")
        call = asyncio.create_task(account.refresh(victim.server))
        await held.reached()
        place.gate.refuse()
        held.cut()
        await appears(case.spilled(state_dir))
        check_sealed(case.spilled(state_dir), account)
        await victim.kill()
        await asyncio.gather(call, return_exceptions=True)
    place.gate.serve_again()
    async with replica_process(place.gate.address, secret_id, place.keys, state_dir) as again:
        await vanishes(case.spilled(state_dir))
        found = await account.read(again.server)
        assert (found.generation, len(account.asked())) == (2, 1)
        assert await outcome(account, again.server) == ACTIVE


async def test_an_answer_that_no_disk_takes_is_kept_in_memory(place: Place) -> None:
    """No spill directory (a file lies in its place): stored when the Vault is back, however late, and asked for once."""
    (place.tmp / "full").mkdir(mode=0o700)
    (place.tmp / "full" / "spill").touch()
    account = await make_account(place.calm, place.sim)
    async with place.server("full") as server:
        call = await _answered_in_vain(place, account, server)
        before = place.gate.refused
        await until(lambda: _refused_since(place.gate, before + 3))
        place.gate.serve_again()
        assert (await call).generation == 2
        assert len(account.asked()) == 1
        assert await outcome(account, server) == ACTIVE


async def _refused_since(gate: VaultGate, count: int) -> bool:
    return gate.refused >= count


async def _answered_in_vain(place: Place, account: Account, server: Server) -> asyncio.Task[pb.Credential]:
    """A refresh whose answer has come and whose Vault is gone."""
    held = place.gate.hold(f"POST transit/encrypt/{account.tenant}$")
    call = asyncio.create_task(account.refresh(server, 60))
    await held.reached()
    place.gate.refuse()
    held.cut()
    return call


async def test_an_answer_given_up_is_stored_before_anything_is_sent_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage longer than our patience: the refresh ends, its file stays, and the next one begins with it."""
    monkeypatch.setattr(storing, "GIVE_UP_AFTER", 0.5)
    account = await make_account(place.calm, place.sim)
    async with place.server("patient") as server:
        with pytest.raises(Refused) as ended:
            await (await _answered_in_vain(place, account, server))
        assert ended.value.reason == "VAULT_UNAVAILABLE"
        place.gate.serve_again()
        assert (await account.refresh(server)).generation == 2
        assert len(account.asked()) == 1
        assert await outcome(account, server) == ACTIVE
        assert not list((place.tmp / "patient" / "spill").glob("*.sealed"))


async def test_a_rivals_needs_reauth_gives_way_to_the_answer_that_we_hold(place: Place) -> None:
    """Cut off with the only good token: another replica takes over, is refused, and says so; then our answer goes in over it."""
    account = await make_account(
        place.calm,
        place.sim,
        RotatingWithGrace(grace=0, reuse_revokes=False),
        oauth={"refresh_rotation": integrations.REFRESH_ROTATION_AT_ONCE},
    )
    clock = ShiftedClock()
    async with place.server("cut off") as server, place.server("rival", direct=True, clock=clock) as rival:
        call = await _answered_in_vain(place, account, server)
        clock.advance(TTL + LONG_DEAD.total_seconds() + 1)
        with refused("NEEDS_REAUTH"):
            await account.refresh(rival)
        assert (await account.read(rival)).state_detail == "refresh_interrupted"
        place.gate.serve_again()
        await call
        found = await account.read(rival)
        assert (found.state, found.state_detail) == (State.STATE_ACTIVE, "")
        assert await outcome(account, rival) == ACTIVE


async def test_a_dead_holders_lease_is_taken_once_it_was_watched_for_its_whole_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica, whose clock goes on by 1.5 s with each look: it waits out the lease and no longer."""
    monkeypatch.setattr(renewing, "POLL", 0.005)
    account = await make_account(place.calm, place.sim)
    clock = ManualClock(datetime.now(UTC))  # how long a look takes on a busy machine is no matter
    looks: list[float] = []

    def passing(line: str) -> None:
        if line.startswith(f"GET connectors/data/refresh/{account.tenant}."):
            looks.append(clock.monotonic())
            clock.advance(timedelta(seconds=1.5))

    own = place.tmp / "dead"
    async with (
        replica_process(place.gate.address, place.openbao.vault.secret_id_file, place.keys, own) as victim,
        vault_gate(place.openbao.socket_path, place.gate.socket.with_name("w")) as watched,
        running_server(
            place.openbao, place.keys, clock=clock, vault_addr=watched.address, state_dir=own / "t"
        ) as taker,
    ):
        account.next(Misbehaviour.HANG)
        call = asyncio.create_task(account.refresh(victim.server))
        await until(lambda: _asked(account))
        await victim.kill()
        await asyncio.gather(call, return_exceptions=True)
        watched.watchers.append(passing)
        assert (await account.refresh(taker)).generation == 2
    assert looks[-1] - looks[0] >= TTL
    assert 1.5 * (len(looks) - 1) <= TTL + 4


async def _asked(account: Account) -> bool:
    return bool(account.asked())


async def test_a_damaged_or_foreign_file_is_refused_and_holds_up_nobody(place: Place) -> None:
    """Garbage, another tenant's names, an altered byte, a path, a deleted tenant's: each is removed, the good one stored."""
    good, deleted = [await make_account(place.calm, place.sim) for _ in range(2)]
    spill = place.tmp / "given" / "spill"
    async with place.server("giving") as giving:
        held = place.gate.hold("POST transit/encrypt/")
        calls = [asyncio.create_task(account.refresh(giving, 60)) for account in (good, deleted)]
        await held.reached(2)
        files = [Case("at once", "", account).spilled(place.tmp / "giving") for account in (good, deleted)]
        await asyncio.gather(*(appears(path) for path in files))
        content = [path.read_bytes() for path in files]
        held.cut()
        await asyncio.gather(*calls)
    await place.calm.admin.call("DeleteTenant", tenants.DeleteTenantRequest(tenant=deleted.tenant, force=True))
    await until(lambda: _denied(deleted, place.calm))
    spill.mkdir(mode=0o700, parents=True)
    envelope = json.loads(content[0])
    altered = envelope["sealed"][:-8] + ("A" if envelope["sealed"][-8] != "A" else "B") + envelope["sealed"][-7:]
    damaged = {
        "garbage": b"\0" * 100,
        "empty": b"",
        "deep": b"[" * 100_000,
        "large": b"x" * 300_000,
        "altered": json.dumps(envelope | {"sealed": altered}).encode(),
        "renamed": json.dumps(envelope | {"credential": "other"}).encode(),
        "earlier-tenant": json.dumps(envelope | {"tenant_uid": "another"}).encode(),
        "path": json.dumps(envelope | {"tenant": "../sys"}).encode(),
        "unwrappable": json.dumps(envelope | {"wrapped": "vault:v1:AAAA"}).encode(),
        "deleted": content[1],
    }
    for name, text in damaged.items():
        (spill / f"a.{name}.2.sealed").write_bytes(text)
    (spill / files[0].name).write_bytes(content[0])
    generation = (await good.read(place.calm)).generation
    async with place.server("given") as given:
        await until(lambda: _emptied(spill))
        assert (await good.read(given)).generation == generation, "what is stored is as new"
        assert await outcome(good, given) == ACTIVE


async def _emptied(spill: Path) -> bool:
    return not list(spill.glob("*.sealed"))


async def _denied(account: Account, server: Server) -> bool:
    try:
        await account.read(server)
    except Refused as error:
        return bool(error.reason == "TENANT_NOT_FOUND")
    return False


async def test_a_file_that_cannot_be_read_now_is_kept_and_holds_up_only_its_own_credential(place: Place) -> None:
    """An error of the disk is no reason to throw the only good token away, nor to send the old one."""
    account, other = [await make_account(place.calm, place.sim) for _ in range(2)]
    spill = place.tmp / "unreadable" / "spill"
    spill.mkdir(mode=0o700, parents=True)
    file = Case("at once", "", account).spilled(spill.parent)
    file.mkdir()  # reading a directory is an OSError
    async with place.server("unreadable") as server:
        with refused("VAULT_UNAVAILABLE"):
            await account.refresh(server)
        assert await outcome(other, server) == ACTIVE
        assert file.exists()
        assert account.asked() == []
        file.rmdir()
        assert await outcome(account, server) == ACTIVE
