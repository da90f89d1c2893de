"""A file that a person wrote, or their stdin: opened, read whole up to a bound, taken for JSON or YAML.

`where` is the option or argument that named it: each complaint begins with it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

MIB = 1 << 20


@contextlib.contextmanager
def opened(path: Path, where: str) -> Iterator[IO[bytes]]:
    """The file, `-` for stdin.  Raises: UsageError."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = path.expanduser().open("rb")
    except OSError as error:
        raise click.UsageError(f"{where}: {path} can't be read: {error.strerror}.") from None
    with stream:
        yield stream


def content_of(path: Path, where: str, *, most: int) -> bytes:
    """All of it.  Units: `most` is MiB.  Raises: UsageError."""
    try:
        with opened(path, where) as stream:
            content = stream.read(most * MIB + 1)
    except OSError as error:
        raise click.UsageError(f"{where}: {path} can't be read: {error.strerror}.") from None
    if len(content) > most * MIB:
        raise click.UsageError(f"{where}: at most {most} MiB is taken.")
    return content


def parsed(content: bytes, where: str, *, lines: bool = False) -> Any:
    """What it says in JSON, with `lines` also one value a line, or else in YAML.  Raises: UsageError, without any of it."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(content)
    if lines:
        with contextlib.suppress(ValueError, RecursionError):
            return [json.loads(line) for line in content.splitlines() if line.strip()]
    try:
        import yaml
    except ModuleNotFoundError:
        raise click.UsageError(f"{where}: it is not JSON; for YAML run: pip install pyyaml") from None
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise click.UsageError(f"{where}: it is neither JSON nor YAML.") from None
