"""The state file: the book and the notes as JSON, so that tokens and notes survive a restart.

It holds digests of tokens, never tokens. Written whole, to a file beside it that then takes its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from connectors_grpc.simulator.book import AccessToken, Book, Code, Grant, RefreshToken
from connectors_grpc.simulator.notes import Note, Notes

VERSION = 1


class StateFileInvalid(Exception):
    """The state file is not one of ours: move it away to start afresh."""


def save(path: Path, book: Book, notes: Notes) -> None:
    """Write the state so that a reader sees the old or the new one, whole. Raises: OSError."""
    document = {
        "version": VERSION,
        "minted": book.minted,
        "grants": _rows(book.grants),
        "codes": _rows(book.codes),
        "access": _rows(book.access),
        "refresh": _rows(book.refresh),
        "notes": {account: _rows(shelf) for account, shelf in notes.shelves.items()},
        "last_note": notes.last,
    }
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)
    beside.replace(path)


def load(path: Path) -> tuple[Book, Notes]:
    """Read the state back; an empty one where there is no file. Raises: StateFileInvalid, OSError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Book(), Notes()
    except (ValueError, RecursionError):
        raise StateFileInvalid("the state file is not JSON") from None
    try:
        if document["version"] != VERSION:
            raise StateFileInvalid("the state file is of another version")
        book = Book(
            grants=_table(document["grants"], Grant),
            codes=_table(document["codes"], Code),
            access=_table(document["access"], AccessToken),
            refresh=_table(document["refresh"], RefreshToken),
            minted=int(document["minted"]),
        )
        shelves = {account: _table(rows, Note) for account, rows in document["notes"].items()}
        return book, Notes(shelves, int(document["last_note"]))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise StateFileInvalid("the state file lacks something, or has it in another shape") from None


def _rows(table: dict[Any, Any]) -> dict[str, object]:
    return {key: asdict(entry) for key, entry in table.items()}


def _table(rows: dict[str, dict[str, Any]], kind: Callable[..., Any]) -> dict[Any, Any]:
    return {key: kind(**row) for key, row in rows.items()}
