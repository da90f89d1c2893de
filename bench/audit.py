"""What was asked of an OpenBao, from its audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


def requests(audit: Path, since: int) -> Iterator[tuple[str, str]]:
    """Operation and path of each request that was logged behind that byte."""
    with audit.open("rb") as log:
        log.seek(since)
        for line in log:
            entry = json.loads(line)
            if entry["type"] == "request":
                yield entry["request"]["operation"], entry["request"]["path"]
