"""How a secret comes in: from a file, from stdin, from the environment, from a prompt without echo. Never as an argument.

And how one goes out: to a new file that only its owner can read, or to stdout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from connectors_grpc.secret import Secret

MOST = 16 * 1024


def read_secret(source: str | None, *, prompt: str, variable: str = "", option: str = "--secret-file") -> Secret:
    """A secret from `source` (a path, or `-` for stdin), else from `variable`, else from a prompt.

    Bounds: 16 KiB, one line's end at its end is dropped.  Raises: UsageError, never with any of it.
    """
    if source is not None:
        return _from_bytes(_read(source, option), option)
    if variable and (value := os.environ.get(variable)):
        return Secret(value)
    if not sys.stdin.isatty():
        also = f", or set {variable}" if variable else ""
        raise click.UsageError(f"The secret is wanted: give {option} FILE, or {option} - to read it from stdin{also}.")
    return Secret(click.prompt(prompt, hide_input=True, err=True))


def _read(source: str, option: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read(MOST + 1)
    try:
        with Path(source).expanduser().open("rb") as stream:
            return stream.read(MOST + 1)
    except OSError as error:
        # Not the path: who mistakes the option writes the secret itself here.
        raise click.UsageError(f"{option}: the file can't be read: {error.strerror}.") from None


def _from_bytes(content: bytes, option: str) -> Secret:
    if len(content) > MOST:
        raise click.UsageError(f"{option}: at most 16 KiB are taken.")
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError(f"{option}: text is wanted.") from None
    if not text:
        raise click.UsageError(f"{option}: it is empty.")
    return Secret(text)


class NewPrivateFile:
    """A file that must not exist yet, made 0600 before the secret for it is asked for, so that it can't fail afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise click.UsageError(f"{path} exists already: remove it, or choose another file.") from None
        except OSError as error:
            raise click.UsageError(f"{path} can't be written: {error.strerror}.") from None
        self._written = False

    def write(self, secret: Secret) -> None:
        """Write the secret and a line's end."""
        os.write(self._fd, secret.reveal().encode() + b"\n")
        os.fsync(self._fd)
        self._written = True

    def close(self) -> None:
        """Close it; a file to which nothing was written is removed."""
        os.close(self._fd)
        if not self._written:
            self.path.unlink(missing_ok=True)
