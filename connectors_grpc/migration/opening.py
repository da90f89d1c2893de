"""A migration made ready: logged in to the old Vault, the journal locked, and all that there is found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from connectors_grpc.migration.journal import Journal
from connectors_grpc.migration.planning import found
from connectors_grpc.migration.server import NewSide
from connectors_grpc.migration.work import Migration, Options
from connectors_grpc.vault import VaultSettings, connect
from connectors_grpc.vault.old_layout import locate


@dataclass(frozen=True, slots=True)
class Source:
    """Where the old records lie. `fresh`: the server has another Vault."""

    vault: VaultSettings
    path: str
    transit: str = "transit"
    fresh: bool = False

    @property
    def name(self) -> str:
        """What tells this source from another, in request ids and in the journal."""
        address = self.vault.address or f"unix://{self.vault.socket_path}"
        return "/".join(part.strip("/") for part in (address, self.vault.namespace, self.path) if part)


@asynccontextmanager
async def opened(
    source: Source, new: NewSide, journal: Path, names: Mapping[str, str], options: Options
) -> AsyncIterator[Migration]:
    """The migration, for a block. `names`: new ids of old tenants.

    Raises: VaultMisconfigured, VaultUnavailable, OldVaultRefuses, JournalUnusable, CallFailed.
    """
    async with connect(source.vault) as vault:
        old = await locate(vault, source.path, source.transit)
        with Journal(journal, source.name) as kept:
            items = await found(old, new, kept, names, options, fresh=source.fresh)
            yield Migration(old, new, kept, items, options, lambda _: None)
