"""What a person granted becomes a credential: asked whose account it is, and stored over whatever was there of that account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from connectors_grpc.credentials.answer import Answer, expires_at
from connectors_grpc.credentials.discovering import discovery_request, found_in, read_discovery
from connectors_grpc.credentials.flows import Flow, given, unknown
from connectors_grpc.credentials.identity import identity_request, read_identity
from connectors_grpc.credentials.insisting import insist
from connectors_grpc.credentials.keeping import Keeper, Place
from connectors_grpc.credentials.managing import Managing
from connectors_grpc.credentials.placing import (
    NewMaterial,
    check_account,
    check_fills,
    check_place,
    granted,
    material_of,
)
from connectors_grpc.credentials.storing import Storing
from connectors_grpc.domain.definition import Discovery, Integration, OAuth
from connectors_grpc.domain.records import Credential, CredentialKind, CredentialState, Tenant
from connectors_grpc.errors import ConnectorsError, KeyMissing, Reason, VaultUnavailable
from connectors_grpc.oauth2.token_reply import TokenReply
from connectors_grpc.ports import Audit, Clock, DataKey, HttpReply, HttpRequest, Outbound
from connectors_grpc.secret import Secret
from connectors_grpc.tailoring import fields_with, tailored

MOST_CONFLICTS = 10
IDENTITY_ATTEMPTS = 2
DISCOVERY_ATTEMPTS = 2
PASSING = frozenset((Reason.PROVIDER_UNAVAILABLE, Reason.LIMIT_EXCEEDED))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is there before a provider is asked, and a key that seals its answer if the Vault is away by then."""

    place: Place
    key: DataKey


