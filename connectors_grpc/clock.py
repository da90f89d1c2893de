"""The system's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """`ports.Clock`."""

    def now(self) -> datetime:
        """See ports.Clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See ports.Clock."""
        return time.monotonic()
