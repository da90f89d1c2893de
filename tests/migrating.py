"""An old, single-tenant layout in a real OpenBao, and migrations from it in the tests' process.

`old_bao` is one for the session, with a KV mount of each version; each test takes a folder of its own in it (`old_place`).
`placed` is a server whose Vault is that very OpenBao: migrations in place. For a fresh Vault, any other server will do.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
import pytest_asyncio

from connectors_grpc.embedded import launch
from connectors_grpc.embedded.process import EmbeddedSettings, find_binary
from connectors_grpc.embedded.setup import ROLE, access_steps, mount_steps
from connectors_grpc.migration.opening import Source, opened
from connectors_grpc.migration.policies import policy
from connectors_grpc.migration.server import NewSide
from connectors_grpc.migration.work import Migration, Options, Outcome
from connectors_grpc.secret import Secret
from connectors_grpc.vault import VaultSettings
from tests.openbao import OpenBao
from tests.ports import free_port
from tests.running import Server, fresh_id, running_server

ROOT = "root-of-the-tests"
API = {
    "base_url": "https://api.notes.example",
    "placement": {"headers": {"authorization": "Bearer {access_token}"}},
}


@dataclass
class OldBao:
    """An OpenBao that somebody ran before us, and its operator's way in."""

    address: str
    directory: Path
    http: httpx2.AsyncClient

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One call as root, `path` without `/v1/`; what it answered."""
        reply = await self.http.request(method, f"{self.address}/v1/{path}", json=body, headers={"X-Vault-Token": ROOT})
        assert reply.status_code in (200, 204, 404), f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else {}

    async def token_file(self, *policies: str) -> Path:
        """A file with a token that has these policies, and no other."""
        name = fresh_id("migration")
        await self.call("PUT", f"sys/policies/acl/{name}", {"policy": "\n".join(policies)})
        made = await self.call(
            "POST", "auth/token/create", {"policies": [name], "no_default_policy": True, "ttl": "1h"}
        )
        path = self.directory / f"{name}.token"
        path.write_text(made["auth"]["client_token"])
        path.chmod(0o600)
        return path


@dataclass
class OldPlace:
    """One folder of old records, on a KV mount of version 1 or 2."""

    bao: OldBao
    mount: str
    folder: str
    version: int
    planted: list[str] = field(default_factory=list, repr=False)

    @property
    def path(self) -> str:
        """As the tool is told."""
        return f"{self.mount}/{self.folder}"

    def url(self, tenant: str, integration: str, inner: str = "data") -> str:
        """A record's path."""
        return f"{self.mount}/{inner + '/' if self.version == 2 else ''}{self.folder}/{tenant}/{integration}"

    async def write(self, tenant: str, integration: str, **fields: Any) -> None:
        """A record, as the old system writes it."""
        self.planted += [str(value) for value in fields.values() if len(str(value)) > 24]
        await self.bao.call("POST", self.url(tenant, integration), {"data": fields} if self.version == 2 else fields)

    async def read(self, tenant: str, integration: str) -> dict[str, Any]:
        """A record as it lies there; empty if there is none."""
        found = (await self.bao.call("GET", self.url(tenant, integration))).get("data") or {}
        return cast(dict[str, Any], (found.get("data") or {}) if self.version == 2 else found)

    async def seal(self, tenant: str, integration: str, text: str) -> str:
        """A ciphertext under the old key, which is made if it is not there."""
        key = f"{integration}-{tenant}"
        self.planted.append(text)
        await self.bao.call("POST", f"transit/keys/{key}", {"type": "aes256-gcm96"})
        body = {"plaintext": base64.b64encode(text.encode()).decode()}
        return str((await self.bao.call("POST", f"transit/encrypt/{key}", body))["data"]["ciphertext"])

    async def open(self, tenant: str, integration: str, ciphertext: str) -> str:
        """What a ciphertext holds."""
        body = {"ciphertext": ciphertext}
        found = await self.bao.call("POST", f"transit/decrypt/{integration}-{tenant}", body)
        return base64.b64decode(found["data"]["plaintext"]).decode()

    async def source(self, *steps: str, fresh: bool = False) -> Source:
        """As the tool has it, by a token with the policies of these steps."""
        texts = [policy(step, self.path) for step in ("read", *steps)]
        settings = VaultSettings(address=self.bao.address, token_file=await self.bao.token_file(*texts))
        return Source(settings, self.path, fresh=fresh)


