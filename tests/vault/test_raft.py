"""Three OpenBao nodes as one raft cluster: the leader is killed under load, and no call but those in between notices.

The server is given all three addresses. Traffic stays on loopback; the nodes unseal themselves by one static key.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import signal
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2
import pytest

from connectors_grpc.embedded.config import literal
from connectors_grpc.embedded.process import EmbeddedSettings, find_binary
from connectors_grpc.embedded.setup import ROLE, access_steps, mount_steps
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.simulator import Simulator, SimulatorSettings
from connectors_grpc.vault import VaultDocuments, VaultMisconfigured, VaultSettings, connect
from tests.openbao import OpenBao
from tests.ports import free_port
from tests.providers import running_simulator
from tests.replicas import Account, make_account, replica_process
from tests.running import Refused, Server
from tests.vault_gate import vault_gate
from tests.worlds import until

NODES = 3
SETTLED = 1.0
"""Seconds that a node must be well before raft lets it vote; ten unless told otherwise."""
PATIENCE = 3
"""Seconds of a leader's silence after which the others vote. On a busy machine a leader that lives is silent for one, too."""


@dataclass
class Node:
    """One OpenBao of the cluster."""

    name: str
    directory: Path
    port: int
    cluster_port: int
    process: Process | None = None

    @property
    def address(self) -> str:
        """Its API."""
        return f"http://127.0.0.1:{self.port}"

    async def status(self, http: httpx2.AsyncClient) -> int:
        """200 if it is active, 429 on standby, 0 if it does not answer."""
        try:
            return (await http.get(f"{self.address}/v1/sys/health")).status_code
        except httpx2.HTTPError:
            return 0


@dataclass
class Cluster:
    """The nodes, and how the server and the test get in."""

    nodes: list[Node]
    http: httpx2.AsyncClient
    secret_id_file: Path
    operator: str = field(repr=False)

    async def leader(self) -> Node:
        """The active node. Raises: TimeoutError."""
        async with asyncio.timeout(60):
            while True:
                for node in self.nodes:
                    if node.process is not None and await node.status(self.http) == 200:
                        return node
                await asyncio.sleep(0.02)

    async def voters(self) -> int:
        """How many nodes have a say."""
        url = f"{self.nodes[0].address}/v1"
        who = {"role_id": "operator", "secret_id": self.operator}
        login = await self.http.post(f"{url}/auth/approle/login", json=who)
        headers = {"X-Vault-Token": login.json()["auth"]["client_token"]}
        reply = await self.http.get(f"{url}/sys/storage/raft/configuration", headers=headers)
        return sum(1 for server in reply.json()["data"]["config"]["servers"] if server["voter"])

    async def kill(self, node: Node) -> None:
        """As if its machine died."""
        assert node.process is not None
        node.process.send_signal(signal.SIGKILL)
        await node.process.wait()
        node.process = None


def configuration(node: Node, nodes: Sequence[Node], key: Path, initialise: str) -> str:
    """One node's configuration; the first one's has the `initialize` blocks besides."""
    joins = "\n".join(
        f'  retry_join {{\n    leader_api_addr = "{other.address}"\n  }}' for other in nodes if other is not node
    )
    return f"""\
log_level    = "info"
api_addr     = "{node.address}"
cluster_addr = "https://127.0.0.1:{node.cluster_port}"
storage "raft" {{
  path                   = {literal(str(node.directory / "data"))}
  node_id                = "{node.name}"
  performance_multiplier = {PATIENCE}
{"" if initialise else joins}
}}
listener "tcp" {{
  address         = "127.0.0.1:{node.port}"
  cluster_address = "127.0.0.1:{node.cluster_port}"
  tls_disable     = true
}}
seal "static" {{
  current_key_id = "k1"
  current_key    = "file://{key}"
}}
{initialise}
"""


