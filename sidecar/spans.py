"""Spans by OpenTelemetry, made once a request is over, and sent by OTLP from a thread of its own. The only module that knows it.

Names and attributes are the semantic conventions' for HTTP clients; there is no path, no query and no header among them.
Needs the extra `otel`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from sidecar.exposition import Family, counter
from sidecar.tracing import Parent, parent, wanted

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from sidecar.engine.over import Over

MOST_WAITING = 2048
"""Spans that wait to be sent; what comes then is dropped by the library."""
EXPORT = 5.0
"""Seconds for one batch."""


class Spans:
    """An engine's observer. `endpoint` takes OTLP over HTTP (`/v1/traces`). Use `close` at the end."""

    def __init__(
        self,
        endpoint: str,
        ratio: float,
        *,
        draw: Callable[[], float] = random.random,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ratio = ratio
        self._draw = draw
        self._wall = wall
        self._counts: Counter[str] = Counter()
        self._provider = TracerProvider(
            resource=Resource({"service.name": "connectors-sidecar"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT),
                max_queue_size=MOST_WAITING,
                export_timeout_millis=EXPORT * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("connectors.sidecar")

    def tell(self, record: Over) -> None:
        """One span, if the request is to have one."""
        above = parent(record.parent)
        if not wanted(above, self._ratio, self._draw()):
            self._counts["not sampled"] += 1
            return
        self._counts["sampled"] += 1
        end = self._wall()
        span = self._tracer.start_span(
            record.method,
            context=_context(above),
            kind=SpanKind.CLIENT,
            attributes=dict(attributes(record)),
            start_time=end - int(record.took * 1e9),
        )
        if record.reason or record.status >= 500 or not record.whole:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def families(self) -> Iterable[Family]:
        """How many there were."""
        yield counter(
            "connectors_sidecar_spans_total",
            "Requests that became a span, or did not.",
            {(("result", result),): count for result, count in self._counts.items()},
        )

    def close(self) -> None:
        """Send what is left, for a moment at most."""
        self._provider.force_flush(int(EXPORT * 1000))
        self._provider.shutdown()


def attributes(record: Over) -> Iterable[tuple[str, str | int]]:
    """What a span says.  Source: OpenTelemetry semantic conventions for HTTP spans."""
    yield "http.request.method", record.method
    if record.status:
        yield "http.response.status_code", record.status
    if record.reason or not record.whole:
        yield "error.type", record.reason or "cut"
    elif record.status >= 400:
        yield "error.type", str(record.status)
    if record.resent:
        yield "http.request.resend_count", 1
    for name, value in (
        ("server.address", record.host),
        ("connectors.integration", record.integration),
        ("connectors.credential", record.credential),
        ("connectors.tenant", record.tenant),
    ):
        if value:
            yield name, value


def _context(above: Parent | None) -> Context | None:
    if above is None:
        return None
    caller = SpanContext(above.trace_id, above.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(caller))
