"""Records as JSON documents and back. What comes from the Vault is checked against the record's types, never trusted."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from connectors_grpc.ports import Json

Record = TypeVar("Record")


class RecordMalformed(Exception):
    """A stored document is not the record that it should be. `args[0]` names the type, never a value."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(record: object) -> Json:
    """A dataclass as JSON values. Records with secrets have no way through here: `Secret` is refused."""
    return cast(Json, _adapter(cast(Hashable, type(record))).dump_python(record, mode="json"))


def load(kind: type[Record], data: object) -> Record:
    """The record. Raises: RecordMalformed."""
    try:
        return cast(Record, _adapter(cast(Hashable, kind)).validate_python(data))
    except ValidationError:
        raise RecordMalformed(kind.__name__) from None
