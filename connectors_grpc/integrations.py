"""Integrations: the catalogue's definitions, an admin's own in front of them, and the platform's OAuth client of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from connectors_grpc import codec
from connectors_grpc.domain.definition import Api, Input, Integration, OAuth, OAuthClient, Source
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.domain.records import ApiKey, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, Reason
from connectors_grpc.ports import Audit, Change, Changes, Ciphers, Clock, Documents
from connectors_grpc.recent import Recent
from connectors_grpc.rules.definition import validate_definition
from connectors_grpc.sealed_clients import (
    ClientSeals,
    SealedClient,
    may_compare,
    record_comparison,
    refuse,
    without_secret,
)
from connectors_grpc.tenant_clients import TenantClients


@dataclass(frozen=True, slots=True)
class StoredIntegration:
    """The document of `integrations/{id}`. Without `oauth` and `api` the catalogue's hold."""

    id: IntegrationId
    display_name: str
    oauth: OAuth | None
    api: Api | None
    client: SealedClient | None
    allow_private_addresses: bool
    create_time: datetime
    update_time: datetime
    request_id: str = ""
    inputs: tuple[Input, ...] = ()


@dataclass(frozen=True, slots=True)
class IntegrationPage:
    """Integrations by id. `next` is empty at the end."""

    integrations: Sequence[Integration]
    next: str


@dataclass(frozen=True, slots=True)
class Updated:
    """An integration as it now stands. `unchanged`: it stood so before."""

    integration: Integration
    unchanged: bool


