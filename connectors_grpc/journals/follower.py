"""What a replica makes of the others' journals: which changes are new, and when something may have been missed.

Pure: no clock, no loop, no Vault. Time is counted in polls, and only in those that succeeded: while the Vault is away nobody
can be heard, and nothing can change there either. What may have been missed is a gap, and a gap means: take everything for
changed. There is one

- at the first poll, and at the first after a long outage: a whole life may have passed and been swept unseen;
- where a journal's floor is above what was read of it, or its numbers run back (a restored Vault), or it is not understood;
- where a journal stands still: its writer beats every second, so it was killed or cut off, perhaps with a change unwritten;
- where a journal is gone of which more was expected.

What this can't see: a replica that is cut off from its journal (noticed, a gap), comes back to the Vault with another change and
is killed within the two seconds before it writes its journal again. That takes two faults in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from connectors_grpc.journals.journal import Page
from connectors_grpc.ports import NOTHING, Change, Said

SILENT_AFTER: Final = 3
"""Polls without a new version after which a writer is taken for dead. It is heard of at most 5 s after its last change."""
SWEPT_AFTER: Final = 60
"""Polls without a new version after which a journal is removed, by whoever notices."""
DEAF_AFTER: Final = 5
"""Failed polls in a row after which we can't vouch that we are told. Longer than a Vault takes to choose a new leader."""
LOST_AFTER: Final = 20
"""Failed polls in a row after which we begin anew. They may take 2 s each: still well below what it takes to be swept."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A journal as just read. `page` None: what is there is no journal that we understand."""

    version: int
    page: Page | None


@dataclass(frozen=True, slots=True)
class News:
    """What a poll brought. `gap` covers `changes`. `joined`: somebody speaks who did not a poll ago."""

    changes: tuple[Change, ...] = ()
    gap: bool = False
    joined: bool = False
    sweep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    version: int
    last: int
    ended: bool
    said: Said = NOTHING
    still: int = 0

    @property
    def speaks(self) -> bool:
        return not self.ended and self.still < SILENT_AFTER


@dataclass(slots=True)
class _Gathering:
    changes: dict[Change, None] = field(default_factory=dict)
    gap: bool = False
    joined: bool = False
    sweep: list[str] = field(default_factory=list)


class Follower:
    """What was read of each of the other journals."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._began = False
        self._failures = 0

    @property
    def accompanied(self) -> bool:
        """Whether any other replica was heard of lately."""
        return any(known.speaks for known in self._known.values())

    @property
    def others(self) -> Mapping[str, Said]:
        """The other replicas that were heard of lately, and what each says of holds."""
        return {name: known.said for name, known in self._known.items() if known.speaks}

    @property
    def hears(self) -> bool:
        """Whether the journals could be read lately."""
        return self._began and self._failures < DEAF_AFTER

    def take(self, sightings: Mapping[str, Sighting], *, between: bool = False) -> News:
        """Compare all journals that there are with what was read of them before.

        `between`: an extra poll between two regular ones, which counts for no writer's silence.
        """
        found = _Gathering(gap=not self._began)
        self._began, self._failures = True, 0
        for name in [name for name in self._known if name not in sightings]:
            found.gap |= self._known.pop(name).speaks
        for name, sighting in sightings.items():
            known = self._known.get(name)
            if known is not None and known.version == sighting.version:
                self._known[name] = known if between else self._stood_still(name, known, found)
            else:
                self._known[name] = self._moved(known, sighting, found)
        return News(tuple(found.changes), found.gap, found.joined, tuple(found.sweep))

    def failed(self) -> None:
        """A poll did not succeed. After some in a row who speaks has time again: the Vault may have been away for all."""
        self._failures += 1
        if self._failures < SILENT_AFTER:
            return
        self._began &= self._failures < LOST_AFTER
        for name, known in self._known.items():
            if known.speaks:
                self._known[name] = replace(known, still=0)

    @staticmethod
    def _stood_still(name: str, known: _Known, found: _Gathering) -> _Known:
        after = replace(known, still=known.still + 1)
        found.gap |= known.speaks and not after.speaks
        if after.still >= SWEPT_AFTER:
            found.sweep.append(name)
        return after

    @staticmethod
    def _moved(known: _Known | None, sighting: Sighting, found: _Gathering) -> _Known:
        # A journal that was not there at the last poll is read from its beginning.
        read = known.last if known is not None else 0
        page = sighting.page
        if page is None:
            found.gap = True
            return _Known(sighting.version, read, ended=False)
        found.gap |= not page.floor <= read <= page.last
        found.joined |= not page.ended and (known is None or not known.speaks)
        found.changes |= dict.fromkeys(entry.change for entry in page.entries if entry.seq > read)
        return _Known(sighting.version, page.last, page.ended, page.said)
