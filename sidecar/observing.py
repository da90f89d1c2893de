"""Who is told of requests besides the metrics: an access log, spans. Nobody unless asked for; parsed once, opened at start."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from sidecar.access_log import FIELDS, USUAL, AccessLog
from sidecar.engine.engine import Observer
from sidecar.refused import SettingsRefused

MOST_TENANTS = 10_000


@dataclass(frozen=True, slots=True)
class Observing:
    """`access_log` is a file, or `-` for standard output. `tenants`: so many are counted by name in the metrics."""

    access_log: str | None = None
    fields: tuple[str, ...] = USUAL
    otlp_endpoint: str | None = None
    otlp_ratio: float = 1.0
    tenants: int = 0

    @classmethod
    def of(
        cls,
        access_log: str | None = None,
        fields: str | None = None,
        otlp_endpoint: str | None = None,
        otlp_ratio: float = 1.0,
        tenants: int = 0,
    ) -> Observing:
        """From text. Raises: SettingsRefused."""
        names = tuple(fields.split(",")) if fields else USUAL
        if not set(names) <= set(FIELDS):
            raise SettingsRefused("--access-log-fields", f"are, separated by commas: {','.join(FIELDS)}")
        if not 0 <= otlp_ratio <= 1:
            raise SettingsRefused("--otlp-ratio", "is a share of the requests, from 0 to 1")
        if not 0 <= tenants <= MOST_TENANTS:
            raise SettingsRefused("--metrics-tenants", f"is a number up to {MOST_TENANTS}")
        if otlp_endpoint:
            _check(otlp_endpoint)
        return cls(access_log or None, names, otlp_endpoint or None, otlp_ratio, tenants)


def _check(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        good = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good or not (parts.scheme == "https" or (parts.scheme == "http" and _local(parts.hostname or ""))):
        raise SettingsRefused(
            "--otlp-endpoint",
            "is https://host/v1/traces, or http:// on loopback, as in http://127.0.0.1:4318/v1/traces",
        )


def _local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Open(Observer, Protocol):
    """An observer that has something to write at the end."""

    def close(self) -> None:
        """The last requests are told; write what is left."""


def observers(observing: Observing) -> Iterable[Open]:
    """Open what is asked for. Raises: SettingsRefused."""
    if observing.access_log is not None:
        try:
            yield AccessLog(None if observing.access_log == "-" else Path(observing.access_log), observing.fields)
        except OSError as error:
            raise SettingsRefused("--access-log", f"can't be written ({error.strerror})") from None
    if observing.otlp_endpoint is not None:
        try:
            from sidecar.spans import Spans
        except ImportError:
            raise SettingsRefused(
                "--otlp-endpoint", "needs the extra `otel`: pip install 'connectors-grpc[otel]'"
            ) from None
        yield Spans(observing.otlp_endpoint, observing.otlp_ratio)
