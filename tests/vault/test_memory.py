"""The ports in memory obey the laws, and the clock and the feed do what they say."""

import asyncio
import gc
from datetime import UTC, datetime, timedelta

import pytest

from connectors_grpc.changes import ChangeFeed
from connectors_grpc.domain.ids import KeyId, TenantId
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.memory import MemoryCiphers, MemoryDocuments, Outage
from connectors_grpc.ports import Change, Changes, Ciphers, Clock, Documents
from tests.clock import ManualClock
from tests.laws.ciphers import CiphersLaws
from tests.laws.documents import DocumentsLaws

ONE, TWO, THREE = (Change(tenant=TenantId(name)) for name in ("one", "two", "three"))


class TestMemoryDocuments(DocumentsLaws):
    @pytest.fixture
    def documents(self) -> Documents:
        return MemoryDocuments()

    @pytest.fixture
    def folder(self) -> str:
        return "acme"


class TestMemoryCiphers(CiphersLaws):
    @pytest.fixture
    def ciphers(self) -> Ciphers:
        return MemoryCiphers()

    @pytest.fixture
    def key(self) -> str:
        return "acme"


async def test_stored_documents_are_not_shared() -> None:
    """Changing what was written or read does not change what is stored."""
    documents = MemoryDocuments()
    data: dict[str, list[int]] = {"list": [1]}
    await documents.write("a/b", data, cas=0)
    data["list"].append(2)
    found = await documents.read("a/b")
    assert found is not None
    assert found.data == {"list": [1]}


async def test_an_outage_fails_every_call() -> None:
    """One switch for both stores, for tests of what happens without a Vault."""
    outage = Outage()
    documents, ciphers = MemoryDocuments(outage), MemoryCiphers(outage)
    outage.down = True
    calls = (
        documents.read("a/b"), documents.write("a/b", {}, cas=0), documents.purge("a/b"), documents.list("a"),
        ciphers.create_key("k"), ciphers.encrypt("k", b"c", b""), ciphers.decrypt("k", b"c", "vault:v1:"), ciphers.shred_key("k"),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(VaultUnavailable):
            await call
    outage.down = False
    assert await documents.read("a/b") is None


def test_the_clock_stands_until_moved() -> None:
    """Advancing moves both times; setting moves the wall clock only."""
    clock: Clock = (manual := ManualClock(datetime(2030, 1, 1, tzinfo=UTC)))
    manual.advance(timedelta(minutes=1))
    manual.advance(0.5)
    assert (clock.now(), clock.monotonic()) == (datetime(2030, 1, 1, 0, 1, 0, 500_000, tzinfo=UTC), 60.5)
    manual.set(datetime(2029, 1, 1, tzinfo=UTC))
    assert (clock.now(), clock.monotonic()) == (datetime(2029, 1, 1, tzinfo=UTC), 60.5)
    with pytest.raises(ValueError, match="back"):
        manual.advance(-1)


async def test_every_subscriber_gets_every_change_from_then_on() -> None:
    """In order; what came before is not for them; counting starts with subscribe()."""
    feed: Changes = ChangeFeed()
    feed.publish(ONE)
    first = feed.subscribe()
    feed.publish(TWO)
    second = feed.subscribe()
    feed.publish(THREE)
    assert [await anext(first), await anext(first), await anext(second)] == [TWO, THREE, THREE]


async def test_a_reader_that_waits_is_woken() -> None:
    """A change that comes while somebody waits is delivered."""
    feed = ChangeFeed()
    subscription = feed.subscribe()
    waiting = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0)
    feed.publish(Change(key=KeyId("k")))
    assert await waiting == Change(key=KeyId("k"))


async def test_a_slow_reader_is_told_that_it_missed_some() -> None:
    """Its queue stays bounded; None comes first, and changes after the loss still come."""
    feed = ChangeFeed(capacity=2)
    slow, fast = feed.subscribe(), feed.subscribe()
    for change in (ONE, TWO, THREE):
        feed.publish(change)
        if change is not THREE:
            assert await anext(fast) is change
    assert [await anext(slow), await anext(slow), await anext(fast)] == [None, THREE, THREE]


async def test_a_closed_or_forgotten_subscription_costs_nothing() -> None:
    """Closing ends the reader's loop; dropping it without a word leaves nothing in the feed."""
    feed = ChangeFeed()
    subscription = feed.subscribe()
    feed.publish(ONE)
    subscription.close()
    feed.publish(TWO)
    assert [change async for change in subscription] == []
    del subscription
    feed.subscribe()
    gc.collect()
    assert len(feed._subscriptions) == 0
