"""Journals without I/O: what a writer keeps, what a follower makes of it, and that between them nothing is lost."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from connectors_grpc import codec
from connectors_grpc.credentials.holding import MOST
from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId, TenantUid
from connectors_grpc.grammar import MAX_DOCUMENT, check_data
from connectors_grpc.journals.follower import (
    DEAF_AFTER,
    LOST_AFTER,
    SILENT_AFTER,
    SWEPT_AFTER,
    Follower,
    News,
    Sighting,
)
from connectors_grpc.journals.journal import CAPACITY, Entry, Journal, Page
from connectors_grpc.ports import Change, Hold, Said

changes = st.one_of(
    st.builds(lambda n: Change(tenant=TenantId(f"t{n}")), st.integers(0, 5)),
    st.builds(
        lambda n, c: Change(tenant=TenantId(f"t{n}"), credential=CredentialId(f"c{c}")),
        st.integers(0, 5),
        st.integers(0, 2),
    ),
    st.builds(lambda n: Change(key=KeyId(f"k{n}")), st.integers(0, 5)),
    st.builds(lambda n: Change(integration=IntegrationId(f"i{n}")), st.integers(0, 5)),
)


def tenant(name: str) -> Change:
    """A change of a tenant."""
    return Change(tenant=TenantId(name))


def begun(*pages: Page) -> Follower:
    """A follower past its first poll, which saw those pages at version 1 under the names 0, 1, ..."""
    follower = Follower()
    assert follower.take(seen(1, *pages)).gap
    return follower


def seen(version: int, *pages: Page | None) -> dict[str, Sighting]:
    """Sightings under the names 0, 1, ..."""
    return {str(number): Sighting(version, page) for number, page in enumerate(pages)}


@given(st.lists(changes, max_size=60), st.integers(1, 8))
def test_a_page_holds_each_change_once_in_order_and_says_what_it_left_out(said: list[Change], capacity: int) -> None:
    """Every change ever said is above the floor, or was said again, or has fallen under it."""
    journal = Journal(capacity)
    for change in said:
        journal.add(change)
    page = journal.page()
    seqs = [entry.seq for entry in page.entries]
    assert seqs == sorted(set(seqs))
    assert all(page.floor < seq <= page.last for seq in seqs)
    assert page.last == len(said)
    assert len({entry.change for entry in page.entries}) == len(seqs) <= capacity
    for seq, change in enumerate(said, 1):
        assert seq <= page.floor or any(entry.change == change and entry.seq >= seq for entry in page.entries)


@given(st.lists(changes, max_size=30))
def test_a_page_comes_back_as_it_was_written(said: list[Change]) -> None:
    """Through JSON and the record's types."""
    journal = Journal()
    for change in said:
        journal.add(change)
    page = journal.page(ended=True)
    assert codec.load(Page, json.loads(json.dumps(codec.dump(page)))) == page


def test_the_biggest_page_fits_into_a_document() -> None:
    """512 changes, holds and answers with the longest ids and huge numbers stay under the bound that the docstring states."""
    long = "x" * 59
    entries = tuple(
        Entry(2**53 - CAPACITY + n, Change(TenantId(f"{n:04}{long}"), CredentialId(f"{n:04}{long}")))
        for n in range(CAPACITY)
    )
    holds = tuple(
        Hold("f" * 32, TenantId(f"{n:04}{long}"), TenantUid("f" * 32), CredentialId(f"{n:04}{long}"), 2**53)
        for n in range(MOST)
    )
    data = codec.dump(Page(2**53 - CAPACITY - 1, 2**53, False, entries, Said(holds, tuple(hold.id for hold in holds))))
    check_data(data)
    assert len(json.dumps(data)) < 360 * 1024 < MAX_DOCUMENT


def test_what_is_said_of_holds_is_a_state_and_needs_no_log() -> None:
    """Heard with the page whatever was missed before, and gone with it, with its writer's goodbye, and with its death."""
    hold = Hold("h", TenantId("acme"), TenantUid("u"), CredentialId("c"), 1)
    journal = Journal()
    journal.said = Said((hold,), ("theirs",))
    follower = begun(journal.page())
    assert follower.others == {"0": journal.said}
    assert follower.take(seen(2, journal.page(ended=True))).gap is False
    assert follower.others == {}
    follower = begun(journal.page())
    for _ in range(SILENT_AFTER):
        follower.take(seen(1, journal.page()))
    assert follower.others == {}
    journal.said = Said()
    assert begun(journal.page()).others == {"0": Said()}


def test_a_poll_between_two_counts_for_nobodys_silence() -> None:
    """However often one looks while an answer is awaited: a writer beats once a second."""
    follower = begun(Journal().page())
    for _ in range(10 * SWEPT_AFTER):
        assert follower.take(seen(1, Journal().page()), between=True) == News()
    assert follower.accompanied


