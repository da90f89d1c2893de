"""`connectors config watch`: applies a file again whenever it changes, and keeps what was good where it is not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from types import FrameType

import click
import grpc

from connectors_grpc import logs
from connectors_grpc.cli.config_view import explain, summary, told
from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.errors import INTERRUPTED
from connectors_grpc.configuration.applying import Applying, Outcome
from connectors_grpc.configuration.loading import Loaded
from connectors_grpc.configuration.steps import Plan
from connectors_grpc.configuration.tree import Invalid
from connectors_grpc.configuration.watching import Marks, marks, wait

RETRY = 30.0
"""Seconds after which what could not be done is tried again, though no file has changed."""

log = logs.get("config")


class Watching:
    """One watch. Every line that it logs holds names and reasons, never a secret.  Units: `every` in seconds; None: never."""

    def __init__(
        self,
        session: Session,
        base: Sequence[Path],
        read: Callable[[], Loaded],
        plan: Callable[[Loaded], Plan],
        every: float | None = None,
    ) -> None:
        self._session = session
        self._base = base
        self._every = every
        self._read = read
        self._plan = plan
        self._stop = Event()
        self._came: list[int] = []

    def run(self) -> int:
        """Until a signal comes: 0 for SIGTERM, 130 for SIGINT. What is under way then is brought to its end."""
        logs.configure()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        known = marks(self._base)
        while not self._stop.is_set():
            known, again = self._round(known)
            after = RETRY if again else self._every
            wait(known, self._stop, until=None if after is None else time.monotonic() + after)
        log.info("config_watch_ended")
        return INTERRUPTED if signal.SIGINT in self._came else 0

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(number)
        self._stop.set()

    def _round(self, known: Marks) -> tuple[Marks, bool]:
        """Read and apply once. Says which files to watch, as they were when they were read, and whether to try again soon."""
        before = marks(known)
        try:
            found = self._read()
        except Invalid as error:
            for problem in error.problems:
                log.warning("config_invalid", error=str(problem))
            log.warning("config_kept", result="what was applied last stays as it is")
            return before, False
        for warning in found.warnings:
            log.warning("config_warning", error=warning)
        try:
            made = self._plan(found)
        except grpc.RpcError as error:
            log.warning("config_not_applied", error=explain(error), retry_in_s=RETRY)
            return found.files, True
        except click.UsageError as error:
            log.warning("config_refused", error=error.message)
            return found.files, False
        for refusal in made.refusals:
            log.warning("config_refused", error=refusal)
        if not made.steps:
            log.info("config_unchanged", result=summary(made))
            return found.files, False
        done = Applying(self._session, found.configuration, explain, self._tell, self._stop).apply(made)
        log.info("config_applied", result=told(done))
        return found.files, bool(done.failed)

    @staticmethod
    def _tell(outcome: Outcome) -> None:
        step = outcome.step
        if outcome.failed:
            log.warning("config_step_failed", action=f"{step.action} {step.thing}", error=outcome.failed)
        elif not outcome.unchanged:
            log.info("config_step", action=f"{step.action} {step.thing}")
