"""Integrations: the catalogue's definitions, an admin's own in front of them, and the OAuth clients of platform and tenants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from connectors_grpc import codec, policy
from connectors_grpc.definition_rules import client_violations, needs_secret, validate_definition
from connectors_grpc.domain.definition import Api, Input, Integration, OAuth, OAuthClient, Source
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.domain.records import ApiKey, Role, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, FieldViolation, Reason, Undecipherable, invalid
from connectors_grpc.ports import Audit, Change, Changes, Ciphers, Clock, Documents
from connectors_grpc.recent import Recent
from connectors_grpc.secret import Secret

PLATFORM_KEY = "platform"


@dataclass(frozen=True, slots=True)
class SealedClient:
    """An OAuth client as stored: its secrets under the platform's key, together; empty for a public client.

    The plaintext is the secret itself, and a JSON array where there are several.
    """

    client_id: str
    ciphertext: str = ""
    key_id: str = ""
    secrets: int = 1


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
class StoredClient:
    """The document of `clients/{tenant}.{integration}`: a tenant's own client, good for that uid only."""

    tenant_uid: str
    client: SealedClient


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


def _may_compare(caller: ApiKey, validate_only: bool) -> None:
    """Whether a secret is the stored one is for an admin to know. Raises: PERMISSION_DENIED."""
    if validate_only and Role.ADMIN not in caller.roles:
        raise policy.denied()


def _refuse(violations: Iterable[FieldViolation]) -> None:
    """Raises: INVALID_FIELD if there are any."""
    found = tuple(FieldViolation(f"integration.{v.field}", v.description) for v in violations)
    if found:
        raise ConnectorsError(Reason.INVALID_FIELD, fields=found)


def _refuse_bare(oauth: OAuth | None) -> None:
    """Another client's id without its secret. Raises: INVALID_FIELD if the definition needs one."""
    if needs_secret(oauth):
        text = "needed, unless `client_authentication` is none or the stored client's id stays the same"
        raise invalid("integration.oauth_client.client_secret", text)