def test_a_page_of_a_release_without_holds_is_read() -> None:
    """It says nothing of them."""
    assert codec.load(Page, {"floor": 0, "last": 0, "ended": False, "entries": []}).said == Said()


def test_a_cut_journal_says_that_all_was_left_out() -> None:
    """The floor is at the last number; what is said afterwards stands above it."""
    journal = Journal()
    journal.add(Change(TenantId("a")))
    journal.add(Change(TenantId("b")))
    journal.cut()
    assert journal.page() == Page(2, 2, False, ())
    journal.add(Change(TenantId("a")))
    assert journal.page() == Page(2, 3, False, (Entry(3, Change(TenantId("a"))),))


def test_a_journal_without_room_is_refused() -> None:
    """A capacity below one is a bug."""
    with pytest.raises(ValueError, match="at least one"):
        Journal(0)


def test_the_first_poll_is_a_gap_even_if_there_is_nothing() -> None:
    """What happened before it is unknown."""
    assert Follower().take({}) == News(gap=True)


def test_an_unchanged_journal_brings_nothing() -> None:
    """Neither changes nor a gap."""
    page = Journal().page()
    assert begun(page).take(seen(1, page)) == News()


def test_only_what_is_above_the_last_number_read_is_news() -> None:
    """The first poll read `a`; the second brings `b` alone."""
    journal = Journal()
    journal.add(tenant("a"))
    follower = begun(journal.page())
    journal.add(tenant("b"))
    assert follower.take(seen(2, journal.page())) == News((tenant("b"),))


def test_a_change_said_again_is_news_again() -> None:
    """It was coalesced in the document, and still has a new number."""
    journal = Journal()
    journal.add(tenant("a"))
    follower = begun(journal.page())
    journal.add(tenant("a"))
    assert follower.take(seen(2, journal.page())) == News((tenant("a"),))


def test_falling_behind_the_floor_is_a_gap() -> None:
    """More was said between two polls than a journal holds."""
    journal = Journal(capacity=2)
    follower = begun(journal.page())
    for name in ("a", "b", "c"):
        journal.add(tenant(name))
    assert follower.take(seen(2, journal.page())).gap


def test_numbers_that_run_back_are_a_gap() -> None:
    """The Vault was restored from a snapshot."""
    journal = Journal()
    old = journal.page()
    journal.add(tenant("a"))
    assert begun(journal.page()).take(seen(2, old)).gap


def test_a_new_replicas_journal_is_read_from_its_beginning() -> None:
    """It was not there at the last poll, so all that it says is new; and it is noticed that it joined."""
    follower = begun()
    journal = Journal()
    journal.add(tenant("a"))
    assert follower.take(seen(1, journal.page())) == News((tenant("a"),), joined=True)
    assert follower.accompanied


def test_a_restarted_replica_means_a_gap_when_its_forerunner_falls_silent() -> None:
    """The new life has a name of its own; the old one may have died with a change unwritten, which is heard once."""
    old, new = Journal().page(), Journal().page()
    follower = begun(old)
    gaps = [
        follower.take({"0": Sighting(1, old), "1": Sighting(version, new)}).gap
        for version in range(1, 3 * SILENT_AFTER)
    ]
    assert gaps.count(True) == 1
    assert gaps.index(True) == SILENT_AFTER - 1


def test_an_orderly_end_is_no_gap() -> None:
    """Said goodbye, stood still, swept, gone: never a gap."""
    journal = Journal()
    follower = begun(journal.page())
    polls = [follower.take(seen(2, journal.page(ended=True))) for _ in range(SWEPT_AFTER + 1)]
    polls.append(follower.take({}))
    assert not any(poll.gap for poll in polls)
    assert polls[-2].sweep == ("0",)
    assert not follower.accompanied


def test_a_journal_that_is_gone_without_goodbye_is_a_gap() -> None:
    """Somebody swept it while we could not read: what it said last was never heard."""
    assert begun(Journal().page()).take({}).gap


def test_a_silent_journal_that_is_swept_is_no_second_gap() -> None:
    """Its silence was the gap."""
    page = Journal().page()
    follower = begun(page)
    assert any(follower.take(seen(1, page)).gap for _ in range(SILENT_AFTER))
    assert not follower.take({}).gap


def test_an_outage_is_not_the_writers_silence() -> None:
    """Polls that failed give every writer its time again."""
    page = Journal().page()
    follower = begun(page)
    for _ in range(SILENT_AFTER - 1):
        assert not follower.take(seen(1, page)).gap
    for _ in range(SILENT_AFTER):
        follower.failed()
    for _ in range(SILENT_AFTER - 1):
        assert not follower.take(seen(1, page)).gap
    assert follower.take(seen(1, page)).gap


def test_who_can_not_read_does_not_hear() -> None:
    """Not before the first poll, nor after some that failed; one that succeeds is enough."""
    follower = Follower()
    assert not follower.hears
    follower.take({})
    for _ in range(DEAF_AFTER):
        assert follower.hears
        follower.failed()
    assert not follower.hears
    follower.take({})
    assert follower.hears


