"""What refreshing costs: three replicas over one OpenBao, credentials with short tokens, and apps that use them all the time.

`python -m bench.refresh [--credentials 1000] [--ttl 60] [--seconds 60] [--every 8] [--together] [--ends]`. The provider is the
simulator, in this process, as is the load: each credential is used every eight seconds (`--every`) at a replica drawn by lot,
half by FetchAccessToken, half by Call. Refresh tokens rotate at once and their reuse revokes the grant: a second use of one shows
as a credential that needs a person.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from bench.audit import requests
from bench.platform import cpu_seconds
from connectors_grpc.embedded import EmbeddedVault, StateLayout
from connectors_grpc.embedded.process import EmbeddedSettings
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import credential_service_pb2_grpc, proxy_service_pb2_grpc
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.simulator import Simulator, SimulatorSettings, book
from connectors_grpc.simulator.record import Record, SeenRequest
from connectors_grpc.simulator.server import running
from tests.openbao import opened
from tests.replicas import Account, ReplicaProcess, granted, make_account, replica_process
from tests.running import Client, Server

REPLICAS = 3
EVERY = 8.0
"""Seconds between two uses of one credential."""
TIMEOUT = 20.0
"""Seconds that a use may take."""
A_TENANT = 10
"""Credentials a tenant."""
REFRESHING = {
    ("read", "connectors/data/refresh"): "lease read",
    ("create", "connectors/data/refresh"): "lease taken or released",
    ("update", "connectors/data/refresh"): "lease taken or released",
    ("update", "transit/datakey"): "data key",
    ("update", "transit/encrypt"): "encrypt",
    ("create", "secret/data"): "credential written",
    ("update", "secret/data"): "credential written",
}
"""What only refreshing asks of the Vault while nothing else changes. Uses share `read secret/data` and `decrypt` with it."""


class Tokens(Record):
    """The simulator's record, with all token requests in it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[SeenRequest] = []

    def add(self, seen: SeenRequest) -> None:
        """See Record."""
        super().add(seen)
        if seen.path == "/token":
            self.asked.append(seen)


@dataclass
class Use:
    """How the uses went."""

    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


async def store_all(admin: Client, first: Account, count: int, ttl: int, together: bool) -> list[tuple[str, str]]:
    """Import so many credentials, their first tokens' ends spread over a lifetime unless `together`; tenant and id of each."""
    names = [(f"bench-{number // A_TENANT}", f"c-{number % A_TENANT}") for number in range(count)]
    for tenant in dict.fromkeys(tenant for tenant, _ in names):
        await admin.create_tenant(tenant)
    slots = asyncio.Semaphore(16)

    async def one(tenant: str, credential: str) -> None:
        async with slots:
            issued = granted(first.sim, first.client)
            material = pb.OAuthMaterial(access_token=issued.access_token, refresh_token=issued.refresh_token or "")
            material.expire_time.FromSeconds(int(time.time() + ttl * (1 if together else random.uniform(0.3, 1))))
            await admin.store(tenant, first.integration, credential=credential, oauth=material)

    await asyncio.gather(*(one(*name) for name in names))
    return names


async def use_all(
    servers: Sequence[Server], key: str, names: Sequence[tuple[str, str]], until: float, every: float
) -> Use:
    """Each credential again and again, every so many seconds."""
    use = Use()

    async def one(tenant: str, credential: str) -> None:
        await asyncio.sleep(random.random() * every)
        while time.monotonic() < until:
            client = random.choice(servers).client(key)
            began = time.monotonic()
            use.answers[await _used(client, tenant, credential)] += 1
            use.seconds.append(time.monotonic() - began)
            await asyncio.sleep(every * random.uniform(0.75, 1.25))

    await asyncio.gather(*(one(*name) for name in names))
    return use


async def _used(client: Client, tenant: str, credential: str) -> str:
    try:
        if random.random() < 0.5:
            request = proxy.CallRequest(tenant=tenant, credential=credential, path="/v1/whoami")
            called: Any = proxy_service_pb2_grpc.ProxyServiceStub(client.channel)
            return f"Call {(await called.Call(request, metadata=client.metadata, timeout=TIMEOUT)).http_status}"
        wanted = pb.FetchAccessTokenRequest(tenant=tenant, credential=credential)
        fetched: Any = credential_service_pb2_grpc.CredentialServiceStub(client.channel)
        await fetched.FetchAccessToken(wanted, metadata=client.metadata, timeout=TIMEOUT)
    except grpc.RpcError as error:
        return refusal(error)
    return "FetchAccessToken"


