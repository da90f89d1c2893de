"""What a definition may say: the one set of rules for the catalogue's files and for what admins create. Pure.

Every rule answers with the field, as the contract names it, and what is wanted there; never with the value.
"""

from __future__ import annotations

from collections.abc import Iterator

from connectors_grpc.errors import FieldViolation

Violations = Iterator[FieldViolation]
