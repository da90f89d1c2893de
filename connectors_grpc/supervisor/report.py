"""What the person at the terminal is told: progress on stderr, the summary on stdout. Holds no secret: it is told none."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from connectors_grpc.supervisor.problem import Problem


class Report:
    """Lines for a person."""

    def __init__(self, progress: TextIO | None = None, answer: TextIO | None = None) -> None:
        self._progress = progress or sys.stderr
        self._answer = answer or sys.stdout
        self._colour = self._progress.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def starting(self, name: str) -> None:
        """It is being started; said only where the line can be written over."""
        if self._progress.isatty():
            _write(self._progress, f"\r{name:<10} starting ...")

    def ready(self, name: str, seconds: float, *, again: bool = False) -> None:
        """It is ready.  Units: seconds."""
        again_text = " again" if again else ""
        self._line(f"{name:<10} ready{again_text} in {seconds:.1f} s", "32")

    def died(self, name: str, code: int) -> None:
        """It ended though nobody asked it to."""
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        self._line(f"{name:<10} ended {how}; starting it again", "33")

    def trouble(self, name: str, problem: Problem, seconds: float) -> None:
        """It could not be started again.  Units: seconds until the next attempt."""
        self._line(f"{name:<10} {problem.message} {problem.fix} Next attempt in {seconds:.1f} s.", "31")

    def note(self, text: str) -> None:
        """A line of progress."""
        self._line(text, "")

    def summary(self, lines: Iterable[str]) -> None:
        """What the person asked for."""
        _write(self._answer, "\n".join(lines) + "\n")

    def _line(self, text: str, colour: str) -> None:
        start = "\r\x1b[K" if self._progress.isatty() else ""
        shown = f"\x1b[{colour}m{text}\x1b[0m" if colour and self._colour else text
        _write(self._progress, f"{start}{shown}\n")


def _write(stream: TextIO, text: str) -> None:
    """Write, or not: a terminal that has gone must not take down what runs."""
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()
