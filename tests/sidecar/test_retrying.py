"""Calls that are sent again once their API takes calls: only where that was asked for, only what may be repeated, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from sidecar.refused import SettingsRefused
from sidecar.retrying import MOST_TRIES, MOST_WAIT, SHORTEST, UNSAID, Signs, wait
from sidecar.settings import parse
from tests.sidecar.harness import QUICK, Clock, World, world

WALL = 1_800_000_000.0
NOW = datetime.fromtimestamp(WALL, UTC)
Unit = integrations.ResetUnit
PLAIN = Signs.of(integrations.Retry())
GITHUB = Signs.of(
    integrations.Retry(
        statuses=[403, 429], remaining_header="X-RateLimit-Remaining", reset_header="X-RateLimit-Reset",
        reset_unit=Unit.RESET_UNIT_EPOCH_SECONDS,
    )
)  # fmt: skip
MILLIS = Signs.of(integrations.Retry(reset_header="r", reset_unit=Unit.RESET_UNIT_EPOCH_MILLISECONDS))
SECONDS = Signs.of(integrations.Retry(reset_header="r"))
DATE = Signs.of(integrations.Retry(reset_header="r", reset_unit=Unit.RESET_UNIT_DATE))
LIMITED = b"HTTP/1.1 429 X\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nwait"


def asked(signs: Signs, status: int, *lines: tuple[bytes, bytes], tries: int = 0, waited: float = 0.0) -> float | None:
    """The wait, without jitter."""
    return wait(signs, status, lines, tries=tries, waited=waited, wall=WALL, draw=0.0)


def http_date(seconds: float) -> bytes:
    """As RFC 9110 writes it."""
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True).encode()


@pytest.mark.parametrize(
    ("signs", "status", "lines", "wanted"),
    [
        (PLAIN, 429, [(b"Retry-After", b"3")], 3.0),
        (PLAIN, 503, [(b"retry-after", http_date(4))], 4.0),
        (PLAIN, 429, [], UNSAID[0]),
        (PLAIN, 200, [(b"Retry-After", b"3")], None),
        (PLAIN, 403, [(b"Retry-After", b"3")], None),
        (GITHUB, 403, [(b"Retry-After", b"3")], 3.0),
        (GITHUB, 403, [(b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", b"%d" % (WALL + 5))], 5.0),
        (GITHUB, 403, [(b"x-ratelimit-remaining", b"7"), (b"x-ratelimit-reset", b"%d" % (WALL + 5))], None),
        (GITHUB, 403, [], None),
        (GITHUB, 429, [(b"Retry-After", b"2"), (b"x-ratelimit-reset", b"%d" % (WALL + 5))], 2.0),
        (MILLIS, 429, [(b"R", b"%d" % ((WALL + 1.5) * 1000))], 1.5),
        (SECONDS, 429, [(b"r", b"1.25")], 1.25),
        (DATE, 429, [(b"r", (NOW + timedelta(seconds=6)).isoformat().encode())], 6.0),
        (DATE, 429, [(b"r", http_date(6))], 6.0),
    ],
)
def test_an_answer_says_how_long_to_wait(
    signs: Signs, status: int, lines: list[tuple[bytes, bytes]], wanted: float | None
) -> None:
    """By Retry-After first, then by the API's own header; a status that needs a sign has it."""
    assert asked(signs, status, *lines) == (wanted if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize(
    "value",
    [
        b"", b"-1", b"-99999999", b"nan", b"inf", b"1e9", b"0x10", b"soon", b"1,2", b"\xff", b"9" * 400, b"Mon, 99 Foo 2026",
        b"2026-01-01", b"Thu, 01 Jan 99999 00:00:00 GMT", b"1;drop", b" 3 ",
    ],
)  # fmt: skip
def test_a_value_that_is_none_says_nothing(value: bytes) -> None:
    """As if it were not there: the usual pause."""
    assert asked(PLAIN, 429, (b"Retry-After", value)) == UNSAID[0]
    for signs in (MILLIS, SECONDS, DATE):
        assert asked(signs, 429, (b"r", value)) == UNSAID[0]


@pytest.mark.parametrize("value", [http_date(-3600), http_date(0), b"0", b"Thu, 01 Jan 1970 00:00:00 GMT"])
def test_what_is_over_already_is_a_short_wait_and_not_a_busy_loop(value: bytes) -> None:
    """Never below SHORTEST."""
    assert asked(PLAIN, 429, (b"Retry-After", value)) == SHORTEST


@pytest.mark.parametrize("value", [b"11", b"3600", b"999999999999999", http_date(86_400), http_date(10**9)])
def test_what_asks_for_too_much_is_passed_at_once(value: bytes) -> None:
    """The app knows better than to hang."""
    assert asked(PLAIN, 429, (b"Retry-After", value)) is None


def test_tries_and_waits_are_bounded_together() -> None:
    """Two tries, ten seconds."""
    assert asked(PLAIN, 429, (b"Retry-After", b"1"), tries=MOST_TRIES) is None
    assert asked(PLAIN, 429, (b"Retry-After", b"5"), tries=1, waited=5.0) == 5.0
    assert asked(PLAIN, 429, (b"Retry-After", b"5"), tries=1, waited=5.1) is None


@given(
    st.lists(st.tuples(st.sampled_from([b"Retry-After", b"r", b"x-ratelimit-reset"]), st.binary(max_size=80))),
    st.sampled_from([PLAIN, GITHUB, MILLIS, SECONDS, DATE]),
    st.integers(100, 599),
    st.integers(0, 3),
    st.floats(0, MOST_WAIT),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_an_answer_says_the_wait_is_bounded(
    lines: list[tuple[bytes, bytes]], signs: Signs, status: int, tries: int, waited: float, draw: float
) -> None:
    """A number within the bounds, or none; never an exception."""
    seconds = wait(signs, status, lines, tries=tries, waited=waited, wall=WALL, draw=draw)
    assert seconds is None or (seconds >= SHORTEST and waited + seconds <= MOST_WAIT)


# --- through the sidecar


@pytest_asyncio.fixture
async def patient() -> AsyncIterator[World]:
    """A sidecar that retries the integration `notes`; `bare` is another."""
    async with world(retried=frozenset(("notes",)), limits=QUICK) as w:
        w.connect("acme", "bare", integration="bare")
        yield w


async def test_an_idempotent_call_is_sent_again_and_its_answer_passed(patient: World) -> None:
    """With its body, on the way it came; the app sees the last answer alone."""
    w = patient
    w.provider.replies = [LIMITED, LIMITED]
    answer = await w.ask(method="PUT", body=b"whole")
    assert (answer.status, answer.body) == (200, b"ok")
    assert [got.body for got in w.provider.got] == [b"whole"] * 3
    assert b'resends_total{reason="limited"} 2\n' in (await w.metrics()).body


async def test_the_last_answer_is_passed_when_the_tries_are_over(patient: World) -> None:
    """As it came, with its Retry-After for the SDK."""
    w = patient
    w.provider.reply = LIMITED
    answer = await w.ask()
    assert (answer.status, answer.body, answer.all(b"Retry-After")) == (429, b"wait", [b"0"])
    assert len(w.provider.got) == 1 + MOST_TRIES


@pytest.mark.parametrize(("path", "method"), [("/~acme/bare/x", "GET"), ("/~acme/notes/x", "POST")])
async def test_what_was_not_asked_for_or_may_not_be_repeated_is_passed(patient: World, path: str, method: str) -> None:
    """Another integration; a method that is not idempotent."""
    w = patient
    w.provider.replies = [LIMITED]
    answer = await w.ask(path, method=method, body=b"x" if method == "POST" else b"")
    assert (answer.status, len(w.provider.got)) == (429, 1)


async def test_a_body_that_was_not_kept_is_not_sent_again() -> None:
    """It was above the bound."""
    async with world(retried=frozenset(("notes",)), limits=replace(QUICK, kept_body=10)) as w:
        w.provider.replies = [LIMITED]
        assert (await w.ask(method="PUT", body=b"x" * 11)).status == 429
        assert len(w.provider.got) == 1


async def test_an_app_that_leaves_ends_the_wait() -> None:
    """Nothing is sent for it any more."""
    clock = Clock()
    async with world(retried=frozenset(("notes",)), limits=QUICK, clock=clock) as w:
        w.provider.replies = [b"HTTP/1.1 429 X\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"]
        app = await w.app()
        await app.send(w.request())
        await w.until(lambda: bool(w.provider.got) and not w.provider.open)  # who waits for a turn keeps no connection
        app.close()
        await w.shows("requests_in_flight 0")
        clock.advance(MOST_WAIT)
        assert (await w.ask()).status == 200
        assert len(w.provider.got) == 2


async def test_the_whole_time_of_a_call_bounds_the_wait_too() -> None:
    """An answer that would come too late is not waited for."""
    async with world(retried=frozenset(("notes",)), limits=replace(QUICK, whole=3.0), clock=Clock()) as w:
        w.provider.replies = [b"HTTP/1.1 429 X\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"]
        assert (await w.ask()).status == 429


async def test_the_token_of_the_second_try_is_the_one_of_its_time(patient: World) -> None:
    """A credential that was renewed meanwhile."""
    w = patient

    old = w.token()

    async def renew(_got: object, _writer: asyncio.StreamWriter) -> bytes:
        w.connect(generation=2)
        w.server.tell(
            pb.WatchLeasesResponse(credential_changed=pb.CredentialChanged(tenant="acme", credential="notes"))
        )
        await w.told()
        return LIMITED

    w.provider.replies = [renew]
    assert (await w.ask()).status == 200
    seen = [got.all(b"authorization") for got in w.provider.got if got.line.startswith(b"GET /v1/pages")]
    assert seen == [[old], [w.token()]]
    assert old != w.token()


def test_retry_names_integrations() -> None:
    """As ids."""
    assert parse(retries=["notion", "github"]).retried == {"notion", "github"}
    with pytest.raises(SettingsRefused, match="--retry"):
        parse(retries=["Notion"])
