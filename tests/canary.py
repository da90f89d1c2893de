"""A canary for whole sessions: every secret that tests made is looked for in all that was logged, printed or answered.

Raw, and as base64 at any alignment. `pytestmark = pytest.mark.usefixtures("heard")` has a file's tests listened to; what
they store comes from `planted()`. The search is at the session's end.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator

import pytest

from tests.worlds import forms

SHORTEST = 12


class Session:
    """What the session's tests planted, and where it was heard."""

    def __init__(self) -> None:
        self.planted: set[str] = set()
        self.heard: list[str] = []

    def plant(self, *hidden: str) -> None:
        """Secrets that nobody may see. Short ones would be found by chance."""
        assert all(len(secret) >= SHORTEST for secret in hidden)
        self.planted.update(hidden)

    def hear(self, text: object) -> None:
        """Something that others may see: a status, a log line, a file."""
        self.heard.append(str(text))

    def seen(self) -> list[str]:
        """Where a secret was seen: the first letters of it, and what stood around it. Empty if all is well."""
        everything = "\n".join(self.heard)
        found = []
        for secret in self.planted:
            for form in forms(secret):
                at = everything.find(form)
                if at >= 0:
                    found.append(f"{secret[:4]}...: {everything[max(0, at - 120) : at]!r}")
        return found


SESSION = Session()


def planted(kind: str = "sk") -> str:
    """A secret of a test's own, that is looked for when the session ends."""
    secret = f"{kind}-{secrets.token_hex(16)}"
    SESSION.plant(secret)
    return secret


class _Listener(logging.Handler):
    """Hears every record of every logger, formatted and as its parts."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep its text, its arguments and its exception."""
        SESSION.hear(record.getMessage())
        SESSION.hear(record.args)
        if record.exc_info:
            SESSION.hear(repr(record.exc_info[1]))


@pytest.fixture(scope="session")
def listening() -> Iterator[Session]:
    """Hear all standard logging from now on; at the end, nothing planted may have been heard."""
    listener = _Listener(logging.DEBUG)
    root = logging.getLogger()
    root.addHandler(listener)
    try:
        yield SESSION
    finally:
        root.removeHandler(listener)
    assert SESSION.seen() == []


@pytest.fixture
def heard(listening: Session, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """All that a test prints, on whatever descriptor, and all that it logs at any level."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = capfd.readouterr()
    listening.hear(printed.out)
    listening.hear(printed.err)
