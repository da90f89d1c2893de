"""Ends a grant at the provider (RFC 7009, or its own way), and tries again if that fails: a failure is recorded, never hidden.

What is kept for another try stays sealed under the tenant's key, so that deleting the tenant ends it too.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from connectors_grpc import codec, logs
from connectors_grpc.codec import RecordMalformed
from connectors_grpc.credentials.asking import Asking
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost
from connectors_grpc.credentials.obtaining import way_to_end
from connectors_grpc.domain.ids import CredentialId, TenantId, TenantUid
from connectors_grpc.domain.records import Credential, CredentialKind, CredentialState, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, VaultUnavailable
from connectors_grpc.integrations import Integrations
from connectors_grpc.oauth2.errors import OAuthError
from connectors_grpc.paging import pages
from connectors_grpc.ports import Clock, Documents, Outbound
from connectors_grpc.several import several
from connectors_grpc.tailoring import tailored
from connectors_grpc.tenants import Tenants

FIRST_PAUSE = timedelta(minutes=10)
LONGEST_PAUSE = timedelta(hours=12)
GIVE_UP_AFTER = timedelta(days=7)
PAGE = 500
MOST_LAST = 100
MOST_FAILED = 10
"""Of one tenant in a round."""

log = logs.get("revoke")


class ProviderResult(StrEnum):
    """What a revocation came to at the provider."""

    REVOKED = "revoked"
    NOT_SUPPORTED = "not_supported"
    FAILED = "failed"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Pending:
    """The document of `revocations/{tenant}.{credential}.{generation}`: a grant that is still to be ended."""

    tenant: TenantId
    tenant_uid: TenantUid
    record: Credential
    ciphertext: str
    attempts: int
    next_time: datetime
    until: datetime


class Revoking:
    """Revocation at the provider; what happens here at home is `Managing`'s."""

    def __init__(
        self,
        documents: Documents,
        tenants: Tenants,
        integrations: Integrations,
        keeper: Keeper,
        outbound: Outbound,
        clock: Clock,
    ) -> None:
        self._documents = documents
        self._tenants = tenants
        self._integrations = integrations
        self._keeper = keeper
        self._asking = Asking(outbound, clock)
        self._clock = clock

    async def revoke(self, tenant: Tenant, held: Held, *, again: bool) -> ProviderResult:
        """End the grant. `again`: remember a failure for another try; not where the tenant's key goes too.

        Many providers end all tokens of an account at once: where another credential of the account lives, nothing is sent.
        """
        if held.credential.kind is not CredentialKind.OAUTH or not held.ciphertext:
            return ProviderResult.NOT_SUPPORTED
        if again and await self._shares(tenant, held.credential):
            return ProviderResult.SHARED
        result = await self._send(tenant, held)
        if result is ProviderResult.FAILED and again:
            await self._remember(tenant, held)
        return result

    async def _shares(self, tenant: Tenant, credential: Credential) -> bool:
        if not credential.account:
            return False
        after, more = "", True
        while more:
            page = await self._keeper.list(tenant, after=after, limit=PAGE)
            if any(_is_sibling(credential, other) for other in page.credentials):
                return True
            after, more = page.next, bool(page.next)
        return False

    async def _send(self, tenant: Tenant, held: Held) -> ProviderResult:
        try:
            integration = await self._integrations.get(held.credential.integration)
            if integration.oauth is None:
                return ProviderResult.NOT_SUPPORTED
            material = await self._keeper.open(tenant, held)
            integration = tailored(integration, material.values)
            assert integration.oauth is not None
            client = await self._integrations.client_for(integration, tenant)
            end = way_to_end(integration, integration.oauth, material)
            if end is None:
                return ProviderResult.NOT_SUPPORTED
            await self._asking.ask(tenant.id, client, end.build, end.read)
        except VaultUnavailable:
            raise
        except (ConnectorsError, MaterialLost, OAuthError):
            return ProviderResult.FAILED
        return ProviderResult.REVOKED

    async def _remember(self, tenant: Tenant, held: Held) -> None:
        now = self._clock.now()
        pending = Pending(
            tenant=tenant.id,
            tenant_uid=tenant.uid,
            record=held.credential,
            ciphertext=held.ciphertext,
            attempts=1,
            next_time=now + FIRST_PAUSE,
            until=now + GIVE_UP_AFTER,
        )
        path = f"revocations/{tenant.id}.{held.credential.id}.{held.credential.generation}"
        await self._documents.write(path, codec.dump(pending), cas=None)

    async def retry(self) -> int:
        """Try again what is due; says how many grants were ended.

        A tenant whose grants fail to end, one after the other, leaves its turn to the next tenant after MOST_FAILED of them.
        Raises: VaultUnavailable.
        """
        ended, failed = 0, Counter[str]()
        async for names in pages(self._documents, "revocations", limit=PAGE):
            for name in names:
                tenant = name.partition(".")[0]
                if failed[tenant] < MOST_FAILED:
                    result = await self._retry(f"revocations/{name}")
                    ended += result is ProviderResult.REVOKED
                    failed[tenant] += result is ProviderResult.FAILED
        return ended

    async def _retry(self, path: str) -> ProviderResult | None:
        """What came of it; None if it was not due."""
        document = await self._documents.read(path)
        if document is None:
            return None
        pending, now = codec.load(Pending, document.data), self._clock.now()
        if now < pending.next_time:
            return None
        tenant = await self._tenants.of_uid(pending.tenant, pending.tenant_uid)
        result = ProviderResult.NOT_SUPPORTED
        if tenant is not None:
            result = await self._send(tenant, Held(pending.record, pending.ciphertext))
        if result is ProviderResult.FAILED and now < pending.until:
            pause = min(FIRST_PAUSE * 2**pending.attempts, LONGEST_PAUSE)
            later = replace(pending, attempts=pending.attempts + 1, next_time=now + pause)
            with contextlib.suppress(Conflict):  # another replica tries it too
                await self._documents.write(path, codec.dump(later), cas=document.version)
            return result
        await self._documents.purge(path)
        if tenant is not None:
            await self._told(tenant, pending.record.id, result)
        log.info("revocation", tenant=pending.tenant, credential=pending.record.id, result=result.value)
        return result

    async def last_tries(self, tenant: Tenant) -> tuple[CredentialId, ...]:
        """What was to be tried later is tried now, for the tenant's key goes. Says of which credentials it failed.

        Bounds: MOST_LAST are tried. A damaged record stops nothing.
        """
        failed, left = list[CredentialId](), MOST_LAST

        async def end(name: str) -> None:
            nonlocal left
            path, pending = f"revocations/{name}", None
            document = await self._documents.read(path)
            with contextlib.suppress(RecordMalformed):
                pending = None if document is None else codec.load(Pending, document.data)
            if pending is not None:
                if pending.tenant_uid != tenant.uid:
                    return
                left -= 1
                held = Held(pending.record, pending.ciphertext)
                if left < 0 or await self._send(tenant, held) is ProviderResult.FAILED:
                    failed.append(pending.record.id)
            await self._documents.purge(path)

        async for names in pages(self._documents, "revocations", prefix=f"{tenant.id}.", limit=PAGE):
            await several(end, names)
        return tuple(failed)

    async def _told(self, tenant: Tenant, credential_id: CredentialId, result: ProviderResult) -> None:
        """Say on the revoked record how it ended, if it is still there."""
        held = await self._keeper.read(tenant, credential_id)
        if held is None or held.credential.detail != PENDING_DETAIL:
            return
        detail = FAILED_DETAIL if result is ProviderResult.FAILED else ""
        try:
            await self._keeper.write(tenant, Held(replace(held.credential, detail=detail), held.ciphertext))
        except Conflict:
            return


PENDING_DETAIL = "revocation_pending"
FAILED_DETAIL = "revocation_failed"


def _is_sibling(credential: Credential, other: Credential) -> bool:
    """Whether ending one grant would end the other: the same account of the same integration, still alive."""
    return (
        other.id != credential.id
        and other.integration == credential.integration
        and other.account == credential.account
        and other.state is CredentialState.ACTIVE
    )
