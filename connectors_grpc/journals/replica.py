"""The change feed of a replica among others: `ports.Changes` over documents that all replicas read.

A change is told to this process at once, and to the others through this replica's journal: written at once or half a second
after the write before, read by the others once a second. So it is everywhere in about two seconds, and what could keep it
from there is noticed as a gap (see follower): after which every cache is emptied and every sidecar leases again.

Beside its changes a journal says how things stand with holds (`ports.Replicas`); while this replica says something of them it
awaits others' answers, and reads five times as often.

Cost to the Vault, a replica: a second, one list and a read of each other journal (of the living, and of the last minute's dead);
one write of its own while there are others, one in 20 s while there are none, and at most two a second while things change.
Names are random, one for each life of a process: nothing is to be configured, and a restart can't be taken for its forerunner.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from connectors_grpc import codec, logs
from connectors_grpc.changes import ChangeFeed, Subscription
from connectors_grpc.errors import ConnectorsError
from connectors_grpc.journals.follower import Follower, News, Sighting
from connectors_grpc.journals.journal import Journal, Page
from connectors_grpc.ports import NOTHING, Change, Documents, Said
from connectors_grpc.several import several

FOLDER: Final = "changes"
MOST_JOURNALS: Final = 256
REFUSED_AFTER: Final = 6
"""Failed writes in a row, while the journals can be read, after which it is this page that the Vault does not take."""
log = logs.get("changes")


@dataclass(frozen=True, slots=True)
class Pace:
    """How often.  Units: seconds. `beat` at the latest where others listen, `alone` where nobody does; `soon` between two
    readings while an answer is awaited.

    Bounds: `beat` <= `poll`, or the others take this replica for dead; `alone` well below 60 polls, or they sweep its journal.
    """

    poll: float = 1.0
    soon: float = 0.2
    gap: float = 0.5
    beat: float = 1.0
    alone: float = 20.0
    deadline: float = 2.0
    longest_pause: float = 2.0


class JournaledChanges:
    """`Changes` and `Replicas` for one replica of several. As an async context manager it owns the two tasks that write and read.

    One event loop's. What is published before it is entered or while the Vault is away is written when it can be.
    """

    def __init__(self, documents: Documents, feed: ChangeFeed | None = None, *, pace: Pace | None = None) -> None:
        self._documents = documents
        self._feed = feed or ChangeFeed()
        self._pace = pace or Pace()
        self._name = secrets.token_hex(16)
        self._journal = Journal()
        self._follower = Follower()
        self._due = asyncio.Event()
        self._awaiting = asyncio.Event()
        self._heard: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._failing: set[str] = set()

    @property
    def name(self) -> str:
        """Of this life: its journal is `changes/{name}`."""
        return self._name

    def publish(self, change: Change) -> None:
        """See ports.Changes: this process hears it now, the others soon."""
        self._journal.add(change)
        self._due.set()
        self._feed.publish(change)

    def subscribe(self) -> Subscription:
        """See ports.Changes."""
        return self._feed.subscribe()

    def hears(self) -> bool:
        """See ports.Changes."""
        return self._follower.hears

    def on_change(self, forget: Callable[[Change | None], None]) -> None:
        """See ChangeFeed."""
        self._feed.on_change(forget)

    def others(self) -> Mapping[str, Said]:
        """See ports.Replicas."""
        return self._follower.others

    def say(self, said: Said) -> None:
        """See ports.Replicas."""
        if said == self._journal.said:
            return
        self._journal.said = said
        self._due.set()
        if said == NOTHING:
            self._awaiting.clear()
        else:
            self._awaiting.set()

    def on_heard(self, heard: Callable[[], None]) -> None:
        """See ports.Replicas."""
        self._heard.append(heard)

    async def __aenter__(self) -> Self:
        # Before anything is served: a replica that was never heard of can't be missed when it is killed. Then the first
        # reading, whose gap meets no subscriber yet.
        await self._attempt("write", self._write)
        await self._attempt("read", self._poll)
        self._tasks = [
            asyncio.create_task(self._keep_writing(), name="changes-write"),
            asyncio.create_task(self._keep_reading(), name="changes-read"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The last words, so that nobody takes an orderly end for a death.
        await self._attempt("write", lambda: self._write(ended=True))

    async def _keep_writing(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(self._pace.gap)
            beat = self._pace.beat if self._follower.accompanied else self._pace.alone
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(beat - self._pace.gap, 0)):
                    await self._due.wait()
            failures = 0 if await self._attempt("write", self._write) else failures + 1
            if failures == REFUSED_AFTER and "read" not in self._failing:
                # A gap at the others beats silence: they would take this replica for dead, and never hear it again.
                log.error("journal_cut", target=self._name)
                self._journal.cut()
            if failures:
                await asyncio.sleep(min(self._pace.gap * 2.0 ** min(failures - 1, 8), self._pace.longest_pause))

    async def _write(self, *, ended: bool = False) -> None:
        self._due.clear()
        page = self._journal.page(ended=ended)
        # Nobody else writes under this name, so there is nothing to compare with; a journal swept meanwhile comes back.
        try:
            await self._documents.write(f"{FOLDER}/{self._name}", codec.dump(page), cas=None)
        except BaseException:
            self._due.set()
            raise

    async def _keep_reading(self) -> None:
        clock, took = asyncio.get_running_loop().time, 0.0
        while True:
            await self._pause(clock() + max(self._pace.poll - took, self._pace.poll / 10))
            began = clock()
            heard = self._follower.hears
            if not await self._attempt("read", self._poll):
                self._follower.failed()
            if heard and not self._follower.hears:
                # Wakes who relies on being told, to learn that they can't.
                self._feed.resync()
            took = clock() - began

    async def _pause(self, until: float) -> None:
        """Wait for the next regular reading. While answers are awaited there are some in between."""
        clock = asyncio.get_running_loop().time
        while (left := until - clock()) > 0:
            if self._awaiting.is_set():
                await asyncio.sleep(min(left, self._pace.soon))
                if clock() < until:
                    await self._attempt("read", lambda: self._poll(between=True))
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._awaiting.wait()

    async def _poll(self, *, between: bool = False) -> None:
        listed = await self._documents.list(FOLDER, limit=MOST_JOURNALS)
        others = [name for name in listed.names if name != self._name]
        # Several at once: after a night of restarts there are many, and a poll has a deadline.
        found = zip(others, await several(self._sight, others), strict=True)
        sightings = {name: sighting for name, sighting in found if sighting is not None}
        news = self._follower.take(sightings, between=between)
        if listed.more:
            log.error("journals_too_many", target=FOLDER)
        await self._act(replace(news, gap=news.gap or listed.more))

    async def _sight(self, name: str) -> Sighting | None:
        document = await self._documents.read(f"{FOLDER}/{name}")
        if document is None:
            return None
        try:
            return Sighting(document.version, codec.load(Page, document.data))
        except codec.RecordMalformed:
            log.error("journal_malformed", target=name, version=document.version)  # noqa: TRY400 - names, not texts
            return Sighting(document.version, None)

    async def _act(self, news: News) -> None:
        # An empty change is of a kind that a later release added: it may be anything.
        if news.gap or Change() in news.changes:
            if self._tasks:
                log.info("changes_gap")
            self._feed.resync()
        else:
            for change in news.changes:
                self._feed.publish(change)
        for heard in self._heard:
            heard()
        if news.joined:
            self._due.set()
        for name in news.sweep:
            await self._documents.purge(f"{FOLDER}/{name}")

    async def _attempt(self, what: str, step: Callable[[], Awaitable[None]]) -> bool:
        """Do it within the deadline; False if the Vault is away. A bug of ours must end neither task for good."""
        try:
            async with asyncio.timeout(self._pace.deadline):
                await step()
        except (ConnectorsError, TimeoutError) as error:
            if what not in self._failing:
                self._failing.add(what)
                log.warning("changes_waiting", action=what, error=type(error).__name__)
            return False
        except Exception as error:
            log.error("changes_failed", action=what, error=type(error).__name__)  # noqa: TRY400 - its text may quote
            self._feed.resync()
            return False
        self._failing.discard(what)
        return True
