"""How a token is had: by AppRole, or from a file that somebody else keeps fresh. A root token is refused."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from hvac.api.auth_methods.approle import AppRole

from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.vault.adapter import AsyncAdapter, Reply, malformed
from connectors_grpc.vault.settings import VaultMisconfigured, VaultSettings

OK: Final = 200
_REFUSALS: Final = frozenset((400, 401, 403, 404))
_MAX_FILE: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")
_SELF: Final = "/v1/auth/token/lookup-self"


@dataclass(frozen=True, slots=True)
class Grant:
    """A token and its life. `repr` hides the token.  Units: ttl in seconds, 0 if it has no end."""

    token: str = field(repr=False)
    ttl: float
    renewable: bool
    ours: bool
    """Whether we made it, and so end it when we leave."""


class Login(Protocol):
    """A way to a token."""

    async def __call__(self, adapter: AsyncAdapter) -> Grant:
        """Raises: VaultMisconfigured if it was refused and a person must act; VaultUnavailable."""


def login_of(settings: VaultSettings) -> Login:
    """The way that the settings name."""
    if settings.token_file is not None:
        return TokenFileLogin(settings.token_file)
    assert settings.secret_id_file is not None  # VaultSettings sees to it
    return AppRoleLogin(settings.role_id, settings.secret_id_file)


class AppRoleLogin:
    """Role id and secret id for a token.  Source: the AppRole API, POST auth/approle/login."""

    def __init__(self, role_id: str, secret_id_file: Path) -> None:
        self._role_id = role_id
        self._file = secret_id_file

    async def __call__(self, adapter: AsyncAdapter) -> Grant:
        """Log in."""
        role_id, secret_id = self._parse(await asyncio.to_thread(_read, self._file))
        reply: Reply = await AppRole(adapter).login(role_id, secret_id, use_token=False)
        if reply.status in _REFUSALS:
            raise VaultMisconfigured("The Vault refuses the role id or the secret id.")
        if reply.status != OK:
            raise VaultUnavailable(reply.retry_after)
        auth = reply.field("auth")
        return _grant(reply, auth, reply.text("auth", "client_token"), "lease_duration", ours=True)

    def _parse(self, content: str) -> tuple[str, str]:
        role_id, secret_id = self._role_id, content
        if content.startswith("{"):
            try:
                fields = json.loads(content)
                role_id, secret_id = role_id or str(fields["role_id"]), str(fields["secret_id"])
            except (ValueError, KeyError, RecursionError):
                raise VaultMisconfigured("The Vault's secret id file lacks `role_id` or `secret_id`.") from None
        if not role_id:
            raise VaultMisconfigured("The Vault's role id is missing.")
        if not _TOKEN.fullmatch(secret_id):
            raise VaultMisconfigured("The Vault's secret id file does not hold a secret id.")
        return role_id, secret_id


class TokenFileLogin:
    """A token from a file, looked up before it is used.  Source: the token API, GET auth/token/lookup-self."""

    def __init__(self, token_file: Path) -> None:
        self._file = token_file

    async def __call__(self, adapter: AsyncAdapter) -> Grant:
        """Read the file and look at what it holds."""
        token = await asyncio.to_thread(_read, self._file)
        if not _TOKEN.fullmatch(token):
            raise VaultMisconfigured("The Vault's token file does not hold a token.")
        reply = await look_up(adapter, token)
        if reply.status in _REFUSALS:
            raise VaultMisconfigured("The Vault refuses the token of the token file.")
        if reply.status != OK:
            raise VaultUnavailable(reply.retry_after)
        return _grant(reply, reply.field("data"), token, "ttl", ours=False)


async def look_up(adapter: AsyncAdapter, token: str) -> Reply:
    """What the Vault knows of `token`; 403 if it is no longer one."""
    reply: Reply = await adapter.get(_SELF, headers={"X-Vault-Token": token})
    return reply


def lifetime(reply: Reply, fields: Any, ttl: str) -> tuple[float, bool]:
    """How long a token lives and whether it can be renewed.  Raises: VaultUnavailable."""
    seconds = fields.get(ttl) if isinstance(fields, dict) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        raise malformed(reply)
    return float(seconds), fields.get("renewable") is True


def _grant(reply: Reply, fields: Any, token: str, ttl: str, *, ours: bool) -> Grant:
    seconds, renewable = lifetime(reply, fields, ttl)
    policies = fields.get("policies")
    if not isinstance(policies, list) or not _TOKEN.fullmatch(token):
        raise malformed(reply)
    if "root" in policies or "root" in (fields.get("identity_policies") or ()):
        raise VaultMisconfigured("The Vault's token is a root token: give one that has the server's policy only.")
    return Grant(token, seconds, renewable, ours)


def _read(path: Path) -> str:
    """The text of a small file, stripped."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_FILE).decode("ascii").strip()
    except (OSError, ValueError):
        raise VaultMisconfigured("The Vault's secret id file or token file can't be read.") from None
