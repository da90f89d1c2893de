"""A Vault or OpenBao as the platform's store: `Documents` on a KV v2 mount, `Ciphers` on a transit mount.

Knows the ports and nothing of the use cases. `connect` is the way in.
"""

from connectors_grpc.vault.ciphers import VaultCiphers
from connectors_grpc.vault.client import VaultClient, VaultHealth, connect
from connectors_grpc.vault.documents import VaultDocuments
from connectors_grpc.vault.settings import VaultMisconfigured, VaultSettings

__all__ = [
    "VaultCiphers",
    "VaultClient",
    "VaultDocuments",
    "VaultHealth",
    "VaultMisconfigured",
    "VaultSettings",
    "connect",
]
