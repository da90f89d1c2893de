"""A credential at rest: `{tenant}/{credential}` documents, material sealed under the tenant's key and bound to its uid.

A document is {"tenant_uid", "record", "ciphertext"}: the record is not secret. The key's context is uid and credential id, so
that a ciphertext moved elsewhere does not open; one of an earlier tenant of the same id is as if it were not there.
Every write is compare-and-set.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from connectors_grpc import codec
from connectors_grpc.domain.ids import CredentialId, IntegrationId
from connectors_grpc.domain.records import Credential, Material, Tenant
from connectors_grpc.errors import KeyMissing, Undecipherable
from connectors_grpc.paging import count, pages
from connectors_grpc.ports import Ciphers, Clock, DataKey, DocumentPage, Documents, Json
from connectors_grpc.secret import Secret


class MaterialLost(Exception):
    """The stored material does not open, or is another credential's. It can't be used; connecting again replaces it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A credential as read: its record, and its sealed material (empty once purged)."""

    credential: Credential
    ciphertext: str


@dataclass(frozen=True, slots=True)
class HeldPage:
    """Credentials by id. `next` is empty at the end."""

    credentials: Sequence[Credential]
    next: str


Place: TypeAlias = tuple[Held | None, int]
"""Where a credential is stored: what is there, if it is the tenant's, and the version to write over; 0 where nothing is."""


class Keeper:
    """Reads, opens and writes credentials of a tenant that the caller has already been allowed."""

    def __init__(self, documents: Documents, ciphers: Ciphers, clock: Clock) -> None:
        self._documents = documents
        self._ciphers = ciphers
        self._clock = clock

    async def read(self, tenant: Tenant, credential_id: CredentialId) -> Held | None:
        """The credential; None if there is none, or it was an earlier tenant's (attack 38)."""
        return (await self.place(tenant, credential_id))[0]

    async def place(self, tenant: Tenant, credential_id: CredentialId) -> Place:
        """As `read`, and the version to write over, whosever it is."""
        document = await self._documents.read(f"{tenant.id}/{credential_id}")
        if document is None or document.data.get("tenant_uid") != tenant.uid:
            return None, 0 if document is None else document.version
        credential = codec.load(Credential, document.data.get("record"))
        if (credential.tenant, credential.id) != (tenant.id, credential_id):
            raise codec.RecordMalformed("Credential")
        held = Held(replace(credential, version=document.version), str(document.data.get("ciphertext", "")))
        return held, document.version

    async def open(self, tenant: Tenant, held: Held) -> Material:
        """The material. Raises: MaterialLost."""
        if not held.ciphertext:
            raise MaterialLost
        try:
            plaintext = await self._unsealed(tenant, held)
        except Undecipherable:
            # Since it was read, the tenant's key may have been rotated and its old version ended: read again, once.
            current = await self.read(tenant, held.credential.id)
            if current is None or current.ciphertext in ("", held.ciphertext):
                raise MaterialLost from None
            try:
                plaintext = await self._unsealed(tenant, current)
            except Undecipherable:
                raise MaterialLost from None
        material = parse_material(plaintext)
        if material.integration != held.credential.integration:
            raise MaterialLost
        return material

    async def _unsealed(self, tenant: Tenant, held: Held) -> bytes:
        try:
            return await self._ciphers.decrypt(tenant.id, binding(tenant, held.credential.id), held.ciphertext)
        except KeyMissing:
            raise MaterialLost from None

    async def seal(self, tenant: Tenant, credential_id: CredentialId, material: Material) -> str:
        """Ciphertext for `write`. Raises: KeyMissing if the tenant was deleted meanwhile."""
        return await self._ciphers.encrypt(tenant.id, binding(tenant, credential_id), serialise_material(material))

    async def write(self, tenant: Tenant, held: Held, *, forget: bool = False) -> Held:
        """Write over the version that `held.credential.version` names; `forget` all that came before. Raises: Conflict."""
        credential = replace(held.credential, update_time=self._clock.now())
        data: Json = {"tenant_uid": tenant.uid, "record": codec.dump(credential), "ciphertext": held.ciphertext}
        write = self._documents.replace if forget else self._documents.write
        version = await write(f"{tenant.id}/{credential.id}", data, cas=credential.version)
        return Held(replace(credential, version=version), held.ciphertext)

    async def data_key(self, tenant: Tenant, credential_id: CredentialId) -> DataKey:
        """A key to seal this credential's next material with while the Vault is away. Raises: KeyMissing."""
        return await self._ciphers.data_key(tenant.id, binding(tenant, credential_id))

    async def unwrap(self, tenant: Tenant, credential_id: CredentialId, wrapped: str) -> bytes:
        """The data key again. Raises: MaterialLost (the tenant's key is gone, or it is not of this credential)."""
        try:
            return await self._ciphers.decrypt(tenant.id, binding(tenant, credential_id), wrapped)
        except (KeyMissing, Undecipherable):
            raise MaterialLost from None

    async def list(
        self, tenant: Tenant, *, after: str, limit: int, only: Collection[CredentialId] | None = None
    ) -> HeldPage:
        """A page of the tenant's credentials, without material. `only`: no other is read, or named by `next`."""
        if only is None:
            page = await self._documents.list(tenant.id, after=after, limit=limit)
        else:
            names = sorted(name for name in only if name > after)
            page = DocumentPage(tuple(names[:limit]), len(names) > limit)
        found = [await self.read(tenant, CredentialId(name)) for name in page.names]
        return HeldPage([held.credential for held in found if held], page.names[-1] if page.more and page.names else "")

    async def names(self, tenant: Tenant) -> Sequence[CredentialId]:
        """Some of the names under the tenant, whoever's: for purging until none is left."""
        return [CredentialId(name) for name in (await self._documents.list(tenant.id)).names]

    async def all_names(self, tenant: Tenant) -> Sequence[CredentialId]:
        """All names under the tenant, whoever's."""
        return [CredentialId(name) async for names in pages(self._documents, tenant.id) for name in names]

    async def count(self, tenant: Tenant) -> int:
        """How many names there are under the tenant, whoever's."""
        return await count(self._documents, tenant.id)

    async def purge(self, tenant: Tenant, credential_id: CredentialId) -> None:
        """Remove every version."""
        await self._documents.purge(f"{tenant.id}/{credential_id}")