def initialisation(role_id: str, secret_id: str, operator: str) -> str:
    """What the first node does at its first start: mounts, policy, AppRole, and a way in for the test, to look at raft."""
    voting = {"server_stabilization_time": f"{SETTLED}s", "last_contact_threshold": "10s"}
    watch = 'path "sys/storage/raft/*" {\n  capabilities = ["read", "sudo"]\n}'
    steps = [(step.name, step.path, step.data) for step in (*mount_steps(), *access_steps())]
    steps += [
        ("role_id", f"auth/approle/role/{ROLE}/role-id", {"role_id": role_id}),
        ("secret_id", f"auth/approle/role/{ROLE}/custom-secret-id", {"secret_id": secret_id}),
        ("voting", "sys/storage/raft/autopilot/configuration", voting),
        ("operator_policy", "sys/policies/acl/operator", {"policy": watch}),
        ("operator", "auth/approle/role/operator", {"token_policies": ["operator"]}),
        ("operator_role_id", "auth/approle/role/operator/role-id", {"role_id": "operator"}),
        ("operator_secret_id", "auth/approle/role/operator/custom-secret-id", {"secret_id": operator}),
    ]
    requests = "\n".join(
        f'  request "{name}" {{\n    operation = "update"\n    path = {literal(path)}\n    data = {literal(data)}\n  }}'
        for name, path, data in steps
    )
    return f'initialize "all" {{\n{requests}\n}}'


async def start(node: Node) -> None:
    """Run it; its log lies beside its data."""
    with (node.directory / "log").open("ab") as log:
        node.process = await asyncio.create_subprocess_exec(
            *(str(find_binary(EmbeddedSettings())), "server", "-config", str(node.directory / "bao.hcl")),
            stdout=log,
            stderr=log,
            env={"HOME": str(node.directory)},
        )


@asynccontextmanager
async def cluster(tmp: Path) -> AsyncIterator[Cluster]:
    """Three nodes that all vote."""
    key = tmp / "seal.key"
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o600)
    role_id, secret_id, operator = secrets.token_hex(16), secrets.token_hex(16), f"op-{secrets.token_hex(8)}"
    nodes = [Node(f"n{number}", tmp / f"n{number}", free_port(), free_port()) for number in range(NODES)]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=2))
        made = Cluster(nodes, http, tmp / "approle.json", operator)
        made.secret_id_file.write_text(json.dumps({"role_id": role_id, "secret_id": secret_id}))
        stack.push_async_callback(_stop, nodes)
        for number, node in enumerate(nodes):
            (node.directory / "data").mkdir(parents=True, mode=0o700)
            first = "" if number else initialisation(role_id, secret_id, operator)
            (node.directory / "bao.hcl").write_text(configuration(node, nodes, key, first))
        await start(nodes[0])
        await until(lambda: _up(nodes[0], http))
        await asyncio.gather(*(start(node) for node in nodes[1:]))
        await until(lambda: _all_vote(made))
        yield made


async def _up(node: Node, http: httpx2.AsyncClient) -> bool:
    assert node.process is not None
    assert node.process.returncode is None, (node.directory / "log").read_text()[-3000:]
    return await node.status(http) in (200, 429)


async def _all_vote(made: Cluster) -> bool:
    return await made.voters() == NODES


async def _stop(nodes: list[Node]) -> None:
    for node in nodes:
        if node.process is not None and node.process.returncode is None:
            node.process.kill()
            await node.process.wait()


@dataclass
class Load:
    """Calls and refreshes without end, and how they went."""

    server: Server
    accounts: list[Account]
    failures: Counter[str] = field(default_factory=Counter)
    done: list[float] = field(default_factory=list)
    refreshed: list[float] = field(default_factory=list)
    longest: float = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for account in self.accounts:
                group.create_task(self._calls(account))
                group.create_task(self._refreshes(account))

    async def _one(self, account: Account, *, refresh: bool) -> None:
        began = time.monotonic()
        try:
            if refresh:
                await account.refresh(self.server)
                self.refreshed.append(time.monotonic())
            else:
                assert await account.whoami(self.server) == 200
        except Refused as error:
            self.failures[error.reason] += 1
            await asyncio.sleep(0.05)
        else:
            self.done.append(time.monotonic())
            self.longest = max(self.longest, time.monotonic() - began)

    async def _calls(self, account: Account) -> None:
        while True:
            await self._one(account, refresh=False)
            await asyncio.sleep(0.02)

    async def _refreshes(self, account: Account) -> None:
        while True:
            await self._one(account, refresh=True)
            await asyncio.sleep(0.1)

    async def more(self, count: int) -> None:
        """Wait for so many further refreshes."""
        wanted = len(self.refreshed) + count
        async with asyncio.timeout(60):
            while len(self.refreshed) < wanted:  # noqa: ASYNC110 - polled, so that the load is not slowed by us
                await asyncio.sleep(0.05)


