"""What lies sealed under a key, wherever it is stored: to be rewrapped when the key is rotated. Decides nothing.

A tenant's key seals its credentials, and the data keys that refreshes under way may have sealed their answers with on a
replica's disk. The platform's key seals OAuth clients' secrets, and the PKCE verifiers of connections that people have begun.
Whoever seals something new by either key gives it a place here, or a rotation makes it unreadable: a test lists who may.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from connectors_grpc import codec
from connectors_grpc.credentials.flows import Flow
from connectors_grpc.credentials.keeping import binding
from connectors_grpc.credentials.refresh_lease import LONG_DEAD, StoredLease
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Tenant
from connectors_grpc.grammar import sealed_version
from connectors_grpc.paging import count, pages
from connectors_grpc.ports import Clock, Document, Documents, Json, JsonValue, Sealed
from connectors_grpc.sealed_clients import PLATFORM_KEY
from connectors_grpc.several import several

PAGE = 100
SKEW = timedelta(minutes=1)
"""How far apart two replicas' clocks may be when a flow expires."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One document, as read, with the ciphertexts that stand in its field `inside`, at any depth."""

    name: str
    path: str
    document: Document
    inside: str
    sealed: tuple[Sealed, ...]

    def holding(self, rewrapped: Mapping[str, str]) -> Json:
        """The document with other ciphertexts in place of these."""
        return {**self.document.data, self.inside: _exchanged(self.document.data[self.inside], rewrapped)}


class Shelf(Protocol):
    """Everything under one key."""

    key: str
    documents: Documents

    def pages(self) -> AsyncIterator[Sequence[Slot]]:
        """All of it, up to 100 at a time; what is written meanwhile may be missing. Raises: VaultUnavailable."""

    async def count(self) -> int:
        """How many documents there are, about. Raises: VaultUnavailable."""

    async def busy(self) -> bool:
        """Whether something is still under way that an older version sealed and that can't be rewrapped: ask again later.

        To be asked after the key was rotated. Raises: VaultUnavailable.
        """


class Folder:
    """One folder of documents, read page by page."""

    def __init__(self, documents: Documents, folder: str) -> None:
        self._documents = documents
        self._folder = folder

    async def pages(self) -> AsyncIterator[Sequence[tuple[str, Document]]]:
        """Names and documents; those that are gone meanwhile are left out."""
        async for names in pages(self._documents, self._folder, limit=PAGE):
            found = await several(self._read, names)
            yield [(name, document) for name, document in zip(names, found, strict=True) if document]

    async def _read(self, name: str) -> Document | None:
        return await self._documents.read(f"{self._folder}/{name}")

    async def count(self) -> int:
        """How many names."""
        return await count(self._documents, self._folder)


class CredentialShelf:
    """A tenant's credentials. An earlier tenant's of the same id are as if they were not there."""

    def __init__(self, tenant: Tenant, secrets: Documents, records: Documents, clock: Clock) -> None:
        self.key: str = tenant.id
        self.documents = secrets
        self._tenant = tenant
        self._folder = Folder(secrets, tenant.id)
        self._records = records
        self._clock = clock
        self._leases: dict[str, int] | None = None

    async def pages(self) -> AsyncIterator[Sequence[Slot]]:
        """See Shelf."""
        async for page in self._folder.pages():
            slots = (self._slot(name, document) for name, document in page)
            yield [slot for slot in slots if slot is not None]

    def _slot(self, name: str, document: Document) -> Slot | None:
        ciphertext = document.data.get("ciphertext")
        if document.data.get("tenant_uid") != self._tenant.uid or ciphertext == "":
            return None
        sealed = Sealed(binding(self._tenant, CredentialId(name)), ciphertext if isinstance(ciphertext, str) else "")
        return Slot(name, f"{self._tenant.id}/{name}", document, "ciphertext", (sealed,))

    async def count(self) -> int:
        """See Shelf."""
        return await self._folder.count()

    async def busy(self) -> bool:
        """See Shelf. Refreshes that had begun before the first asking hold data keys of an older version: their answers may lie
        on a disk, sealed by those, until they have released their leases, or are long dead.
        """
        if self._leases is None:
            self._leases = await self._held_leases()
        now = {name: await self._held(name) for name in self._leases}
        self._leases = {name: version for name, version in self._leases.items() if now[name] == version}
        return bool(self._leases)

    async def _held_leases(self) -> dict[str, int]:
        held: dict[str, int] = {}
        async for names in pages(self._records, "refresh", prefix=f"{self._tenant.id}.", limit=PAGE):
            versions = await several(self._held, names)
            held |= {name: version for name, version in zip(names, versions, strict=True) if version}
        return held

    async def _held(self, name: str) -> int:
        """The version of a lease that somebody holds; 0 for one that is free."""
        document = await self._records.read(f"refresh/{name}")
        if document is None:
            return 0
        try:
            lease = codec.load(StoredLease, document.data)
        except codec.RecordMalformed:
            return 0
        over = lease.tenant_uid != self._tenant.uid or lease.until + LONG_DEAD < self._clock.now()
        return 0 if not lease.owner or over else document.version


class ClientShelf:
    """OAuth clients, of the platform and of tenants."""

    def __init__(self, records: Documents, clock: Clock, to_version: int) -> None:
        self.key = PLATFORM_KEY
        self.documents = records
        self._integrations = Folder(records, "integrations")
        self._clients = Folder(records, "clients")
        self._flows = Folder(records, "flows")
        self._clock = clock
        self._to_version = to_version

    async def pages(self) -> AsyncIterator[Sequence[Slot]]:
        """See Shelf."""
        async for page in self._integrations.pages():
            slots = (_client_slot(f"integrations/{name}", document, name) for name, document in page)
            yield [slot for slot in slots if slot is not None]
        async for page in self._clients.pages():
            slots = (
                _client_slot(f"clients/{name}", document, f"{document.data.get('tenant_uid')}/{name.partition('.')[2]}")
                for name, document in page
            )
            yield [slot for slot in slots if slot is not None]

    async def count(self) -> int:
        """See Shelf."""
        return await self._integrations.count() + await self._clients.count()

    async def busy(self) -> bool:
        """See Shelf. A flow is used up by compare-and-set: writing over it would take it from the person who is in it."""
        async for page in self._flows.pages():
            for _, document in page:
                old = any(sealed_version(text) < self._to_version for text in sealed_texts(document.data))
                if old and self._pending(document):
                    return True
        return False

    def _pending(self, document: Document) -> bool:
        try:
            return codec.load(Flow, document.data).expire_time + SKEW > self._clock.now()
        except codec.RecordMalformed:
            return True  # whatever it is, the sweep knows, and removes it when it is over


def _client_slot(path: str, document: Document, context: str) -> Slot | None:
    texts = dict.fromkeys(sealed_texts(document.data.get("client")))
    sealed = tuple(Sealed(context.encode(), text) for text in texts)
    return Slot(path, path, document, "client", sealed) if sealed else None


def sealed_texts(value: JsonValue) -> Iterator[str]:
    """Every ciphertext that stands in a document, at any depth."""
    if isinstance(value, str):
        if sealed_version(value):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from sealed_texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from sealed_texts(item)


def _exchanged(value: JsonValue, by: Mapping[str, str]) -> JsonValue:
    if isinstance(value, str):
        return by.get(value, value)
    if isinstance(value, Mapping):
        return {name: _exchanged(item, by) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_exchanged(item, by) for item in value]
    return value