def binding(tenant: Tenant, credential_id: CredentialId) -> bytes:
    """The context of the credential's ciphertext: for another tenant, uid or credential it does not open."""
    return f"{tenant.uid}/{credential_id}".encode()


def serialise_material(material: Material) -> bytes:
    """Material as plaintext, on its way to be sealed and nowhere else."""
    refresh_token, inputs = material.refresh_token, material.inputs
    return json.dumps(
        {
            "integration": material.integration,
            "fields": {name: value.reveal() for name, value in material.fields.items()},
            "hosts": material.hosts,
            "refresh_token": None if refresh_token is None else refresh_token.reveal(),
            "token_type": material.token_type,
            "inputs": None if inputs is None else {name: value.reveal() for name, value in inputs.items()},
            "values": {name: value.reveal() for name, value in material.values.items()},
        }
    ).encode()


def parse_material(plaintext: bytes) -> Material:
    """Material from what was unsealed. Raises: MaterialLost."""
    try:
        data = json.loads(plaintext)
        refresh_token, inputs = data["refresh_token"], data.get("inputs")
        return Material(
            integration=IntegrationId(data["integration"]),
            fields={str(name): Secret(str(value)) for name, value in data["fields"].items()},
            hosts=tuple(str(host) for host in data["hosts"]),
            refresh_token=None if refresh_token is None else Secret(str(refresh_token)),
            token_type=str(data["token_type"]),
            inputs=None if inputs is None else {str(name): Secret(str(value)) for name, value in inputs.items()},
            values={str(name): Secret(str(value)) for name, value in data.get("values", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MaterialLost from None