def refusal(error: grpc.RpcError) -> str:
    """The server's reason; or the library's status, where the server never had its say."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return f"{error.code().name} by gRPC: {error.details()}"


async def all_credentials(admin: Client, names: Sequence[tuple[str, str]]) -> list[pb.Credential]:
    """How each is."""
    found: list[pb.Credential] = []
    for tenant in dict.fromkeys(tenant for tenant, _ in names):
        reply: Any = await admin.call("ListCredentials", pb.ListCredentialsRequest(tenant=tenant, page_size=500))
        found.extend(reply.credentials)
    return found


def vault_operations(audit: Path, since: int) -> Counter[str]:
    """What refreshing asked of the Vault."""
    counts: Counter[str] = Counter()
    for operation, path in requests(audit, since):
        folder = "/".join(path.split("/")[: 3 if path.startswith("connectors/data") else 2])
        if kind := REFRESHING.get((operation, folder)):
            counts[kind] += 1
    return counts


def at(values: Sequence[float], share: float) -> float:
    """A percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def run(count: int, ttl: int, seconds: float, together: bool, every: float, ends: bool) -> None:
    """All of it."""
    book.MOST_ENTRIES = 10 * count + int(count * seconds / max(ttl, 1) * 4) + 10_000
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        settings = EmbeddedSettings(audit_max_bytes=1 << 40)
        vault = await stack.enter_async_context(EmbeddedVault(StateLayout.at(scratch / "s"), settings))
        sim: Simulator = await stack.enter_async_context(running(SimulatorSettings(clients=())))
        sim.record = tokens = Tokens()
        replicas: list[ReplicaProcess] = []
        for number in range(REPLICAS):
            replica = replica_process(
                opened(vault).address, vault.secret_id_file, scratch / "keys", scratch / f"replica-{number}"
            )
            replicas.append(await stack.enter_async_context(replica))
        servers = [replica.server for replica in replicas]
        admin = servers[0].admin
        oauth = {"refresh_ends_access_token": ends}
        first = await make_account(servers[0], sim, oauth=oauth, access_lifetime=ttl, refresh_kills_access_token=ends)
        names = await store_all(admin, first, count, ttl, together)
        key = await admin.create_key([access.ROLE_APP, access.ROLE_TOKEN_READER], ["*"])
        print(f"{count} credentials, tokens of {ttl} s, {REPLICAS} replicas, {seconds:.0f} s of load")
        processes = {f"replica {number}": replica.process.pid for number, replica in enumerate(replicas)}
        processes["OpenBao"] = vault.pid or 0
        since, before = vault.layout.audit.stat().st_size, {name: cpu_seconds(pid) for name, pid in processes.items()}
        began = len(tokens.asked)
        use = await use_all(servers, key, names, time.monotonic() + seconds, every)
        cpu = {name: cpu_seconds(pid) - before[name] for name, pid in processes.items()}
        operations = vault_operations(vault.layout.audit, since)
        report(use, await all_credentials(admin, names), tokens.asked[began:], operations, cpu)
        if ends:
            vain = sum(replica.log.read_bytes().count(b"refresh_waited_in_vain") for replica in replicas)
            print(f"refreshes that waited their whole bound {vain}")


def report(
    use: Use,
    found: Sequence[pb.Credential],
    asked: Sequence[SeenRequest],
    operations: Counter[str],
    cpu: dict[str, float],
) -> None:
    """The figures."""
    refreshes = sum(credential.generation - 1 for credential in found)
    active = sum(credential.state == pb.Credential.STATE_ACTIVE for credential in found)
    took = [
        credential.update_time.ToMicroseconds() / 1e6 - credential.refresh_time.ToMicroseconds() / 1e6
        for credential in found
        if credential.generation > 1
    ]
    refused = sum(seen.status != 200 for seen in asked)
    print(f"credentials that are ACTIVE            {active} of {len(found)}")
    print(f"refreshes                              {refreshes}")
    print(f"uses                                   {len(use.seconds)}: {dict(use.answers)}")
    print(f"a use, p50 / p99 / longest             {at(use.seconds, 0.5) * 1e3:.1f} / {at(use.seconds, 0.99) * 1e3:.1f}"
          f" / {max(use.seconds) * 1e3:.0f} ms")  # fmt: skip
    print(f"401s that an app saw                   {use.answers['Call 401']}")
    if not refreshes:
        return
    print(f"provider calls a refresh               {len(asked) / refreshes:.3f}   ({refused} refused)")
    print(f"sent to stored, p50 / p99              {statistics.median(took) * 1e3:.1f} / {at(took, 0.99) * 1e3:.1f} ms")
    print(f"Vault operations a refresh             {sum(operations.values()) / refreshes:.2f}")
    for kind, times in sorted(operations.items()):
        print(f"  {kind:<36} {times / refreshes:.2f}")
    for name, used in cpu.items():
        print(f"CPU of {name:<31} {used / refreshes * 1e3:.1f} ms a refresh, uses included ({used:.1f} s)")


def main() -> None:
    """Read the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--credentials", type=int, default=1000)
    parser.add_argument("--ttl", type=int, default=60, help="seconds that an access token lives")
    parser.add_argument("--seconds", type=float, default=60, help="how long the load lasts")
    parser.add_argument("--together", action="store_true", help="let all first tokens end at the same time")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two uses of one credential")
    parser.add_argument(
        "--ends", action="store_true", help="a refresh ends the old access token, so that calls under way end first"
    )
    given = parser.parse_args()
    asyncio.run(run(given.credentials, given.ttl, given.seconds, given.together, given.every, given.ends))


if __name__ == "__main__":
    main()