class Integrations:
    """The use cases of integrations. What they return never holds a client's secret, but for `client_for`."""

    def __init__(
        self,
        documents: Documents,
        ciphers: Ciphers,
        catalogue: Mapping[IntegrationId, Integration],
        changes: Changes,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._documents = documents
        self._seals = ClientSeals(ciphers)
        self.tenant_clients = TenantClients(documents, self._seals, self._oauth, audit)
        self._catalogue = catalogue
        self._changes = changes
        self._audit = audit
        self._clock = clock
        self._recent: Recent[IntegrationId, tuple[StoredIntegration, int] | None] = Recent(clock)

    def forget(self, change: Change | None) -> None:
        """Drop what a change, perhaps of another replica, made old; None: everything."""
        if change is None:
            self._recent.clear()
        elif change.integration is not None:
            self._recent.drop(change.integration)

    def _changed(self, integration_id: IntegrationId) -> None:
        self._recent.drop(integration_id)
        self._changes.publish(Change(integration=integration_id))

    async def _read(self, integration_id: IntegrationId) -> tuple[StoredIntegration, int] | None:
        document = await self._documents.read(f"integrations/{integration_id}")
        return None if document is None else (codec.load(StoredIntegration, document.data), document.version)

    def _merge(self, integration_id: IntegrationId, stored: tuple[StoredIntegration, int] | None) -> Integration:
        entry = self._catalogue.get(integration_id)
        if stored is None:
            if entry is None:
                raise ConnectorsError(Reason.INTEGRATION_NOT_FOUND, {"integration": integration_id})
            return entry
        record, version = stored
        own = record.oauth is not None or record.api is not None or entry is None
        client = without_secret(record.client)
        return Integration(
            id=integration_id,
            display_name=record.display_name or (entry.display_name if entry else integration_id),
            source=Source.CREATED if own or entry is None else Source.CATALOGUE,
            oauth=record.oauth if own or entry is None else entry.oauth,
            api=record.api if own or entry is None else entry.api,
            client=client,
            allow_private_addresses=record.allow_private_addresses,
            verified=bool(entry and entry.verified and not own),
            create_time=record.create_time,
            update_time=record.update_time,
            version=version,
            inputs=record.inputs if own or entry is None else entry.inputs,
        )

    async def get(self, integration_id: IntegrationId, *, fresh: bool = False) -> Integration:
        """The definition in force. Raises: INTEGRATION_NOT_FOUND."""
        stored = await (self._read(integration_id) if fresh else self._recent.get(integration_id, self._read))
        return self._merge(integration_id, stored)

    async def _oauth(self, integration_id: IntegrationId) -> OAuth | None:
        return (await self.get(integration_id, fresh=True)).oauth

    async def client_for(self, integration: Integration, tenant: Tenant) -> OAuthClient:
        """The tenant's own client, else the platform's, with its secret; `integration` is the tenant's, tailored.

        Raises: INTEGRATION_NOT_CONFIGURED; also where the tenant chose the host, and has no client of its own (attack 37).
        """
        integration_id = integration.id
        own = await self.tenant_clients.opened(integration_id, tenant)
        if own is not None:
            return replace(own, own=True)
        if integration.own_client:
            raise ConnectorsError(
                Reason.INTEGRATION_NOT_CONFIGURED,
                {"integration": integration_id, "missing": "oauth_client of the tenant"},
            )
        stored = await self._recent.get(integration_id, self._read)
        if stored is None or stored[0].client is None:
            raise ConnectorsError(
                Reason.INTEGRATION_NOT_CONFIGURED, {"integration": integration_id, "missing": "oauth_client"}
            )
        return await self._seals.open(stored[0].client, integration_id)

    async def list(self, *, after: str, limit: int) -> IntegrationPage:
        """Catalogue and created, by id."""
        names = {name for name in self._catalogue if name > after}
        page = await self._documents.list("integrations", after=after, limit=limit)
        names |= {IntegrationId(name) for name in page.names}
        chosen = sorted(names)[:limit]
        # A name past the store's page may hide others behind it: the page ends where the store's does.
        if page.more and page.names:
            chosen = [name for name in chosen if name <= page.names[-1]]
        found = [one for name in chosen if (one := await self._found(name)) is not None]
        more = page.more or len(names) > len(chosen)
        return IntegrationPage(found, chosen[-1] if more and chosen else "")

    async def _found(self, integration_id: IntegrationId) -> Integration | None:
        try:
            return await self.get(integration_id)
        except ConnectorsError as error:
            if error.reason is Reason.INTEGRATION_NOT_FOUND:
                return None  # deleted since the names were read
            raise

    async def create(self, caller: ApiKey, wanted: Integration, *, request_id: str, validate_only: bool) -> Integration:
        """Store a definition, or a client for one of the catalogue's. Raises: ALREADY_EXISTS, INVALID_FIELD."""
        there = await self._read(wanted.id)
        if there is not None:
            if request_id and there[0].request_id == request_id:
                return self._merge(wanted.id, there)
            raise ConnectorsError(Reason.ALREADY_EXISTS, {"integration": wanted.id})
        now = self._clock.now()
        record = await self._stored(wanted, create_time=now, client=None, request_id=request_id)
        if validate_only:
            return self._merge(wanted.id, (record, 0))
        merged = await self._write(record, cas=0)
        self._audit.record("CreateIntegration", caller=caller.id, target=wanted.id, result="created")
        return merged

    async def update(
        self,
        caller: ApiKey,
        integration_id: IntegrationId,
        change: Callable[[Integration], Integration],
        *,
        version: int,
        keep_client: bool,
        validate_only: bool = False,
    ) -> Updated:
        """Replace the definition by what `change` makes of it; `version` 0 takes what is there.

        A client without a secret keeps the stored one, as long as its id stays the same: a secret is never sent for another id.
        Raises: INTEGRATION_NOT_FOUND, CONFLICT, INVALID_FIELD, PERMISSION_DENIED.
        """
        may_compare(caller, validate_only)
        there = await self._read(integration_id)
        current = self._merge(integration_id, there)
        if version not in (0, current.version):
            raise ConnectorsError(Reason.CONFLICT)
        record = await self._stored(
            change(current),
            create_time=there[0].create_time if there else self._clock.now(),
            client=there[0].client if there else None,
            request_id=there[0].request_id if there else "",
            keep_client=keep_client,
        )
        as_it_would_be = replace(
            self._merge(integration_id, (record, current.version)), update_time=current.update_time
        )
        unchanged = there is not None and record.client == there[0].client and as_it_would_be == current
        if validate_only:
            record_comparison(self._audit, caller, integration_id, "", unchanged)
        if unchanged:
            return Updated(current, unchanged=True)
        if validate_only:
            return Updated(as_it_would_be, unchanged=False)
        merged = await self._write(record, cas=current.version)
        self._audit.record("UpdateIntegration", caller=caller.id, target=integration_id, result="updated")
        return Updated(merged, unchanged=False)

    async def _stored(
        self,
        wanted: Integration,
        *,
        create_time: datetime,
        client: SealedClient | None,
        request_id: str,
        keep_client: bool = False,
    ) -> StoredIntegration:
        entry = self._catalogue.get(wanted.id)
        same = (
            entry is not None
            and wanted.oauth in (None, entry.oauth)
            and wanted.api in (None, entry.api)
            and wanted.inputs in ((), entry.inputs)
        )
        effective = wanted
        if same and entry is not None:  # what else it says (private addresses) has to fit an entry that ships, too
            effective = replace(wanted, oauth=entry.oauth, api=entry.api, inputs=entry.inputs)
        oauth = effective.oauth
        refuse(validate_definition(effective))
        if not keep_client:
            client = (
                None if wanted.client is None else await self._seals.sealed(wanted.client, client, oauth, wanted.id)
            )
        return StoredIntegration(
            id=wanted.id,
            display_name=wanted.display_name,
            oauth=None if same else wanted.oauth,
            api=None if same else wanted.api,
            client=client,
            allow_private_addresses=wanted.allow_private_addresses,
            create_time=create_time,
            update_time=self._clock.now(),
            request_id=request_id,
            inputs=() if same else wanted.inputs,
        )

    async def _write(self, record: StoredIntegration, *, cas: int) -> Integration:
        try:
            version = await self._documents.write(f"integrations/{record.id}", codec.dump(record), cas=cas)
        except Conflict:
            raise ConnectorsError(Reason.CONFLICT) from None
        self._changed(record.id)
        return self._merge(record.id, (record, version))

    async def delete(self, caller: ApiKey, integration_id: IntegrationId, *, version: int) -> None:
        """Forget what was stored; a catalogue entry itself stays. Raises: INTEGRATION_NOT_FOUND, CONFLICT."""
        there = await self._read(integration_id)
        if there is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_FOUND, {"integration": integration_id})
        if version not in (0, there[1]):
            raise ConnectorsError(Reason.CONFLICT)
        await self._documents.purge(f"integrations/{integration_id}")
        self._changed(integration_id)
        self._audit.record("DeleteIntegration", caller=caller.id, target=integration_id, result="deleted")
