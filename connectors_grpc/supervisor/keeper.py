"""Keeping one service up: what died is started again, at once the first time, later and later if it goes on dying."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from connectors_grpc.supervisor.problem import Problem
from connectors_grpc.supervisor.report import Report
from connectors_grpc.supervisor.service import Service

STEADY: Final = 30.0
"""Seconds up after which earlier failures are forgotten."""
FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 10.0


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, capped."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 16))


async def keep(service: Service, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
    """Start `service`, which runs, again whenever it ends; until cancelled."""
    failures = 0
    while True:
        since = clock()
        code = await service.wait_exit()
        failures = 0 if clock() - since > STEADY else failures
        report.died(service.name, code)
        while True:
            await asyncio.sleep(delay(failures))
            failures += 1
            began = clock()
            try:
                await service.start()
            except Problem as problem:
                report.trouble(service.name, problem, delay(failures))
            else:
                report.ready(service.name, clock() - began, again=True)
                break
