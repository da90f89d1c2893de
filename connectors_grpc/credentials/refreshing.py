"""Keeps access tokens fresh: one provider call however many callers wait, and the answer never thrown away.

The order matters. Read; if fresh, return. Otherwise one flight a credential: read again, send the refresh token, write what
came back by compare-and-set over the version that was read. A caller that is cancelled leaves the flight to its end, for the
provider may have rotated: what it answered is written, and written again until the store takes it.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import datetime, timedelta

from connectors_grpc import lifecycle
from connectors_grpc.credentials.asking import ask
from connectors_grpc.credentials.backoff import Backoff
from connectors_grpc.credentials.checks import check_state, needs_reauth, not_found
from connectors_grpc.credentials.insisting import insist
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost
from connectors_grpc.domain.definition import Integration, OAuth
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Credential, CredentialState, Material, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, KeyMissing, Reason
from connectors_grpc.flight import SingleFlight
from connectors_grpc.integrations import Integrations
from connectors_grpc.oauth2 import token_request
from connectors_grpc.oauth2.errors import InvalidGrant, TokenError, connectors_error
from connectors_grpc.oauth2.token_reply import TokenReply
from connectors_grpc.ports import Audit, Change, Changes, Clock, Outbound
from connectors_grpc.secret import Secret

YOUNG = timedelta(seconds=30)
"""A token younger than this is not refreshed because an upstream answered 401 (attack 33)."""
PASSING = frozenset((Reason.PROVIDER_UNAVAILABLE, Reason.VAULT_UNAVAILABLE, Reason.OAUTH_CLIENT_REFUSED))
"""Why a refresh may fail while nothing is wrong with the credential."""
PROVIDERS = PASSING - {Reason.VAULT_UNAVAILABLE}
"""Those after which the provider is left alone for a while."""


def fingerprint(token: Secret) -> str:
    """Tells refresh tokens apart without showing them."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()[:32]


def expires_at(reply: TokenReply, oauth: OAuth, sent: datetime) -> datetime | None:
    """When the token stops being usable; None if nothing says.

    Counts from when we *sent* the request, so that network delay only shortens it.  Source: RFC 6749 section 5.1.
    """
    ttl = reply.expires_in or oauth.default_access_token_ttl
    return None if ttl is None else sent + ttl


