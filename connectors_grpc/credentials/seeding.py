"""Material that an operator laid into the Vault beside a tenant's credentials: read from its own folder, and no other."""

from __future__ import annotations

from collections.abc import Mapping

from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Tenant
from connectors_grpc.errors import ConnectorsError, invalid
from connectors_grpc.grammar import SEGMENT
from connectors_grpc.ports import Documents
from connectors_grpc.secret import Secret

FIELD = "vault.path"
MOUNT = "secret/data/"


class Seeding:
    """Over the mount that holds the credentials: what the server may read there anyway."""

    def __init__(self, secrets: Documents) -> None:
        self._secrets = secrets

    async def read(self, tenant: Tenant, credential_id: CredentialId, path: str) -> Mapping[str, Secret]:
        """The texts of the document at `path`; of a list of texts, one text with spaces between.

        Another tenant's path is refused before anything is read. Raises: INVALID_FIELD, which says what is wanted.
        """
        folder, _, name = path.removeprefix(MOUNT).partition("/")
        if not path.startswith(MOUNT) or folder != tenant.id or SEGMENT.fullmatch(name) is None:
            raise invalid(FIELD, f"a document of the tenant's own is wanted: {MOUNT}{tenant.id}/NAME")
        if name == credential_id:
            raise invalid(FIELD, "the credential itself is stored there: give the document another name")
        document = await self._secrets.read(f"{tenant.id}/{name}")
        if document is None:
            raise invalid(FIELD, "no document lies there")
        if "tenant_uid" in document.data:
            raise invalid(FIELD, "a credential lies there, which opens for the server's own use only")
        return {key: _text(value) for key, value in document.data.items()}


def _text(value: object) -> Secret:
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return Secret(" ".join(value))
    raise unfit()


def unfit() -> ConnectorsError:
    """The document is no material. Says nothing of what is in it."""
    return invalid(
        FIELD,
        "its document must hold texts, named as one of api_key, basic, oauth or grant names its fields, and no others",
    )
