"""An operation in the hands of the one process that works at it, and how it stands in `operations/{id}`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

from connectors_grpc import codec
from connectors_grpc.domain.ids import OperationId
from connectors_grpc.domain.operation import Operation
from connectors_grpc.errors import Conflict, VaultUnavailable
from connectors_grpc.ports import Documents

BEAT = 2.0
"""Seconds, at most, between two writes of whoever works at it."""


class Lost(Exception):
    """Another process has taken the operation over: whoever sees this stops."""


class Run:
    """An operation in the hands of the one that works at it."""

    def __init__(self, operation: Operation, documents: Documents) -> None:
        self.operation = operation
        self._documents = documents
        self._owner = operation.owner
        self._turn = asyncio.Lock()

    def note(self, **changes: Any) -> None:
        """Note how far it is, for who asks here; the next beat stores it."""
        self.operation = replace(self.operation, **changes)

    async def save(self, **changes: Any) -> None:
        """Note, and store it. Raises: Lost, VaultUnavailable."""
        self.note(**changes)
        async with self._turn:
            try:
                version = await store(self._documents, self.operation)
            except Conflict:
                # An answer that was lost may have been a yes: then what is there is ours.
                there = await stored(self._documents, self.operation.id)
                if there is None or there.owner != self._owner:
                    raise Lost from None
                self.note(version=there.version)
                version = await self._again()
            self.note(version=version)

    async def _again(self) -> int:
        try:
            return await store(self._documents, self.operation)
        except Conflict:
            raise Lost from None

    async def beat(self) -> None:
        """Store how far it is, again and again. Ends only by being cancelled. Raises: Lost."""
        while True:
            await asyncio.sleep(BEAT)
            with contextlib.suppress(VaultUnavailable):
                await self.save()


async def stored(documents: Documents, operation_id: OperationId) -> Operation | None:
    """How it stands; None for what is no operation, or can't be read."""
    document = await documents.read(f"operations/{operation_id}")
    if document is None:
        return None
    try:
        return replace(codec.load(Operation, document.data), version=document.version)
    except codec.RecordMalformed:
        return None


async def store(documents: Documents, operation: Operation) -> int:
    """Store it over the version that was read; returns the new one. Raises: Conflict."""
    return await documents.write(f"operations/{operation.id}", codec.dump(operation), cas=operation.version)
