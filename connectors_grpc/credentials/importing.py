"""Storing what may be there already: an import can be repeated whole, and changes only what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from connectors_grpc import policy
from connectors_grpc.codec import RecordMalformed
from connectors_grpc.credentials.answer import fingerprint
from connectors_grpc.credentials.checks import is_staged, not_found
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost, Place
from connectors_grpc.credentials.managing import Managing
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.domain.definition import Integration
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import ApiKey, Credential, CredentialState, Material, Role, Tenant
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.hosts import sealed_hosts
from connectors_grpc.ports import Audit


class Likeness(StrEnum):
    """How what is stored relates to what is given."""

    ABSENT = "absent"
    EQUAL = "equal"
    RENEWED = "renewed"
    ENDED = "ended"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One credential to store, of a tailored definition. Holds secrets. `version` other than 0 must be the current one.

    `staged`: switched off, over nothing but what is staged itself; `compare_only`: not stored at all.
    """

    tenant: Tenant
    integration: Integration
    credential: CredentialId
    new: NewMaterial
    labels: Mapping[str, str]
    version: int = 0
    staged: bool = False
    compare_only: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """A credential as it now stands. `unchanged`: its material was there already; `renewed`: or what came of it.

    `ended`: it was, and is of no use any more: a provider refused it, or it expired.
    """

    credential: Credential
    unchanged: bool
    renewed: bool = False
    ended: bool = False


class Importing:
    """The use case of imports."""

    def __init__(self, managing: Managing, keeper: Keeper, audit: Audit) -> None:
        self._managing = managing
        self._keeper = keeper
        self._audit = audit

    async def store(self, caller: ApiKey, wanted: Wanted) -> Imported:
        """Store the material unless it is there; labels are brought up to what is given in any case.

        What has been renewed since from the very refresh token that is given counts as there: that token may be dead by now,
        and the one that replaced it is the only good one. What is staged, or only compared, is an admin's to ask for.
        Raises: what Managing.store raises, PERMISSION_DENIED, CREDENTIAL_NOT_FOUND (nothing to compare with).
        """
        if (wanted.staged or wanted.compare_only) and Role.ADMIN not in caller.roles:
            raise policy.denied()
        place = await self._place(wanted)
        held = None if place is None else place[0]
        likeness = Likeness.ABSENT if held is None else await self._likeness(held, wanted)
        if wanted.compare_only:
            return self._compared(caller, wanted, held, likeness)
        if held is None or likeness in (Likeness.DIFFERENT, Likeness.ENDED):
            return Imported(await self._managing.store(
                wanted.tenant, wanted.integration, wanted.credential, wanted.new, caller=caller.id,
                labels=wanted.labels, roles=caller.roles, version=wanted.version, staged=wanted.staged, place=place,
            ), unchanged=False)  # fmt: skip
        there = held.credential
        if wanted.version not in (0, there.version):
            raise ConnectorsError(Reason.CONFLICT)
        live = wanted.staged and not is_staged(there)
        labels = policy.labels_after(caller.roles, wanted.labels, there.labels, "labels")
        if wanted.labels and labels != dict(there.labels) and not live:
            there = await self._managing.update(
                caller, wanted.tenant.id, there.id, version=there.version, labels=labels, enabled=None
            )
        return Imported(there, unchanged=True, renewed=likeness is Likeness.RENEWED)

    def _compared(self, caller: ApiKey, wanted: Wanted, held: Held | None, likeness: Likeness) -> Imported:
        """The answer to a comparison. It could be asked again and again to guess at a secret: the audit shows each."""
        self._audit.record(
            "CompareCredential",
            caller=caller.id,
            tenant=wanted.tenant.id,
            target=wanted.credential,
            generation=held.credential.generation if held else 0,
            result=likeness,
        )
        if held is None:
            raise not_found(wanted.tenant.id, wanted.credential)
        return Imported(
            held.credential,
            likeness in (Likeness.EQUAL, Likeness.RENEWED),
            likeness is Likeness.RENEWED,
            likeness is Likeness.ENDED,
        )

    async def _place(self, wanted: Wanted) -> Place | None:
        try:
            return await self._keeper.place(wanted.tenant, wanted.credential)
        except RecordMalformed:
            return None  # Managing.store says what is to be said of it

    async def _likeness(self, held: Held, wanted: Wanted) -> Likeness:
        there, new = held.credential, wanted.new
        if (there.kind, there.integration) != (new.kind, wanted.integration.id):
            return Likeness.DIFFERENT
        try:
            material = await self._keeper.open(wanted.tenant, held)
        except MaterialLost:
            return Likeness.DIFFERENT
        equal = _is_same(there, material, wanted)
        if not equal and not _renewed_since(there, material, new):
            return Likeness.DIFFERENT
        if there.state is not CredentialState.ACTIVE:
            return Likeness.ENDED
        return Likeness.EQUAL if equal else Likeness.RENEWED


def _renewed_since(there: Credential, material: Material, new: NewMaterial) -> bool:
    """Whether the material descends from the refresh token that is given, and is no longer what was stored with it."""
    if new.refresh_token is None or there.refresh_time is None:
        return False
    return there.origin == fingerprint(new.refresh_token) and bool(material.refresh_token)


def _is_same(there: Credential, material: Material, wanted: Wanted) -> bool:
    """Whether storing would change nothing: material, hosts, and what is given of scopes and end."""
    new, api = wanted.new, wanted.integration.api
    if api is None or material.hosts != sealed_hosts(api) or material.refresh_token != new.refresh_token:
        return False
    if dict(material.values) != dict(new.values):
        return False
    if new.inputs is not None:
        named = dict(new.inputs).items() <= dict(material.inputs or {}).items()
        return named and new.requested_scopes in ((), there.requested_scopes)
    return (
        material.inputs is None
        and dict(material.fields) == dict(new.fields)
        and new.scopes in ((), there.granted_scopes)
        and _ends_alike(new.expire_time, there.expire_time)
    )


def _ends_alike(given: datetime | None, there: datetime | None) -> bool:
    """Whether nothing is said of the end, or the same but for parts of a second, which others may not have kept."""
    return given is None or (there is not None and abs(given - there) < timedelta(seconds=1))
