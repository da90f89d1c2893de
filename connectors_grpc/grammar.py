"""Which paths, key names and JSON the stores take: a closed grammar, checked once more right before a URL is built."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Final

from connectors_grpc.ports import Json, Sealed

SEGMENT: Final = re.compile(r"(?!\.{1,2}\Z)[a-z0-9._-]{1,128}")
"""One segment of a path, or the name of a key. `.` and `..` are taken out: servers clean them away."""

MAX_DEPTH: Final = 8
MAX_DOCUMENT: Final = 512 * 1024
MAX_PLAINTEXT: Final = 64 * 1024
MAX_BATCH: Final = 100
MAX_BATCH_SIZE: Final = 512 * 1024
MAX_INTEGER: Final = 2**53
"""Whole numbers above this come back rounded: the Vault keeps numbers as doubles.  Source: RFC 8259 section 6."""

SEALED: Final = re.compile(r"vault:v([1-9][0-9]{0,8}):")
"""How every ciphertext begins: with the version of the key that sealed it."""


def check_path(path: str) -> str:
    """`path` itself, a folder and a name or deeper.  Raises: ValueError: it never came through the door."""
    if path.count("/") < 1:
        raise ValueError("a document's path has a folder and a name")
    return check_folder(path)


def check_folder(folder: str) -> str:
    """`folder` itself, of one segment or more.  Raises: ValueError."""
    segments = folder.split("/")
    if len(segments) > MAX_DEPTH or not all(SEGMENT.fullmatch(segment) for segment in segments):
        raise ValueError("a path has segments of [a-z0-9._-]{1,128}")
    return folder


def check_name(name: str) -> str:
    """`name` itself, one segment.  Raises: ValueError."""
    if not SEGMENT.fullmatch(name):
        raise ValueError("a key's name is [a-z0-9._-]{1,128}")
    return name


def check_cas(cas: int | None) -> None:
    """Versions are not negative.  Raises: ValueError."""
    if cas is not None and cas < 0:
        raise ValueError("a version is not negative")


def check_limit(limit: int) -> None:
    """A page has at least one name.  Raises: ValueError."""
    if limit < 1:
        raise ValueError("a page has at least one name")


def check_data(data: Json) -> None:
    """Whether `data` comes back as it went in.

    Bounds: 512 KiB as JSON; whole numbers up to 2**53 either side; no NaN, no infinity.  Raises: ValueError, TypeError.
    """
    _check_numbers(data)
    if len(json.dumps(data, allow_nan=False)) > MAX_DOCUMENT:
        raise ValueError("a document is at most 512 KiB")


def check_sealing(context: bytes, plaintext: bytes) -> None:
    """A context is never empty, a plaintext at most 64 KiB.  Raises: ValueError."""
    check_context(context)
    if len(plaintext) > MAX_PLAINTEXT:
        raise ValueError("a plaintext is at most 64 KiB")


def check_context(context: bytes) -> None:
    """An empty context binds to nothing.  Raises: ValueError."""
    if not context:
        raise ValueError("a context is not empty")


def check_batch(items: Sequence[Sealed]) -> None:
    """A batch is 1 to 100 items, together up to 512 KiB, none without context.  Raises: ValueError."""
    if not 1 <= len(items) <= MAX_BATCH or sum(len(item.ciphertext) for item in items) > MAX_BATCH_SIZE:
        raise ValueError("a batch is 1 to 100 items and 512 KiB")
    for item in items:
        check_context(item.context)


def sealed_version(ciphertext: str) -> int:
    """The version of the key that sealed it, as it says itself; 0 for what is no ciphertext."""
    found = SEALED.match(ciphertext)
    return int(found[1]) if found else 0


def _check_numbers(value: object) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("a JSON object's names are texts")
            _check_numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_numbers(item)
    elif isinstance(value, int | float) and not (math.isfinite(value) and _is_exact(value)):
        raise ValueError("a number that does not come back exactly")


def _is_exact(value: float) -> bool:
    return not isinstance(value, int) or abs(value) <= MAX_INTEGER