class Refreshing:
    """The use cases that need a token to live. Owns its flights: close it after the servers."""

    def __init__(
        self,
        keeper: Keeper,
        integrations: Integrations,
        outbound: Outbound,
        changes: Changes,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._integrations = integrations
        self._outbound = outbound
        self._changes = changes
        self._audit = audit
        self._clock = clock
        self._backoff: Backoff[tuple[str, CredentialId, int]] = Backoff(clock)
        self.flights: SingleFlight[tuple[str, CredentialId], Held] = SingleFlight()

    async def read(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        """As stored. Raises: CREDENTIAL_NOT_FOUND."""
        held = await self._keeper.read(tenant, credential_id)
        if held is None:
            raise not_found(tenant.id, credential_id)
        return held

    async def open(self, tenant: Tenant, held: Held) -> Material:
        """The material; if it does not open, a person must connect again. Raises: NEEDS_REAUTH."""
        try:
            return await self._keeper.open(tenant, held)
        except MaterialLost:
            raise needs_reauth(held.credential) from None

    async def fresh(
        self, tenant: Tenant, credential_id: CredentialId, *, min_ttl: timedelta, rejected_generation: int = 0
    ) -> Held:
        """The credential with a token that lives for `min_ttl` at least, refreshed on the way if it is near its end.

        A refresh that fails for a passing reason is no error while the token still lives, and is not tried again at once.
        Raises: CREDENTIAL_NOT_FOUND, what `check_state` raises, CREDENTIAL_EXPIRED, PROVIDER_UNAVAILABLE, OAUTH_CLIENT_REFUSED.
        """
        held = await self.read(tenant, credential_id)
        check_state(held.credential)
        now = self._clock.now()
        rejected = self._rejected(held.credential, rejected_generation, now)
        if not rejected and not await self._due(held.credential, min_ttl, now):
            return held
        if not held.credential.refreshable:
            if lifecycle.usable(held.credential, now, timedelta(0)):
                return held
            raise ConnectorsError(Reason.CREDENTIAL_EXPIRED, {"tenant": tenant.id, "credential": credential_id})
        generation = held.credential.generation
        try:
            self._backoff.check((tenant.uid, credential_id, generation))
            renewed = await self._fly(tenant, credential_id, generation)
        except ConnectorsError as error:
            if error.reason in PASSING and lifecycle.usable(held.credential, self._clock.now(), timedelta(0)):
                return held
            raise
        # It may have been switched off or revoked while the provider took its time.
        check_state(renewed.credential)
        return renewed

    async def _due(self, credential: Credential, min_ttl: timedelta, now: datetime) -> bool:
        if credential.expire_time is None or not credential.refreshable:
            return not lifecycle.usable(credential, now, timedelta(0))
        if credential.issue_time is not None:
            # A token that never lives so long can't be asked to: half its life is the most.
            min_ttl = min(min_ttl, (credential.expire_time - credential.issue_time) / 2)
        if not lifecycle.usable(credential, now, min_ttl):
            return True
        oauth = (await self._integrations.get(credential.integration)).oauth
        spread = random.random()  # noqa: S311 - spreads load, guards nothing
        ends = oauth is not None and oauth.refresh_ends_access_token
        return lifecycle.refresh_due(credential, now, spread, ends_access_token=ends)

    @staticmethod
    def _rejected(credential: Credential, generation: int, now: datetime) -> bool:
        if generation == 0 or generation != credential.generation or not credential.refreshable:
            return False
        return credential.issue_time is None or now - credential.issue_time >= YOUNG

    async def refresh(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        """Refresh now. Callers at the same time share one provider call. Raises: as `fresh`."""
        held = await self.read(tenant, credential_id)
        check_state(held.credential)
        if not held.credential.refreshable:
            raise ConnectorsError(Reason.CREDENTIAL_EXPIRED, {"tenant": tenant.id, "credential": credential_id})
        return await self._fly(tenant, credential_id, held.credential.generation)

    async def _fly(self, tenant: Tenant, credential_id: CredentialId, seen: int) -> Held:
        return await self.flights.run((tenant.uid, credential_id), lambda: self._refresh(tenant, credential_id, seen))

    async def _refresh(self, tenant: Tenant, credential_id: CredentialId, seen: int) -> Held:
        held = await self.read(tenant, credential_id)
        check_state(held.credential)
        if held.credential.generation != seen:
            return held
        integration = await self._integrations.get(held.credential.integration)
        if integration.oauth is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "oauth"})
        material = await self.open(tenant, held)
        if material.refresh_token is None:
            raise ConnectorsError(Reason.CREDENTIAL_EXPIRED, {"tenant": tenant.id, "credential": credential_id})
        sent = self._clock.now()
        try:
            reply = await self._ask(tenant, integration, integration.oauth, material.refresh_token)
        except InvalidGrant:
            return await self._refused(tenant, held)
        except (TokenError, ConnectorsError) as error:
            failure = error if isinstance(error, ConnectorsError) else connectors_error(error, refreshing=True)
            if failure.reason in PROVIDERS:
                self._backoff.failed((tenant.uid, credential_id, seen), failure)
            self._audited(tenant, held.credential, failure.reason)
            raise failure from None
        self._backoff.succeeded((tenant.uid, credential_id, seen))
        renewed = self._renewed(held.credential, material, reply, integration.oauth, sent)
        return await insist(lambda: self._settle(tenant, held.credential, *renewed), tenant.id, credential_id)

    async def _ask(self, tenant: Tenant, integration: Integration, oauth: OAuth, refresh_token: Secret) -> TokenReply:
        client = await self._integrations.client_for(integration.id, tenant)
        request = token_request.refresh(
            oauth, client, refresh_token=refresh_token, allow_private_addresses=integration.allow_private_addresses
        )
        return await ask(self._outbound, self._clock, request, oauth)

    def _renewed(
        self, credential: Credential, material: Material, reply: TokenReply, oauth: OAuth, sent: datetime
    ) -> tuple[Credential, Material]:
        """What to store. A reply without refresh token keeps the old one; without scope, what was granted."""
        old = material.refresh_token
        fields = {**material.fields, **reply.extra, "access_token": reply.access_token}
        renewed = replace(
            material, fields=fields, refresh_token=reply.refresh_token or old, token_type=reply.token_type
        )
        record = replace(
            credential,
            generation=credential.generation + 1,
            issue_time=sent,
            refresh_time=sent,
            expire_time=expires_at(reply, oauth, sent),
            granted_scopes=credential.granted_scopes if reply.scopes is None else reply.scopes,
            parent="" if old is None else fingerprint(old),
            refreshable=renewed.refresh_token is not None,
        )
        return record, renewed

    async def _settle(self, tenant: Tenant, read: Credential, record: Credential, material: Material) -> Held:
        """Store what the provider answered over what was read, or over labels and states that changed beside us."""
        try:
            ciphertext = await self._keeper.seal(tenant, record.id, material)
        except KeyMissing:
            raise not_found(tenant.id, record.id) from None
        while True:
            try:
                written = await self._keeper.write(tenant, Held(record, ciphertext))
            except Conflict:
                current = await self.read(tenant, record.id)
                if _is_ours(current.credential, record):
                    return current  # an attempt that seemed to fail
                if not _ours_is_newer(current.credential, read):
                    self._audited(tenant, record, "superseded")
                    check_state(current.credential)
                    return current
                # Labels or state changed: what we hold may be the only good token, so it goes in over that.
                record = replace(
                    record,
                    version=current.credential.version,
                    labels=current.credential.labels,
                    enabled=current.credential.enabled,
                    state=lifecycle.next_state(current.credential.state, lifecycle.Event.REFRESHED),
                    reason="",
                )
            else:
                self._audited(tenant, written.credential, "refreshed")
                self._changes.publish(Change(tenant=tenant.id, credential=record.id))
                return written

    async def _refused(self, tenant: Tenant, held: Held) -> Held:
        """`invalid_grant` is terminal only if nobody else refreshed meanwhile.  Source: RFC 6749 section 5.2."""
        current = await self.read(tenant, held.credential.id)
        if current.credential.generation != held.credential.generation:
            return current
        check_state(current.credential)
        state = lifecycle.next_state(current.credential.state, lifecycle.Event.REFUSED)
        ended = replace(current.credential, state=state, reason=Reason.NEEDS_REAUTH.value)
        try:
            ended = (await self._keeper.write(tenant, Held(ended, current.ciphertext))).credential
        except Conflict:
            return await self._refused(tenant, held)
        self._audited(tenant, ended, Reason.NEEDS_REAUTH)
        self._changes.publish(Change(tenant=tenant.id, credential=ended.id))
        raise needs_reauth(ended)

    def _audited(self, tenant: Tenant, credential: Credential, result: str) -> None:
        self._audit.record(
            "RefreshCredential",
            caller="platform",
            tenant=tenant.id,
            target=credential.id,
            generation=credential.generation,
            result=result,
        )


def _is_ours(current: Credential, record: Credential) -> bool:
    """Whether what is stored is what we wanted to store."""
    return (current.generation, current.issue_time, current.parent) == (
        record.generation,
        record.issue_time,
        record.parent,
    )


def _ours_is_newer(current: Credential, read: Credential) -> bool:
    """Whether nobody else stored material since `read`: then what we hold descends from what is there."""
    return current.generation == read.generation and current.state in (
        CredentialState.ACTIVE,
        CredentialState.NEEDS_REAUTH,
    )
