"""Whether a Vault is as the server needs it, seen with the server's own credentials. Leaves nothing behind.

What those may not see (audit devices, settings of mounts and role) is looked at only where an operator's token is given.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from connectors_grpc import schema
from connectors_grpc.embedded.setup import server_policy
from connectors_grpc.errors import ConnectorsError, VaultUnavailable
from connectors_grpc.provisioning import rights
from connectors_grpc.provisioning.calls import NO_CONTENT, OK, Operator, ProvisioningFailed
from connectors_grpc.provisioning.initialising import Initialising
from connectors_grpc.vault import VaultClient, VaultMisconfigured, VaultSettings, connect
from connectors_grpc.vault.adapter import Reply

SKEW: Final = 30.0
MOUNTS: Final = {"secret": "kv", "connectors": "kv", "transit": "transit", "connectors-transit": "transit"}
_INIT: Final = "connectors vault init --fix"
_OPENBAO: Final = "OpenBao; the tests run against 2.7."
_OTHER: Final = "not OpenBao: the calls are such as HashiCorp Vault documents too, but it is not in the tests."
_DONE: Final = frozenset((OK, NO_CONTENT))
_OLDEST: Final = (1, 15)
_SHORT: Final = 600.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `problem` is empty where all is well; `note` is what is worth knowing all the same."""

    what: str
    problem: str = ""
    fix: str = ""
    note: str = ""


async def validate(settings: VaultSettings, operator: Operator | None = None) -> list[Check]:
    """Look at one thing after the other. What lies behind a broken one is not looked at."""
    checks: list[Check] = []
    try:
        async with connect(settings) as vault:
            checks += await _health(vault)
            if not any(check.problem for check in checks[:1]):
                checks += await _Looking(vault).all()
    except VaultMisconfigured as error:
        checks.append(
            Check("login", str(error), "Give a secret id of the role connectors-server: connectors vault init")
        )
    except ConnectorsError:
        checks.append(
            Check("Vault", "it can't be reached", "Look at --vault-addr, --vault-ca-file, and whether it runs.")
        )
    if operator is not None:
        checks += await _by_operator(operator)
    return checks


async def _health(vault: VaultClient) -> list[Check]:
    found = await vault.health()
    what = f"Vault {found.version}"
    if not found.initialized or found.sealed:
        state = "sealed" if found.initialized else "not initialised"
        return [Check(what, f"it is {state}", "Initialise and unseal it, by its own documentation.")]
    numbers = tuple(int(part) for part in found.version.split("-")[0].split(".")[:2] if part.isdigit())
    old = "it is older than anything that was considered" if numbers < _OLDEST else ""
    return [Check(what, old, "Bring it up to date." if old else ""), await _clock(vault)]


async def _clock(vault: VaultClient) -> Check:
    reply = await vault.adapter.request("GET", "/v1/sys/health")
    theirs = reply.field("server_time_utc")
    apart = abs(theirs - time.time()) if isinstance(theirs, int) else 0.0
    problem = f"it is {apart:.0f} s away from this machine's" if apart > SKEW else ""
    return Check("its clock", problem, "Keep both by NTP." if problem else "")


