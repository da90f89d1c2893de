"""Time that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """`Clock` that stands still until it is moved.  Units: seconds or timedelta."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> datetime:
        """See ports.Clock."""
        return self._now

    def monotonic(self) -> float:
        """See ports.Clock."""
        return self._monotonic

    def advance(self, by: timedelta | float) -> None:
        """Move both times on; never back.  Raises: ValueError."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta():
            raise ValueError("time does not run back; set() makes the wall clock jump")
        self._now += step
        self._monotonic += step.total_seconds()

    def set(self, now: datetime) -> None:
        """Make the wall clock jump, either way, as an administrator may; monotonic time is untouched."""
        if now.tzinfo is None:
            raise ValueError("the time is aware")
        self._now = now.astimezone(UTC)