def _without_secret(client: SealedClient | None) -> OAuthClient | None:
    if client is None:
        return None
    count = client.secrets if client.ciphertext else 0
    return OAuthClient(client.client_id, secret_set=count > 0, key_id=client.key_id, secret_count=count)


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
        self._ciphers = ciphers
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
        client = _without_secret(record.client)
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

    async def client_for(self, integration: Integration, tenant: Tenant) -> OAuthClient:
        """The tenant's own client, else the platform's, with its secret; `integration` is the tenant's, tailored.

        Raises: INTEGRATION_NOT_CONFIGURED; also where the tenant chose the host, and has no client of its own (attack 37).
        """
        integration_id = integration.id
        own = await self._tenant_client(integration_id, tenant)
        if own is not None:
            return replace(await self._open(own, f"{tenant.uid}/{integration_id}"), own=True)
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
        return await self._open(stored[0].client, integration_id)

    async def tenant_client(self, integration_id: IntegrationId, tenant: Tenant) -> OAuthClient | None:
        """The tenant's own client, without its secret."""
        own = await self._tenant_client(integration_id, tenant)
        return _without_secret(own)

    async def _tenant_client(self, integration_id: IntegrationId, tenant: Tenant) -> SealedClient | None:
        document = await self._documents.read(f"clients/{tenant.id}.{integration_id}")
        if document is None:
            return None
        stored = codec.load(StoredClient, document.data)
        return stored.client if stored.tenant_uid == tenant.uid else None

    async def _seal(self, client: OAuthClient, context: str) -> SealedClient:
        if client.secret is None:
            return SealedClient(client.client_id, key_id=client.key_id)
        every = [one.reveal() for one in (client.secret, *client.others)]
        plaintext = (every[0] if len(every) == 1 else json.dumps(every)).encode()
        ciphertext = await self._ciphers.encrypt(PLATFORM_KEY, context.encode(), plaintext)
        return SealedClient(client.client_id, ciphertext, client.key_id, len(every))

    async def _sealed(
        self, wanted: OAuthClient, there: SealedClient | None, oauth: OAuth | None, context: str
    ) -> SealedClient:
        """`wanted`, with the secrets that are stored if it brings none and is the same client. Raises: INVALID_FIELD.

        The same secrets again are what is stored, not sealed anew.
        """
        if there is not None and await self._is_same(wanted, there, context):
            return there
        if wanted.secret is None and there is not None:
            if there.client_id == wanted.client_id:
                return replace(there, key_id=wanted.key_id)
            _refuse_bare(oauth)
        return await self._seal(wanted, context)

    async def _is_same(self, wanted: OAuthClient, there: SealedClient, context: str) -> bool:
        if wanted.secret is None or (wanted.client_id, wanted.key_id) != (there.client_id, there.key_id):
            return False
        try:
            held = await self._open(there, context)
        except ConnectorsError:
            return False  # what does not open is replaced
        return (held.secret, held.others) == (wanted.secret, wanted.others)

    async def _open(self, client: SealedClient, context: str) -> OAuthClient:
        if not client.ciphertext:
            return OAuthClient(client.client_id, key_id=client.key_id)
        try:
            plaintext = await self._ciphers.decrypt(PLATFORM_KEY, context.encode(), client.ciphertext)
        except Undecipherable:
            raise ConnectorsError(
                Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "oauth_client.client_secret"}
            ) from None
        text = plaintext.decode()
        first, *others = [text] if client.secrets == 1 else json.loads(text)
        return OAuthClient(
            client.client_id,
            Secret(first),
            secret_set=True,
            others=tuple(Secret(other) for other in others),
            key_id=client.key_id,
            secret_count=client.secrets,
        )

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
        _may_compare(caller, validate_only)
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
            self._compared(caller, integration_id, "", unchanged)
        if unchanged:
            return Updated(current, unchanged=True)
        if validate_only:
            return Updated(as_it_would_be, unchanged=False)
        merged = await self._write(record, cas=current.version)
        self._audit.record("UpdateIntegration", caller=caller.id, target=integration_id, result="updated")
        return Updated(merged, unchanged=False)

    def _compared(self, caller: ApiKey, integration_id: IntegrationId, tenant: str, unchanged: bool) -> None:
        """An answer could be asked for again and again to guess at a secret: the audit shows each."""
        result = "equal" if unchanged else "different"
        self._audit.record("CompareIntegration", caller=caller.id, tenant=tenant, target=integration_id, result=result)

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
        _refuse(validate_definition(effective))
        if not keep_client:
            client = None if wanted.client is None else await self._sealed(wanted.client, client, oauth, wanted.id)
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

    async def set_tenant_client(
        self,
        caller: ApiKey,
        tenant: Tenant,
        integration_id: IntegrationId,
        client: OAuthClient,
        *,
        validate_only: bool = False,
    ) -> bool:
        """A tenant's own id and secret, and nothing else of the definition (attack 37). Says whether it was there already.

        Raises: CONFLICT, INVALID_FIELD, PERMISSION_DENIED.
        """
        _may_compare(caller, validate_only)
        oauth = (await self.get(integration_id, fresh=True)).oauth
        _refuse(client_violations(client, oauth))
        path = f"clients/{tenant.id}.{integration_id}"
        there = await self._documents.read(path)
        own = None if there is None else codec.load(StoredClient, there.data)
        # What a former tenant of that name stored is not this one's to keep (attack 38).
        stored = own.client if own is not None and own.tenant_uid == tenant.uid else None
        if stored is None and client.secret is None:
            _refuse_bare(oauth)
        sealed = await self._sealed(client, stored, oauth, f"{tenant.uid}/{integration_id}")
        unchanged = sealed == stored
        if validate_only:
            self._compared(caller, integration_id, tenant.id, unchanged)
        if unchanged or validate_only:
            return unchanged
        try:
            await self._documents.write(
                path, codec.dump(StoredClient(tenant.uid, sealed)), cas=there.version if there else 0
            )
        except Conflict:
            raise ConnectorsError(Reason.CONFLICT) from None
        self._audit.record(
            "UpdateIntegration", caller=caller.id, tenant=tenant.id, target=integration_id, result="client set"
        )
        return False

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

    async def purge_tenant_clients(self, tenant: Tenant) -> None:
        """Forget every OAuth client of a tenant that is being deleted: they are sealed by the platform's key, not by its own."""
        prefix = f"{tenant.id}."
        while True:
            page = await self._documents.list("clients", after=prefix, limit=100)
            names = [name for name in page.names if name.startswith(prefix)]
            for name in names:
                await self._documents.purge(f"clients/{name}")
            if not names:
                return

    async def delete_tenant_client(self, caller: ApiKey, tenant: Tenant, integration_id: IntegrationId) -> None:
        """Back to the platform's client. Raises: INTEGRATION_NOT_FOUND if the tenant has none of its own."""
        if await self._tenant_client(integration_id, tenant) is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_FOUND, {"integration": integration_id, "tenant": tenant.id})
        await self._documents.purge(f"clients/{tenant.id}.{integration_id}")
        self._audit.record(
            "DeleteIntegration", caller=caller.id, tenant=tenant.id, target=integration_id, result="client deleted"
        )
