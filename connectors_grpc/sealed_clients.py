"""OAuth clients as they are stored: their secrets under the platform's key, and what may be told of them.

Knows neither definitions' documents nor tenants': whose client it is, the context says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from connectors_grpc import policy
from connectors_grpc.domain.definition import OAuth, OAuthClient
from connectors_grpc.domain.records import ApiKey, Role
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason, Undecipherable, invalid
from connectors_grpc.ports import Audit, Ciphers
from connectors_grpc.rules.clients import needs_secret
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


def refuse(violations: Iterable[FieldViolation]) -> None:
    """Raises: INVALID_FIELD if there are any."""
    found = tuple(FieldViolation(f"integration.{v.field}", v.description) for v in violations)
    if found:
        raise ConnectorsError(Reason.INVALID_FIELD, fields=found)


def refuse_bare(oauth: OAuth | None) -> None:
    """Another client's id without its secret. Raises: INVALID_FIELD if the definition needs one."""
    if needs_secret(oauth):
        text = "needed, unless `client_authentication` is none or the stored client's id stays the same"
        raise invalid("integration.oauth_client.client_secret", text)


def without_secret(client: SealedClient | None) -> OAuthClient | None:
    """What may be shown of it."""
    if client is None:
        return None
    count = client.secrets if client.ciphertext else 0
    return OAuthClient(client.client_id, secret_set=count > 0, key_id=client.key_id, secret_count=count)


def may_compare(caller: ApiKey, validate_only: bool) -> None:
    """Whether a secret is the stored one is for an admin to know. Raises: PERMISSION_DENIED."""
    if validate_only and Role.ADMIN not in caller.roles:
        raise policy.denied()


def record_comparison(audit: Audit, caller: ApiKey, integration_id: str, tenant: str, unchanged: bool) -> None:
    """An answer could be asked for again and again to guess at a secret: the audit shows each."""
    result = "equal" if unchanged else "different"
    audit.record("CompareIntegration", caller=caller.id, tenant=tenant, target=integration_id, result=result)


class ClientSeals:
    """Seals and opens clients. `context` binds a ciphertext to its place: another can't open it."""

    def __init__(self, ciphers: Ciphers) -> None:
        self._ciphers = ciphers

    async def _seal(self, client: OAuthClient, context: str) -> SealedClient:
        if client.secret is None:
            return SealedClient(client.client_id, key_id=client.key_id)
        every = [one.reveal() for one in (client.secret, *client.others)]
        plaintext = (every[0] if len(every) == 1 else json.dumps(every)).encode()
        ciphertext = await self._ciphers.encrypt(PLATFORM_KEY, context.encode(), plaintext)
        return SealedClient(client.client_id, ciphertext, client.key_id, len(every))

    async def sealed(
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
            refuse_bare(oauth)
        return await self._seal(wanted, context)

    async def _is_same(self, wanted: OAuthClient, there: SealedClient, context: str) -> bool:
        if wanted.secret is None or (wanted.client_id, wanted.key_id) != (there.client_id, there.key_id):
            return False
        try:
            held = await self.open(there, context)
        except ConnectorsError:
            return False  # what does not open is replaced
        return (held.secret, held.others) == (wanted.secret, wanted.others)

    async def open(self, client: SealedClient, context: str) -> OAuthClient:
        """With its secrets. Raises: INTEGRATION_NOT_CONFIGURED."""
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
