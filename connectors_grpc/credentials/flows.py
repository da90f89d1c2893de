"""Pending connections: what is remembered between a link, the provider, and the callback. Each is used once.

A flow is found by the SHA-256 of a 256-bit random handle (the link's, then `state`), so that the store never holds what opens
it. It is taken by compare-and-set: of two that come with one handle, one gets it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from connectors_grpc import codec
from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId, TenantUid
from connectors_grpc.domain.records import Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, Reason
from connectors_grpc.paging import pages
from connectors_grpc.ports import Clock, Documents, Json
from connectors_grpc.secret import Secret
from connectors_grpc.tenants import Tenants

FLOW_TTL = timedelta(minutes=10)
HANDLE = re.compile(r"[A-Za-z0-9_-]{43}")
"""256 random bits, base64url."""
SPENT: Json = {"spent": True}


class Stage(StrEnum):
    """Where a flow is: its link was given, a browser or key has begun it, or a person types its code on a device."""

    LINK = "link"
    BEGUN = "begun"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Flow:
    """One pending connection. `binding` is the SHA-256 of the browser's cookie, or the id of the key that began it;
    `verifier` is the PKCE verifier, or the device code, under the platform's key. A device is asked for at `poll_time` again,
    every `interval`. `values` are the tenant's for the definition's inputs, none of them secret.
    """

    stage: Stage
    tenant: TenantId
    tenant_uid: TenantUid
    integration: IntegrationId
    credential: CredentialId
    scopes: tuple[str, ...]
    started_by: KeyId
    expire_time: datetime
    redirect_uri: str = ""
    binding: str = ""
    verifier: str = ""
    allow_account_change: bool = False
    poll_time: datetime | None = None
    interval: timedelta = timedelta(0)
    values: Mapping[str, str] = field(default_factory=dict)


def new_handle() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def digest(text: str) -> str:
    """How handles and cookies are remembered."""
    return hashlib.sha256(text.encode()).hexdigest()


def unknown() -> ConnectorsError:
    """One answer for unknown, used, foreign and expired (attack 28)."""
    return ConnectorsError(Reason.FLOW_NOT_FOUND)


def given(flow: Flow) -> Mapping[str, Secret]:
    """The tenant's values, as definitions take them."""
    return {name: Secret(value) for name, value in flow.values.items()}


async def tenant_of(flow: Flow, tenants: Tenants) -> Tenant:
    """Whose flow it is, if that very tenant is still there and may connect. Raises: FLOW_NOT_FOUND."""
    tenant = await tenants.bound(flow.tenant, flow.tenant_uid)
    if tenant is None:
        raise unknown()
    return tenant


class Flows:
    """Flows over `flows/{sha256}` documents."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock

    async def put(self, handle: str, flow: Flow) -> None:
        """Remember it."""
        await self._documents.write(f"flows/{digest(handle)}", codec.dump(flow), cas=0)

    async def peek(self, handle: str, stage: Stage) -> Flow:
        """Look without using it up. Raises: FLOW_NOT_FOUND."""
        return (await self._read(handle, stage))[0]

    async def look(self, handle: str, stage: Stage, *, binding: str) -> tuple[Flow, int]:
        """Look without using it up, by whom it is bound to; with the version, for `rewrite`. Raises: FLOW_NOT_FOUND."""
        flow, version = await self._read(handle, stage)
        if not secrets.compare_digest(flow.binding, binding):
            raise unknown()
        return flow, version

    async def is_at(self, handle: str, stage: Stage) -> bool:
        """Whether there is such a flow at that stage."""
        with contextlib.suppress(ConnectorsError):
            await self._read(handle, stage)
            return True
        return False

    async def rewrite(self, handle: str, flow: Flow, version: int) -> int:
        """Change it; of two that do so at once, one does. Raises: Conflict."""
        return await self._documents.write(f"flows/{digest(handle)}", codec.dump(flow), cas=version)

    async def drop(self, handle: str) -> None:
        """Forget it."""
        await self._documents.purge(f"flows/{digest(handle)}")

    async def take(self, handle: str, stage: Stage, *, binding: str | None = None) -> Flow:
        """Use it up. `binding` must be the flow's, or it stays where it is. Raises: FLOW_NOT_FOUND."""
        flow, version = await self._read(handle, stage)
        if binding is not None and not secrets.compare_digest(flow.binding, binding):
            raise unknown()
        path = f"flows/{digest(handle)}"
        try:
            await self._documents.write(path, SPENT, cas=version)
        except Conflict:
            raise unknown() from None
        await self._documents.purge(path)
        return flow

    async def _read(self, handle: str, stage: Stage) -> tuple[Flow, int]:
        if HANDLE.fullmatch(handle) is None:
            raise unknown()
        document = await self._documents.read(f"flows/{digest(handle)}")
        if document is None or document.data == SPENT:
            raise unknown()
        flow = codec.load(Flow, document.data)
        if flow.stage is not stage or flow.expire_time <= self._clock.now():
            raise unknown()
        return flow, document.version

    async def sweep(self) -> int:
        """Remove what has expired; says how many. Run now and then: nobody comes back for an abandoned flow."""
        removed = 0
        async for names in pages(self._documents, "flows", limit=500):
            for name in names:
                document = await self._documents.read(f"flows/{name}")
                with contextlib.suppress(codec.RecordMalformed):
                    if document and codec.load(Flow, document.data).expire_time > self._clock.now():
                        continue
                await self._documents.purge(f"flows/{name}")
                removed += 1
        return removed
