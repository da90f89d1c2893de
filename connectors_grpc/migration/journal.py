"""How far each credential has come: one JSON object a line, appended and flushed to the disk before the next step is taken.

It holds names, versions and times, and no secret. It is a memory, not the truth: what is stored is compared anew at each step,
so that a journal that was lost, or that lacks the last lines of a killed run, costs time and nothing else. One process writes it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from connectors_grpc.migration.items import Item

FORMAT: Final = 1
MOST: Final = 1 << 30


class JournalUnusable(Exception):
    """The journal is another migration's, another process's, or no journal; the text says which."""


class Step(StrEnum):
    """How far a credential is.

    PRESENT: the very same was there before, put there by somebody else. GIVEN_BACK: newer tokens lie in the old record again.
    """

    WRITTEN = "written"
    VERIFIED = "verified"
    PRESENT = "present"
    CUT_OVER = "cut over"
    GIVEN_BACK = "given back"
    ROLLED_BACK = "rolled back"
    FINISHING = "finishing"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Mark:
    """A credential's last step. `generation` is the new layout's, as this migration stored or found it."""

    step: Step
    generation: int = 0


class Journal:
    """The marks of one migration. A context manager: the file is locked meanwhile."""

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self._source = source
        self._marks: dict[tuple[str, str, str], Mark] = {}
        self._file = -1

    def __enter__(self) -> Self:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise JournalUnusable(f"Another process uses the journal {self.path}.") from None
        try:
            self._read()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it up."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def of(self, item: Item) -> Mark | None:
        """The item's last mark."""
        return self._marks.get((item.old_tenant, item.integration, item.tenant))

    def step(self, item: Item) -> Step | None:
        """The item's last step."""
        mark = self.of(item)
        return mark.step if mark else None

    def items(self) -> list[Item]:
        """Every item that has a mark."""
        return [Item(*key) for key in self._marks]

    def note(self, items: Iterable[Item], step: Step, generations: Mapping[Item, int] | None = None) -> None:
        """Mark the items durably: they are on the disk when this returns."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lines = []
        for item in items:
            before = self.of(item)
            generation = (generations or {}).get(item) or (before.generation if before else 0)
            self._marks[item.old_tenant, item.integration, item.tenant] = Mark(step, generation)
            names = {"old": item.old_tenant, "integration": item.integration, "tenant": item.tenant}
            lines.append({**names, "step": step.value, "generation": generation, "time": now})
        if lines:
            self._append(lines)

    def _append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
        rest = text.encode()
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)

    def _read(self) -> None:
        size = os.fstat(self._file).st_size
        if size > MOST:
            raise JournalUnusable(f"The journal {self.path} is larger than 1 GiB.")
        content = os.pread(self._file, size, 0)
        # A killed run may have left half a line: it was not flushed, so nothing was built upon it.
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.ftruncate(self._file, len(whole))
        head, *lines = whole.splitlines() or [b""]
        if not head:
            self._append([{"journal": FORMAT, "source": self._source}])
            return
        try:
            if json.loads(head) != {"journal": FORMAT, "source": self._source}:
                raise JournalUnusable(
                    f"The journal {self.path} is of a migration from elsewhere: give another one by --journal."
                )
            for line in lines:
                found = json.loads(line)
                mark = Mark(Step(found["step"]), int(found["generation"]))
                self._marks[str(found["old"]), str(found["integration"]), str(found["tenant"])] = mark
        except (ValueError, KeyError, TypeError):
            raise JournalUnusable(f"{self.path} is no journal of a migration.") from None