class _Looking:
    """One look with the server's token."""

    def __init__(self, vault: VaultClient) -> None:
        self._vault = vault
        self._name = f"_validate_{secrets.token_hex(8)}"  # `_` is in no tenant's name

    async def all(self) -> list[Check]:
        checks = [await self._kind(), await self._token(), *await self._rights()]
        checks += [await self._mount(name, kind) for name, kind in MOUNTS.items()]
        probes: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("a record, by compare-and-set", self._record),
            ("the platform's key", self._platform_key),
            ("a tenant's key, from making to shredding", self._tenant_key),
        )
        checks.append(await self._schema())
        return [*checks, *[await self._probed(what, probe) for what, probe in probes]]

    async def _call(self, method: str, path: str, body: object = None) -> Reply:
        return await self._vault.call(lambda: self._vault.adapter.request(method, f"/v1/{path}", json=body))

    async def _kind(self) -> Check:
        """Told by what the plugins say of their origin: versions alone say nothing."""
        version = (await self._call("GET", "sys/internal/ui/mounts/connectors")).field("data", "running_plugin_version")
        return Check("its kind", note=_OPENBAO if str(version).endswith("builtin.bao") else _OTHER)

    async def _token(self) -> Check:
        found = (await self._call("GET", "auth/token/lookup-self")).field("data") or {}
        problems = []
        if found.get("num_uses"):
            problems.append("it ends after so many uses")
        if not found.get("renewable") and float(found.get("ttl") or 0) > 0:
            problems.append("it can't be renewed, and then the server is out")
        elif not found.get("period") and 0 < float(found.get("explicit_max_ttl") or 0) < _SHORT:
            problems.append("it lives for less than ten minutes")
        return Check("its token", "; ".join(problems), _INIT if problems else "")

    async def _rights(self) -> list[Check]:
        policy = server_policy()
        reply = await self._call("POST", "sys/capabilities-self", {"paths": rights.paths(policy)})
        has: Any = reply.field("data")
        if reply.status != OK or not isinstance(has, dict):
            return [Check("its rights", "it may not even ask for them: the policy is an older one", _INIT)]
        lacking, excess = rights.lacking(policy, has), rights.excess(policy, has)
        return [
            Check("rights that it needs", "lacks " + "; ".join(lacking) if lacking else "", _INIT if lacking else ""),
            Check(
                "rights that it must not have",
                "has " + "; ".join(excess) if excess else "",
                f"Take other policies from the role, then: {_INIT}" if excess else "",
            ),
        ]

    async def _mount(self, name: str, kind: str) -> Check:
        what = f"mount {name}/"
        reply = await self._call("GET", f"sys/internal/ui/mounts/{name}")
        if reply.status != OK:
            return Check(what, "it is not there, or the token sees nothing of it", _INIT)
        found = reply.field("data", "type")
        version = reply.field("data", "options", "version")
        if found != kind or (kind == "kv" and version != "2"):
            there = f"{found} version {version}" if version else found
            return Check(
                what, f"it is {there}", f"The platform needs {kind}{' version 2' if kind == 'kv' else ''} there."
            )
        return Check(what)

    async def _probed(self, what: str, probe: Callable[[], Awaitable[str]]) -> Check:
        try:
            problem = await probe()
        except VaultUnavailable:
            problem = "the Vault did not answer"
        return Check(what, problem, f"{_INIT}; see the Vault's own log." if problem else "")

    async def _schema(self) -> Check:
        what = "the schema of its records"
        found = (await self._call("GET", f"connectors/data/{schema.PATH}")).field("data", "data") or {}
        needed = found.get("schema", schema.SCHEMA)
        if isinstance(needed, int) and needed <= schema.SCHEMA:
            return Check(what)
        problem = f"it is {needed}, and this version knows {schema.SCHEMA}"
        return Check(what, problem, f"Use version {found.get('version')}, which wrote it, or a newer one.")

    async def _record(self) -> str:
        path = f"validate/{self._name}"
        async with self._ended(f"connectors/metadata/{path}"):
            fresh = {"options": {"cas": 0}, "data": {"v": "1"}}
            first = await self._call("POST", f"connectors/data/{path}", fresh)
            second = await self._call("POST", f"connectors/data/{path}", fresh)
        if first.status != OK:
            return f"it can't be written ({first.status})"
        return "" if second.status == 400 else "a stale write is taken: this is not KV version 2"

    async def _platform_key(self) -> str:
        body = {"plaintext": _b64("v"), "context": _b64(self._name)}
        sealed = await self._call("POST", "connectors-transit/encrypt/platform", body)
        if sealed.status != OK:
            return f"it can't encrypt ({sealed.status})"
        text = sealed.text("data", "ciphertext")
        own = await self._call("POST", "connectors-transit/decrypt/platform", {**body, "ciphertext": text})
        moved = {"ciphertext": text, "context": _b64("another")}
        other = await self._call("POST", "connectors-transit/decrypt/platform", moved)
        if own.status != OK:
            return f"it can't decrypt ({own.status})"
        return "" if other.status == 400 else "a ciphertext opens in another's place: the key is not derived"

    async def _tenant_key(self) -> str:
        key = f"transit/keys/{self._name}"
        async with self._ended(key, key):
            made = await self._call("POST", key, {"type": "aes256-gcm96", "derived": True})
            rotated = await self._call("POST", f"{key}/rotate", {})
        gone = await self._call("GET", key)
        if made.status not in _DONE or rotated.status not in _DONE:
            return f"it can't be made and rotated ({made.status}, {rotated.status})"
        return "" if gone.status == 404 else "it can't be deleted: deleting a tenant would not shred its key"

    @asynccontextmanager
    async def _ended(self, path: str, key: str = "") -> AsyncIterator[None]:
        """Delete what the probe made, whatever came of it."""
        try:
            yield
        finally:
            if key:
                await self._call("POST", f"{key}/config", {"deletion_allowed": True})
            await self._call("DELETE", path)


async def _by_operator(operator: Operator) -> list[Check]:
    """What only an operator sees."""
    try:
        report = await Initialising(operator, plan=True).run()
    except ProvisioningFailed as failed:
        return [Check("what an operator sees", failed.message, failed.fix)]
    return [
        Check(
            done.what,
            f"{done.outcome.value}: {done.detail}".rstrip(": ") if done.open else "",
            (_INIT if done.open else done.fix),
            note="" if done.open else done.detail,
        )
        for done in report
    ]


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
