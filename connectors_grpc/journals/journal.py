"""What one replica says of its changes: the document that it writes and the others read. Pure: no clock, no loop, no Vault.

A journal holds each different change once, under the sequence number of its last time: who has read up to some number
needs what stands above it, and what was said twice since is worth saying once. Over the bound the oldest entries go, and
`floor` rises: whoever has not read that far has missed something, and must take everything for changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from connectors_grpc.ports import NOTHING, Change, Said

CAPACITY: Final = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One change and its sequence number, from 1 up."""

    seq: int
    change: Change


@dataclass(frozen=True, slots=True)
class Page:
    """The document of `changes/{replica}`: entries by rising `seq`, all above `floor`, none above `last`.

    `ended`: the replica said goodbye; nothing follows. `said`: no log but how things stand with holds just now.
    Bounds: 512 entries, 512 holds, 512 yielded ones; under 360 KiB as JSON.
    """

    floor: int
    last: int
    ended: bool
    entries: tuple[Entry, ...]
    said: Said = NOTHING


class Journal:
    """A replica's changes, newest kept. Numbers stay below 2**53 for 285 years of a million changes a second."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError("a journal holds at least one change")
        self._capacity = capacity
        self._seqs: dict[Change, int] = {}
        self._floor = 0
        self._last = 0
        self.said = NOTHING

    def add(self, change: Change) -> None:
        """Say it, for the first time or again."""
        self._last += 1
        self._seqs.pop(change, None)
        self._seqs[change] = self._last
        if len(self._seqs) > self._capacity:
            self._floor = self._seqs.pop(next(iter(self._seqs)))

    def cut(self) -> None:
        """Leave out all that was said so far: whoever has not read it has missed something."""
        self._floor = self._last
        self._seqs.clear()

    def page(self, *, ended: bool = False) -> Page:
        """All that is to be written now."""
        entries = tuple(Entry(seq, change) for change, seq in self._seqs.items())
        return Page(self._floor, self._last, ended, entries, NOTHING if ended else self.said)
