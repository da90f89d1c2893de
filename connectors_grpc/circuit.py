"""A provider that is down is not hammered: pure decisions on when it may be asked again. Time comes in as an argument.

After several failures in a row nobody asks for a while, then one may try (half-open); each further failure doubles the pause.
Pauses of single credentials are credentials/backoff.py's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FAILURES = 5
OPEN_FOR = 10.0
LONGEST_OPEN = 300.0
MOST = 10_000


@dataclass(slots=True)
class _State:
    failures: int = 0
    closed_until: float = 0.0
    probing: bool = False


class Circuits:
    """One circuit a name. Bounded: the ones least used are forgotten, which closes them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._states: OrderedDict[str, _State] = OrderedDict()

    def closed_for(self, name: str, now: float) -> float:
        """As `wait`, without a turn: 0 if asking makes sense. Costs nothing to ask before there is anything to lose."""
        state = self._states.get(name)
        if state is None or state.failures < FAILURES:
            return 0.0
        if now < state.closed_until:
            return state.closed_until - now
        return 1.0 if state.probing else 0.0

    def wait(self, name: str, now: float) -> float:
        """0 if `name` may be asked now; else seconds to wait. Whoever is let through must report with `passed` or `failed`."""
        pause = self.closed_for(name, now)
        state = self._states.get(name)
        if not pause and state is not None and state.failures >= FAILURES:
            state.probing = True
        return pause

    def passed(self, name: str) -> None:
        """It answered as it should: the circuit closes."""
        self._states.pop(name, None)

    def left(self, name: str) -> None:
        """Whoever was let through never asked: the next one may."""
        if name in self._states:
            self._states[name].probing = False

    def failed(self, name: str, now: float, retry_after: float | None = None) -> None:
        """It did not. Its own word on when to come back counts, within bounds."""
        state = self._states.setdefault(name, _State())
        self._states.move_to_end(name)
        state.failures += 1
        state.probing = False
        if state.failures >= FAILURES:
            pause = min(OPEN_FOR * 2 ** (state.failures - FAILURES), LONGEST_OPEN)
            state.closed_until = now + min(max(pause, retry_after or 0.0), LONGEST_OPEN)
        while len(self._states) > self._most:
            self._states.popitem(last=False)
