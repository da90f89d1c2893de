"""Long work and how far it has come: what is stored of it, so that any replica can tell and go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from connectors_grpc.domain.ids import CredentialId, KeyId, OperationId, TenantId, TenantUid


@dataclass(frozen=True, slots=True)
class Deletion:
    """A tenant's deletion."""

    purged: int = 0
    revocations_failed: tuple[CredentialId, ...] = ()
    key_shredded: bool = False
    kind: Literal["delete-tenant"] = "delete-tenant"


@dataclass(frozen=True, slots=True)
class DeletionOf:
    """One tenant of many that are deleted. `error` is a Reason's name: it was refused, and has no uid here then.

    `done`: nothing is left to do.
    """

    tenant: TenantId
    uid: TenantUid | None = None
    deletion: Deletion = Deletion()
    error: str = ""
    done: bool = False


@dataclass(frozen=True, slots=True)
class Deletions:
    """Many tenants' deletions, in the order in which they were asked for."""

    each: tuple[DeletionOf, ...] = ()
    kind: Literal["delete-tenants"] = "delete-tenants"


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key's rotation. `to_version` 0: it has not begun. `unreadable` names up to 100 of `unreadable_count`."""

    kind: Literal["rotate-tenant-key", "rotate-platform-key"]
    from_version: int = 0
    to_version: int = 0
    rewrapped: int = 0
    unreadable_count: int = 0
    unreadable: tuple[str, ...] = ()


Work = Deletion | Deletions | Rotation


@dataclass(frozen=True, slots=True)
class Operation:
    """The document of `operations/{id}`. `owner` is the process that works at it, empty for none; `tenant` is empty where it is
    about the platform; `error` is a Reason's name. `version` is the KV version that was read.
    """

    id: OperationId
    tenant: TenantId
    uid: TenantUid
    caller: KeyId
    work: Work
    create_time: datetime
    owner: str = ""
    step: str = ""
    items_done: int = 0
    items_total: int = 0
    done_time: datetime | None = None
    error: str = ""
    version: int = 0

    @property
    def done(self) -> bool:
        """It has ended, well or not."""
        return self.done_time is not None
