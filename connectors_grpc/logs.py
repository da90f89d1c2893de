"""Structured logs: an event name and allow-listed keys, so that a secret has no key to come by.

One JSON object a line on stderr, or a short coloured line where stderr is a terminal.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

ALLOWED = frozenset(
    (
        "event", "level", "timestamp", "action", "address", "attempt", "bytes", "caller", "code", "compiled", "component",
        "credential", "duration_ms", "error", "generation", "http_status", "incident", "integration", "key_id", "listen",
        "method", "path", "pid", "process", "reason", "result", "retry_in_s", "rpc", "signal", "stack", "state", "target",
        "tenant", "version",
    )
)  # fmt: skip
"""Keys that may stand in a log line; any other is dropped. None of them is ever given a secret, a URL's query or a body."""


def _only_allowed(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: value for key, value in event.items() if key in ALLOWED}


class _Stderr:
    """Whatever stderr is when a line is written, for it may be exchanged. A full disk or a closed pipe costs lines alone."""

    def write(self, text: str) -> None:
        """Write there."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush that."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure(level: str = "info") -> None:
    """Set up logging for this process. Libraries' own logs pass at WARNING and above, never at DEBUG or INFO:
    HTTP libraries write whole URLs and cookies there.
    """
    terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=True) if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_allowed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(_Stderr()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format='{"level":"%(levelname)s","event":"%(name)s"}')
    logging.raiseExceptions = False


def get(component: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that says which part speaks."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=component)
    return logger
