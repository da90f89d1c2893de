"""Identifiers, parsed once at the door by a closed grammar: no other text ever becomes part of a Vault path or a URL."""

from __future__ import annotations

import re
from typing import NewType

TenantId = NewType("TenantId", str)
TenantUid = NewType("TenantUid", str)
IntegrationId = NewType("IntegrationId", str)
CredentialId = NewType("CredentialId", str)
KeyId = NewType("KeyId", str)
OperationId = NewType("OperationId", str)

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A lower-case DNS label, 1 to 63 characters.  Source: RFC 1123 section 2.1."""


def is_label(text: str) -> bool:
    """Whether `text` is a lower-case DNS label, the one grammar of every identifier."""
    return LABEL.fullmatch(text) is not None
