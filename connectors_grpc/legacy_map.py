"""The file that says which tenant of an older layout is which tenant here. The tool and the server read the same one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from connectors_grpc.domain.ids import is_label

MOST_MAP: Final = 8 << 20


class MapUnusable(Exception):
    """The file of names can't be used; the text says which line, and why."""


def read_map(path: Path) -> dict[str, str]:
    """The file's pairs, `old,new` a line (CSV, a heading `old,new` is skipped).  Bounds: 8 MiB.  Raises: MapUnusable."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_MAP + 1)
        if len(content) > MOST_MAP:
            raise MapUnusable("it is larger than 8 MiB")
        lines = content.decode().splitlines()
    except OSError as error:
        raise MapUnusable(f"it can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MapUnusable("it is not UTF-8") from None
    found: dict[str, str] = {}
    for number, row in enumerate(csv.reader(lines), 1):
        if not row or (number == 1 and row == ["old", "new"]):
            continue
        if len(row) != 2 or not row[0] or not is_label(row[1]):
            raise MapUnusable(
                f"line {number}: an old tenant and a lower-case DNS label are wanted, as in `ACME Corp,acme`"
            )
        if row[0] in found:
            raise MapUnusable(f"line {number}: that old tenant has a line already")
        found[row[0]] = row[1]
    return found
