"""A real OpenBao that the platform brings along: the default Vault, and the one the tests run against.

Depends on nothing else of the platform, so that a supervisor can use it alone.
"""

from connectors_grpc.embedded.api import AppRole
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.layout import StateLayout
from connectors_grpc.embedded.process import EmbeddedSettings
from connectors_grpc.embedded.setup import ROLE, operator_setup, server_policy
from connectors_grpc.embedded.vault import EmbeddedVault
from connectors_grpc.embedded.wayin import read_approle

__all__ = [
    "ROLE",
    "AppRole",
    "EmbeddedSettings",
    "EmbeddedVault",
    "EmbeddedVaultError",
    "StateLayout",
    "operator_setup",
    "read_approle",
    "server_policy",
]