class Granting:
    """The last step of every connection, by browser or by device."""

    def __init__(
        self, managing: Managing, keeper: Keeper, storing: Storing, outbound: Outbound, audit: Audit, clock: Clock
    ) -> None:
        self._managing = managing
        self._keeper = keeper
        self._storing = storing
        self._outbound = outbound
        self._audit = audit
        self._clock = clock

    async def prepare(self, flow: Flow, tenant: Tenant) -> Prepared:
        """Before the provider is asked. Raises: FLOW_NOT_FOUND (the tenant was deleted), VAULT_UNAVAILABLE."""
        try:
            place, key = await asyncio.gather(
                self._keeper.place(tenant, flow.credential), self._keeper.data_key(tenant, flow.credential)
            )
        except KeyMissing:
            raise unknown() from None
        return Prepared(place, key)

    async def keep(
        self,
        flow: Flow,
        tenant: Tenant,
        integration: Integration,
        oauth: OAuth,
        answered: tuple[TokenReply, datetime],
        prepared: Prepared,
    ) -> Credential:
        """Store it; `integration` is the tenant's, as for consent.

        Raises: ACCOUNT_MISMATCH, AUTHORIZATION_REFUSED (a discovery found nothing to go by), CONFLICT, VAULT_UNAVAILABLE.
        """
        reply, sent = answered
        fields = {**reply.extra, "access_token": reply.access_token}
        try:
            values = await self._discovered(flow, integration, oauth, fields)
            integration = tailored(integration, values)
        except ConnectorsError as error:
            self._record(flow, error.reason)
            raise
        new = NewMaterial(
            kind=CredentialKind.OAUTH,
            fields=fields,
            refresh_token=reply.refresh_token,
            expire_time=expires_at(reply, oauth, sent),
            scopes=flow.scopes if reply.scopes is None else reply.scopes,
            requested_scopes=flow.scopes,
            issue_time=sent,
            token_type=reply.token_type,
            account=await self._account(flow, integration, fields_with(integration, fields, values)),
            values=values,
            refresh_expire_time=None if reply.refresh_expires_in is None else sent + reply.refresh_expires_in,
        )
        try:
            credential = await self._stored(flow, tenant, integration, new, prepared)
        except ConnectorsError as error:
            self._record(flow, error.reason)
            raise
        self._record(flow, "connected")
        return credential

    async def _stored(
        self, flow: Flow, tenant: Tenant, integration: Integration, new: NewMaterial, prepared: Prepared
    ) -> Credential:
        """Store it, however long the Vault is away; laid by on our own disk meanwhile, for a later life to store."""
        laid, wanted = "", True

        async def store() -> Credential:
            nonlocal laid
            try:
                return await self._store(flow, tenant, integration, new)
            except VaultUnavailable:
                answer = None if laid else self._answer(flow, tenant, integration, new, prepared.place)
                laid = laid if answer is None else await self._storing.lay_by(answer, prepared.key)
                raise

        try:
            credential = await insist(store, tenant.id, flow.credential)
            wanted = False
        except ConnectorsError as error:
            wanted = isinstance(error, VaultUnavailable)
            raise
        finally:
            if laid:
                self._storing.done_with(laid, wanted=wanted)
        return credential

    def _answer(
        self, flow: Flow, tenant: Tenant, integration: Integration, new: NewMaterial, place: Place
    ) -> Answer | None:
        """What a later life would store; None if it may not stand where it would."""
        held, version = place
        old = None if held is None else held.credential
        try:
            check_fills(integration, new)
            check_place(integration, flow.credential, old, 0, staged=False)
            if old is not None and old.state is not CredentialState.REVOKED and not flow.allow_account_change:
                check_account(integration, old, new)
        except ConnectorsError:
            return None
        record = granted(
            tenant, integration, flow.credential, new, old, now=self._clock.now(), labels=None, version=version
        )
        base = 0 if old is None else old.generation
        return Answer(tenant.id, tenant.uid, record, material_of(integration, new), base)

    async def _discovered(
        self, flow: Flow, integration: Integration, oauth: OAuth, fields: Mapping[str, Secret]
    ) -> Mapping[str, Secret]:
        """What was given, with what the definition has looked up."""
        values = dict(flow.values)
        secrets = fields_with(integration, fields, given(flow))
        for one in oauth.discovery:
            if one.url:
                found = await self._asked(flow, discovery_request(integration, one, secrets), one)
            else:
                reply = {name: value.reveal() for name, value in fields.items()}
                found = found_in(reply, one, flow.values)
            values |= {one.id: found} if found else {}
        return {name: Secret(value) for name, value in values.items()}

    async def _asked(self, flow: Flow, request: HttpRequest, one: Discovery) -> str:
        """Asked again, once, where a passing fault is in the way: the person's consent is used up by now."""
        for attempt in range(DISCOVERY_ATTEMPTS):
            try:
                return read_discovery(await self._send(flow, request), one, flow.values)
            except ConnectorsError as error:
                if error.reason not in PASSING or attempt + 1 == DISCOVERY_ATTEMPTS:
                    raise
        raise AssertionError

    async def _send(self, flow: Flow, request: HttpRequest) -> HttpReply:
        return await self._outbound.send(replace(request, tenant=flow.tenant))

    async def _account(self, flow: Flow, integration: Integration, fields: Mapping[str, Secret]) -> str:
        """Whose it is; empty if that can't be known now. What was granted is not lost for that, unless it is a reconnect."""
        request = identity_request(integration, fields)
        if request is None or integration.api is None or not integration.api.account_pointer:
            return ""
        for _ in range(IDENTITY_ATTEMPTS):
            try:
                account = read_identity(await self._send(flow, request), integration.api).account
            except ConnectorsError:
                continue
            if account:
                return account
        return ""

    async def _store(self, flow: Flow, tenant: Tenant, integration: Integration, new: NewMaterial) -> Credential:
        """Over whatever is there: a person has just consented, so that who wrote in between gives way."""
        for _ in range(MOST_CONFLICTS):
            try:
                return await self._managing.store(
                    tenant,
                    integration,
                    flow.credential,
                    new,
                    caller=flow.started_by,
                    same_account=not flow.allow_account_change,
                )
            except ConnectorsError as error:
                if error.reason is not Reason.CONFLICT:
                    raise
        raise ConnectorsError(Reason.CONFLICT)

    def _record(self, flow: Flow, result: str) -> None:
        self._audit.record(
            "CompleteAuthorization", caller=flow.started_by, tenant=flow.tenant, target=flow.credential, result=result
        )
