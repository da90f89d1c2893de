"""Single calls to a Vault with one token, for an operator's rare work. Knows no path and no meaning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.secret import Secret
from connectors_grpc.vault import VaultSettings
from connectors_grpc.vault.adapter import AsyncAdapter, Reply, silence

OK: Final = 200
NO_CONTENT: Final = 204
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
_WORDS: Final = 200


class ProvisioningFailed(Exception):
    """It can't go on; `fix` says what to do. Neither text holds a secret."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix


class Operator:
    """A Vault, and what one token may do there."""

    def __init__(self, adapter: AsyncAdapter, timeout: float) -> None:
        self._adapter = adapter
        self._timeout = timeout

    def shows(self, token: str) -> None:
        """Show this token from now on; none if it is empty."""
        self._adapter.token = token or None

    async def call(self, method: str, path: str, body: object = None) -> Reply:
        """One call, whatever is answered.  Raises: ProvisioningFailed if nothing is."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._adapter.request(method, f"/v1/{path}", json=body)
        except (VaultUnavailable, TimeoutError):
            raise ProvisioningFailed(
                "The Vault can't be reached.", "Look at --vault-addr, --vault-ca-file, and whether it runs."
            ) from None

    async def read(self, path: str) -> Mapping[str, Any] | None:
        """What stands there, None for nothing.  Raises: ProvisioningFailed."""
        reply = await self.call("GET", path)
        if reply.status == NOT_FOUND:
            return None
        data = self.granted(reply, "read", path).field("data")
        return data if isinstance(data, dict) else {}

    async def write(self, path: str, data: object) -> Reply:
        """Write it.  Raises: ProvisioningFailed."""
        return self.granted(await self.call("POST", path, data), "write", path)

    @staticmethod
    def granted(reply: Reply, verb: str, path: str) -> Reply:
        """The answer, if it is one.  Raises: ProvisioningFailed."""
        if reply.status in (OK, NO_CONTENT):
            return reply
        if reply.status == FORBIDDEN:
            raise ProvisioningFailed(
                f"The token may not {verb} {path}.", "Use one that may write sys/mounts, sys/auth and sys/policies."
            )
        said = reply.errors()[:_WORDS] if reply.status < 500 else f"status {reply.status}"
        raise ProvisioningFailed(f"The Vault refuses to {verb} {path}: {said}", "Mend that, and run it again.")


@asynccontextmanager
async def operator(settings: VaultSettings, token: Secret | None) -> AsyncIterator[Operator]:
    """A Vault for a block. The token is the operator's own: it is used, and not ended."""
    silence()
    adapter = AsyncAdapter(settings)
    try:
        found = Operator(adapter, settings.timeout)
        if token is not None:
            found.shows(token.reveal())
        yield found
    finally:
        adapter.token = None
        await adapter.aclose()