def test_after_a_long_outage_everything_begins_anew() -> None:
    """A whole life may have begun, ended and been swept meanwhile."""
    page = Journal().page()
    follower = begun(page)
    for _ in range(LOST_AFTER):
        follower.failed()
    assert follower.take(seen(1, page)).gap


def test_a_single_failed_poll_does_not_put_off_the_verdict() -> None:
    """Or a Vault that fails now and then would hide a death for ever."""
    page = Journal().page()
    follower = begun(page)
    for _ in range(SILENT_AFTER - 1):
        assert not follower.take(seen(1, page)).gap
    follower.failed()
    assert follower.take(seen(1, page)).gap


def test_what_is_not_understood_is_a_gap() -> None:
    """Another release's journal, or damage: anything may have changed, each time it does."""
    follower = begun()
    assert follower.take(seen(1, None)).gap
    assert not follower.take(seen(1, None)).gap
    assert follower.take(seen(2, None)).gap


class Replicas(RuleBasedStateMachine):
    """Two writers that write, die, end and return; one follower that polls, now and then behind a Vault that is away."""

    def __init__(self) -> None:
        super().__init__()
        self.follower = Follower()
        self.stored: dict[str, Sighting] = {}
        self.journals: dict[str, Journal] = {}
        self.owed: dict[str, list[Change]] = {}
        self.ages: dict[str, int] = {}
        self.lives = 0

    def heard(self, news: News) -> None:
        """Check off what was owed."""
        for name in list(self.owed):
            if news.gap:
                self.owed[name] = []
            self.owed[name] = [change for change in self.owed[name] if change not in news.changes]

    @precondition(lambda self: len(self.journals) < 2)
    @rule()
    def start(self) -> None:
        """A replica starts, and writes before it serves."""
        self.lives += 1
        name = f"r{self.lives}"
        self.journals[name] = Journal(capacity=3)
        self.owed[name] = []
        self.write(name)

    @precondition(lambda self: self.journals)
    @rule(change=changes, pick=st.integers(0, 1))
    def change(self, change: Change, pick: int) -> None:
        """Something changes at a replica."""
        name = sorted(self.journals)[pick % len(self.journals)]
        self.journals[name].add(change)
        self.owed[name].append(change)

    @precondition(lambda self: self.journals)
    @rule(pick=st.integers(0, 1))
    def writes(self, pick: int) -> None:
        """A replica writes."""
        self.write(sorted(self.journals)[pick % len(self.journals)])

    def write(self, name: str, *, ended: bool = False) -> None:
        """Store the journal's page."""
        before = self.stored.get(name)
        self.stored[name] = Sighting(before.version + 1 if before else 1, self.journals[name].page(ended=ended))

    @precondition(lambda self: self.journals)
    @rule(pick=st.integers(0, 1), orderly=st.booleans())
    def stop(self, pick: int, orderly: bool) -> None:
        """A replica ends: with goodbye, or killed with changes unwritten."""
        name = sorted(self.journals)[pick % len(self.journals)]
        if orderly:
            self.write(name, ended=True)
        del self.journals[name]

    def pass_time(self, polls: int) -> None:
        """The dead grow older."""
        for name in set(self.stored) - set(self.journals):
            self.ages[name] = self.ages.get(name, 0) + polls

    @rule(times=st.sampled_from((1, 1, 1, LOST_AFTER)))
    def poll(self, times: int) -> None:
        """The follower reads, once or for a while; who lives beats meanwhile."""
        for _ in range(times):
            self.heard(self.follower.take(dict(self.stored)))
            for name in self.journals:
                self.write(name)
        self.pass_time(times)

    @rule(times=st.sampled_from((1, 2, SILENT_AFTER, LOST_AFTER)))
    def fail(self, times: int) -> None:
        """The follower can't read, once or for a while."""
        for _ in range(times):
            self.follower.failed()
        self.pass_time(times)

    @rule()
    def sweep(self) -> None:
        """Somebody else sweeps the journals of the long dead, whether the follower saw them or not."""
        for name in [name for name, age in self.ages.items() if age >= LOST_AFTER]:
            del self.stored[name], self.ages[name]

    @invariant()
    def nothing_is_lost(self) -> None:
        """In a copy of this world that goes on in peace for a few seconds, all that was said is heard."""
        world = copy.deepcopy((self.follower, self.stored, self.journals, self.owed))
        mine = (self.follower, self.stored, self.journals, self.owed)
        try:
            self.follower, self.stored, self.journals, self.owed = world
            for _ in range(SILENT_AFTER + 1):
                for name in self.journals:
                    self.write(name)
                self.heard(self.follower.take(dict(self.stored)))
            assert not any(self.owed.values()), self.owed
        finally:
            self.follower, self.stored, self.journals, self.owed = mine


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=100, stateful_step_count=30)