async def test_a_node_that_is_away_is_passed_over(openbao: OpenBao, short_tmp: Path) -> None:
    """Of three addresses the first refuses, the second cuts us off in mid-request, the third serves: used, and gone on with."""
    async with vault_gate(openbao.socket_path, short_tmp / "passed-over") as gate:
        settings = VaultSettings(
            address=f"http://127.0.0.1:{free_port()},{gate.address},{openbao.address}",
            secret_id_file=openbao.vault.secret_id_file,
        )
        async with connect(settings) as client:
            assert (await client.health()).initialized
            assert gate.seen, "the second is used after the first"
            documents = VaultDocuments(client, mount="connectors")
            assert await documents.read("raft/none") is None
            rule = gate.hold("raft/none")
            reading = asyncio.create_task(documents.read("raft/none"))
            await rule.reached()
            rule.cut()
            with pytest.raises(VaultUnavailable):
                await reading
            before = len(gate.seen)
            assert await documents.read("raft/none") is None
            assert len(gate.seen) == before


SEVERAL = ["http://127.0.0.1:1,", "http://127.0.0.1:1,http://vault.example:8200", ",".join(["unix:///s"] * 10)]


@pytest.mark.parametrize("address", SEVERAL, ids=["an empty one", "plain text", "too many"])
def test_each_of_several_addresses_is_checked(address: str) -> None:
    """An empty one, plain text beyond this machine, too many."""
    with pytest.raises(VaultMisconfigured):
        VaultSettings(address=address, token_file=Path("/nowhere"))


def longest_gap(times: list[float]) -> float:
    """Seconds between two neighbours at most."""
    return max(after - before for before, after in itertools.pairwise(times))


async def _reads(server: Server, account: Account, wanted: credentials.Credential) -> bool:
    """Whether a read sees that generation: the node that answers may be a standby, which may be behind."""
    found = await account.read(server)
    assert found.generation <= wanted.generation
    return found.generation == wanted.generation


async def settled_account(server: Server, sim: Simulator) -> Account:
    """A credential, begun anew where the leader changed meanwhile, as it may on a busy machine."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await make_account(server, sim)
            except Refused as error:
                if error.reason != "VAULT_UNAVAILABLE":
                    raise


async def test_a_leader_killed_under_load_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kill -9 of the active node among calls and refreshes: VAULT_UNAVAILABLE at most, and every token is the newest."""
    async with cluster(tmp_path) as made, running_simulator(SimulatorSettings(clients=())) as sim:
        addresses = ",".join(node.address for node in made.nodes)
        own = tmp_path / "server"
        async with replica_process(addresses, made.secret_id_file, tmp_path / "keys", own) as replica:
            accounts = [await settled_account(replica.server, sim) for _ in range(6)]
            load = Load(replica.server, accounts)
            running = asyncio.create_task(load.run())
            await load.more(12)
            leader = await made.leader()
            killed = time.monotonic()
            await made.kill(leader)
            successor = await made.leader()
            elected = time.monotonic() - killed
            await load.more(12)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            gap, paused = longest_gap(load.done), longest_gap(load.refreshed)
            with capsys.disabled():
                sys.stdout.write(
                    f"\n  raft: {successor.name} elected after {elected:.1f} s; {gap:.1f} s without an answer, "
                    f"{paused:.1f} s without a refresh; longest call {load.longest:.1f} s; "
                    f"failed: {dict(load.failures)}, done: {len(load.done)}, refreshes: {len(load.refreshed)}\n"
                )
            bugs = [line for line in replica.log.read_text().splitlines() if '"event": "bug"' in line]
            assert set(load.failures) <= {"VAULT_UNAVAILABLE"}, bugs
            for account in accounts:
                last = await account.refresh(replica.server)
                assert last.generation - 1 == account.rotations()
                await until(partial(_reads, replica.server, account, last))
                assert await account.whoami(replica.server) == 200
