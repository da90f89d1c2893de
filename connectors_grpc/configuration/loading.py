"""Files into a configuration: the base, its environment's overlay, and the secrets they point to. Remembers what was read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from connectors_grpc.configuration.checking import check
from connectors_grpc.configuration.interpolation import interpolate
from connectors_grpc.configuration.model import Configuration
from connectors_grpc.configuration.overlay import merge
from connectors_grpc.configuration.reading import read
from connectors_grpc.configuration.tree import Invalid, Node, Place, Problem
from connectors_grpc.configuration.watching import Mark, Marks, mark
from connectors_grpc.domain.ids import is_label

MOST_FILE = 64 << 20
MOST_SECRET = 64 << 10


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, every file that went into it as it was when it was read, and what is worth a warning."""

    configuration: Configuration
    files: Marks
    warnings: tuple[str, ...]


def load(path: Path, *, environment: Mapping[str, str], overlay: str = "", literal_secrets: bool = False) -> Loaded:
    """The configuration of `path`, with `NAME.OVERLAY.json` beside it laid over.

    Bounds: 64 MiB a file, 64 KiB a secret.  Raises: Invalid with every problem that there is.
    """
    reader = _Reader(path.parent)
    root = reader.tree(path)
    if overlay:
        root = merge(root, reader.tree(overlay_path(path, overlay)))
    root, problems = interpolate(root, environment, reader.secret)
    try:
        found = check(root, literal_secrets=literal_secrets)
    except Invalid as error:
        told = {problem.field for problem in problems}
        raise Invalid([*problems, *(problem for problem in error.problems if problem.field not in told)]) from None
    if problems:
        raise Invalid(problems)
    return Loaded(found, reader.files, tuple(reader.open_to_others))


def files_of(path: Path, overlay: str) -> tuple[Path, ...]:
    """The files that are looked at in any case, whatever they hold."""
    return (path, overlay_path(path, overlay)) if overlay else (path,)


def overlay_path(path: Path, overlay: str) -> Path:
    """Where an environment's overlay lies: `tenants.staging.json` beside `tenants.json`. Raises: Invalid."""
    if not is_label(overlay):
        raise Invalid([Problem(Place(str(path), 1, 1), "", "an environment's name is a lower-case DNS label")])
    return path.with_name(f"{path.stem}.{overlay}{path.suffix}")


class _Reader:
    """Reads, and notes what it read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[Path, Mark] = {}
        self.open_to_others: list[str] = []

    def tree(self, path: Path) -> Node:
        """A file's tree. Raises: Invalid."""
        start = Place(str(path), 1, 1)
        try:
            text, mode = self._text(path, MOST_FILE)
        except OSError as error:
            raise Invalid([Problem(start, "", f"it can't be read: {error.strerror}")]) from None
        except ValueError:
            raise Invalid([Problem(start, "", "it is no UTF-8, or larger than 64 MiB")]) from None
        if mode & 0o022:
            self.open_to_others.append(f"{path} can be changed by others: chmod go-w {path}")
        return read(text, str(path))

    def secret(self, name: str) -> str:
        """A secret's text; relative to the configuration's folder. Raises: OSError, ValueError."""
        path = self._folder / Path(name).expanduser()
        text, mode = self._text(path, MOST_SECRET)
        warning = f"{path} can be read by others: chmod 600 {path}"
        if mode & 0o077 and warning not in self.open_to_others:
            self.open_to_others.append(warning)
        return text

    def _text(self, path: Path, most: int) -> tuple[str, int]:
        """A file's text, and its mode."""
        self.files[path] = ()
        with path.open("rb") as stream:
            content, found = stream.read(most + 1), os.fstat(stream.fileno())
        self.files[path] = mark(found)
        if len(content) > most:
            raise ValueError
        return content.decode("utf-8-sig"), stat.S_IMODE(found.st_mode)
