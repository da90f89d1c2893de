"""Which records this version understands, and a guard before a store that may hold newer ones. Wraps `Documents`.

The Vault says in one document which number a server must know to read and write its records. A server that knows less refuses to
touch anything: it would misread what is there, or drop what it does not know when it writes. It asks before the first call, and
again now and then, since a newer server may have come beside it.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from connectors_grpc import logs
from connectors_grpc.errors import Conflict, VaultUnavailable
from connectors_grpc.ports import Document, DocumentPage, Documents, Json

SCHEMA: Final = 1
"""Raised whenever an older server must not touch what a newer one writes; docs/compatibility.md says when that is."""

PATH: Final = "schema/current"
log = logs.get("schema")


class SchemaNewer(Exception):
    """The Vault's records need a newer server. The text says which, and what to do."""

    def __init__(self, needed: object, writer: object) -> None:
        super().__init__(
            f"The Vault's records are of schema {needed}, written by version {writer}; this server knows schema {SCHEMA}. "
            "Start that version or a newer one; or restore a backup from before it."
        )


class Guarded:
    """The store, once it is known to be one that we understand.

    Raises, besides what `Documents` raises: SchemaNewer from `check`; VaultUnavailable from all else while the store is too new.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._understood = False
        self._said = ""

    @property
    def understood(self) -> bool:
        """Whether the store was read, and is none that is too new."""
        return self._understood

    async def check(self) -> None:
        """Read the mark; set it where there is none, or an older one.  Raises: SchemaNewer, VaultUnavailable."""
        while True:
            found = await self._documents.read(PATH)
            needed = found.data.get("schema") if found else 0
            if not isinstance(needed, int) or needed > SCHEMA:
                self._understood = False
                error = SchemaNewer(needed, found.data.get("version") if found else None)
                if self._said != str(error):  # once, and not for every call
                    self._said = str(error)
                    log.error("schema_too_new", reason=self._said)
                raise error
            if needed == SCHEMA:
                break
            try:
                mark: Json = {"schema": SCHEMA, "version": version("connectors-grpc")}
                await self._documents.write(PATH, mark, cas=found.version if found else 0)
            except Conflict:
                continue  # another replica was first
            break
        self._understood = True

    async def _open(self) -> Documents:
        if not self._understood:
            try:
                await self.check()
            except SchemaNewer:
                raise VaultUnavailable from None
        return self._documents

    async def read(self, path: str) -> Document | None:
        """As the port says."""
        return await (await self._open()).read(path)

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        """As the port says."""
        return await (await self._open()).write(path, data, cas=cas)

    async def replace(self, path: str, data: Json, *, cas: int) -> int:
        """As the port says."""
        return await (await self._open()).replace(path, data, cas=cas)

    async def purge(self, path: str) -> None:
        """As the port says."""
        await (await self._open()).purge(path)

    async def list(self, folder: str, *, after: str = "", limit: int = 1000) -> DocumentPage:
        """As the port says."""
        return await (await self._open()).list(folder, after=after, limit=limit)