Step = Callable[[Migration], Any]


async def migrated(
    source: Source, server: Server, journal: Path, step: Step, names: Mapping[str, str] | None = None, **options: Any
) -> dict[str, Outcome]:
    """Carry out one step; what became of each item, by its old name."""
    told: dict[str, Outcome] = {}
    key = (server.keys / "admin.key").read_text().strip()
    new = NewSide(server.channel, Secret(key), 20.0, source.path)
    async with opened(source, new, journal, names or {}, Options(**options)) as migration:

        def tell(outcome: Outcome) -> None:
            assert outcome.item.name not in told, "each is told of once"
            told[outcome.item.name] = outcome

        migration.tell = tell
        await step(migration)
    return told


def results(told: Mapping[str, Outcome]) -> dict[str, str]:
    """The results alone."""
    return {name: outcome.result for name, outcome in told.items()}


def secret(kind: str = "old") -> str:
    """Long enough to be looked for."""
    return f"{kind}-{secrets.token_hex(16)}"


@asynccontextmanager
async def running_bao(directory: Path) -> AsyncIterator[OldBao]:
    """A development OpenBao, whose root token the test has."""
    port = free_port()
    binary = str(find_binary(EmbeddedSettings()))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), binary, "server", "-dev", "-dev-no-store-token"),
        *(f"-dev-root-token-id={ROOT}", f"-dev-listen-address=127.0.0.1:{port}"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env={"HOME": str(directory)},
    )  # fmt: skip
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        bao = OldBao(f"http://127.0.0.1:{port}", directory, http)
        try:
            async with asyncio.timeout(60):
                while not await _serving(bao):
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
            await bao.call("POST", "sys/mounts/kv1", {"type": "kv", "options": {"version": "1"}})
            for step in (*mount_steps(), *access_steps()):
                if step.path != "sys/mounts/secret":  # a development server has it
                    await bao.call("POST", step.path, step.data)
            yield bao
        finally:
            process.kill()
            await process.wait()


async def _serving(bao: OldBao) -> bool:
    try:
        return (await bao.http.get(f"{bao.address}/v1/sys/health")).status_code == 200
    except httpx2.HTTPError:
        return False


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def old_bao(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OldBao]:
    """One for the session."""
    async with running_bao(tmp_path_factory.mktemp("old-bao")) as bao:
        yield bao


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def placed(old_bao: OldBao, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server in the old OpenBao itself."""
    async with server_at(old_bao, tmp_path_factory.mktemp("placed")) as server:
        yield server


@asynccontextmanager
async def server_at(bao: OldBao, directory: Path, *policies: str, **settings: Any) -> AsyncIterator[Server]:
    """A server over that OpenBao, under its own policy, and further ones if any are given."""
    role = ROLE
    if policies:
        role = fresh_id("role")
        await bao.call("PUT", f"sys/policies/acl/{role}", {"policy": "\n".join(policies)})
        await bao.call("POST", f"auth/approle/role/{role}", {"token_policies": [ROLE, role]})
    role_id = (await bao.call("GET", f"auth/approle/role/{role}/role-id"))["data"]["role_id"]
    secret_id = (await bao.call("POST", f"auth/approle/role/{role}/secret-id"))["data"]["secret_id"]
    file = directory / "secret-id"
    file.write_text(secret_id)
    stand_in = SimpleNamespace(vault=SimpleNamespace(secret_id_file=file), address=bao.address)
    wanted = {"vault_role_id": role_id, **settings}
    async with running_server(cast(OpenBao, stand_in), bao.directory / "keys", **wanted) as server:
        yield server


@pytest.fixture(params=[2, 1], ids=["kv2", "kv1"])
def old_place(request: pytest.FixtureRequest, old_bao: OldBao) -> OldPlace:
    """A folder of this test's own, on a mount of either version."""
    return place_of(old_bao, request.param)


def place_of(bao: OldBao, version: int = 2) -> OldPlace:
    """A folder that nobody has used."""
    return OldPlace(bao, "secret" if version == 2 else "kv1", fresh_id("tenants"), version)
