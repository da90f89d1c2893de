"""What the sidecar tells of requests: metrics, an access log, spans. Never a secret, and never at the requests' cost."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from sidecar import access_log, spans
from sidecar.access_log import AccessLog
from sidecar.engine.over import Over
from sidecar.exposition import Family, Sample, counter, merged, render, told
from sidecar.metrics import BOUNDS, MOST_INTEGRATIONS, MOST_REFUSALS, OTHER, Metrics
from sidecar.observing import Observing
from sidecar.refused import SettingsRefused
from sidecar.tracing import parent, trace_id, wanted
from tests.sidecar.harness import SOON, Got, World, aged, read_body, world

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01".encode()
OVER = Over("GET", "/v1/x", "acme", "notes", "notes", "app-1", "api.test", 200, "", True, False, PARENT, 0.0123)


async def page(w: World) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The metrics as Prometheus' own parser reads them: by name and labels."""
    text = (await w.metrics()).body.decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


# --- metrics


async def test_the_page_is_what_prometheus_reads_and_counts_requests_by_integration(w: World) -> None:
    """Answers, refusals and both histograms; a tenant is named nowhere."""
    w.provider.replies = [b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"]
    for _ in range(3):
        await w.ask()
    await w.ask("/~acme/nothing/x")
    answer = await w.metrics()
    assert answer.all(b"content-type") == [b"text/plain; version=0.0.4; charset=utf-8"]
    assert b"acme" not in answer.body
    found = await page(w)
    notes = (("integration", "notes"),)
    assert found["connectors_sidecar_responses_total", (*notes, ("status", "2xx"))] == 2
    assert found["connectors_sidecar_responses_total", (*notes, ("status", "5xx"))] == 1
    refused = (("integration", ""), ("reason", "CREDENTIAL_NOT_FOUND"))
    assert found["connectors_sidecar_refusals_total", refused] == 1
    for name in ("request_duration_seconds", "upstream_response_seconds"):
        assert found[f"connectors_sidecar_{name}_count", notes] == 3
        assert found[f"connectors_sidecar_{name}_bucket", (*notes, ("le", "+Inf"))] == 3
        assert 0 < found[f"connectors_sidecar_{name}_sum", notes] < SOON
    assert found["connectors_sidecar_upstream_dials_total", (("result", "made"),)] == 1
    assert found["connectors_sidecar_upstream_connections_idle", ()] == 1


async def test_resends_and_renewed_tokens_are_counted(w: World) -> None:
    """A 401 that a refresh cured, one that is passed on, and a connection that had died."""
    lease = aged(w.connect(), 60)

    def refresh(old: object) -> None:
        w.connect(generation=2)

    w.server.refresh = refresh
    w.provider.replies = [b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"]
    assert (await w.ask()).status == 200
    assert lease.refreshable
    for writer in list(w.provider.writers):
        writer.close()
    assert (await w.ask()).status == 200
    found = await page(w)
    assert found["connectors_sidecar_unauthorized_total", (("result", "renewed"),)] == 1
    assert found["connectors_sidecar_resends_total", (("reason", "unauthorized"),)] == 1


async def test_tenants_are_counted_by_name_only_if_asked_for_and_up_to_a_bound() -> None:
    """Those above it together."""
    async with world(observing=Observing(tenants=1)) as w:
        w.connect("globex")
        for tenant in ("acme", "globex", "acme"):
            assert (await w.ask(f"/~{tenant}/notes/x")).status == 200
        found = await page(w)
    name = "connectors_sidecar_tenant_requests_total"
    assert {labels: count for (sample, labels), count in found.items() if sample == name} == {
        (("result", "2xx"), ("tenant", "acme")): 2,
        (("result", "2xx"), ("tenant", OTHER)): 1,
    }


def test_labels_are_bounded_whatever_they_are_made_of() -> None:
    """What comes above a bound is counted under `other`, and still counted."""
    metrics = Metrics(most_tenants=2)
    for number in range(MOST_REFUSALS + 10):
        metrics.answered(f"i{number}", 200, 0.01)
        metrics.took(f"i{number}", 0.01)
        metrics.refused("INTERNAL", f"i{number}")
        metrics.of_tenant(f"t{number}", "2xx")
    families = {family.name: family for family in metrics.families()}
    answers = families["connectors_sidecar_responses_total"].samples
    assert len(answers) == MOST_INTEGRATIONS + 1
    assert sum(sample.value for sample in answers) == MOST_REFUSALS + 10
    assert len(families["connectors_sidecar_refusals_total"].samples) == MOST_REFUSALS + 1
    assert len(families["connectors_sidecar_tenant_requests_total"].samples) == 3


def test_a_value_falls_into_the_first_bucket_that_is_not_below_it() -> None:
    """`le` is less or equal; what is above all is in +Inf alone."""
    metrics = Metrics()
    for seconds in (BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1] + 1):
        metrics.took("notes", seconds)
    (family,) = [each for each in metrics.families() if each.name.endswith("request_duration_seconds")]
    counts = {dict(sample.labels)["le"]: sample.value for sample in family.samples if sample.suffix == "_bucket"}
    assert (counts["0.001"], counts["0.0025"], counts["60"], counts["+Inf"]) == (1, 2, 2, 3)


def test_labels_are_escaped_and_pages_of_several_processes_add_up() -> None:
    """Through JSON and back, as between two processes."""
    hostile = 'a"b\\c\nd'
    one = [
        counter("x_total", "Some\nthing.", {(("l", hostile),): 1}),
        Family("y", "gauge", "Y.", (Sample("", (), 0.5),)),
    ]
    sent = told(json.loads(json.dumps(one)))
    assert sent == one
    text = render(merged([one, sent]))
    assert text.splitlines()[2:] == ['x_total{l="a\\"b\\\\c\\nd"} 2', "# HELP y Y.", "# TYPE y gauge", "y 1"]
    (read, _) = text_string_to_metric_families(text)
    assert read.samples[0].labels == {"l": hostile}


# --- the access log


async def lines_of(path: Path, count: int) -> list[dict[str, object]]:
    """So many lines, once they are there, to their last byte."""
    async with asyncio.timeout(SOON):
        while path.read_bytes().count(b"\n") < count:  # noqa: ASYNC110 - a thread's doing
            await asyncio.sleep(0.02)
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_the_access_log_has_a_line_for_each_request_and_no_secret(tmp_path: Path) -> None:
    """Answered, refused at the door, refused by the server. Paths and queries are not there."""
    path = tmp_path / "access.log"
    async with world(observing=Observing(access_log=str(path))) as w:
        await w.ask("/~acme/notes/v1/hook?token=t0psecret", b"traceparent: " + PARENT + b"\r\n")
        await w.ask("/~acme/nothing/x")
        await w.ask("/~acme/notes/x", b"Authorization: Basic bm9uZTpub25l\r\n")
        lines = await lines_of(path, 3)
        text = path.read_bytes()
        for secret in (w.token(), w.key.text.encode(), b"t0psecret", b"hook"):
            assert secret not in text
    first, second, third = lines
    assert first.pop("time")
    assert float(str(first.pop("duration_ms"))) > 0
    assert first == {
        "tenant": "acme", "credential": "notes", "integration": "notes", "key_id": "app-1", "method": "GET", "status": 200,
        "whole": True, "resent": False, "trace_id": TRACE,
    }  # fmt: skip
    assert (second["status"], second["reason"], second["tenant"]) == (404, "CREDENTIAL_NOT_FOUND", "acme")
    assert (third["status"], third["reason"]) == (403, "API_KEY_INVALID")
    assert path.stat().st_mode & 0o777 == 0o600


async def test_an_answer_that_was_cut_is_told_as_one(tmp_path: Path) -> None:
    """By the upstream, and by the app that left."""
    path = tmp_path / "access.log"
    async with world(observing=Observing(access_log=str(path))) as w:

        async def half(got: Got, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            await writer.drain()

        w.provider.replies = [half]
        app = await w.app()
        await app.send(w.request())
        await app.reader.read()
        (cut,) = await lines_of(path, 1)
    assert (cut["status"], cut["reason"], cut["whole"]) == (200, "UPSTREAM_UNREACHABLE", False)


async def test_a_full_disk_costs_lines_and_no_request() -> None:
    """`/dev/full` takes nothing; what is lost is counted."""
    async with world(observing=Observing(access_log="/dev/full")) as w:
        for _ in range(5):
            assert (await w.ask()).status == 200
        dropped = ("connectors_sidecar_access_log_lines_total", (("result", "dropped"),))
        async with asyncio.timeout(SOON):
            while (await page(w))[dropped] < 5:
                pass  # a thread's doing
        assert (await w.ask()).status == 200


def test_a_log_that_nobody_reads_is_bounded_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe whose reader sleeps: what does not fit is dropped."""
    monkeypatch.setattr(access_log, "LAST", SOON)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(pipe, most=200_000)
    for _ in range(5_000):
        log.tell(OVER)
    log.close()
    read = os.read(reader, 1 << 20)
    os.close(reader)
    assert log.written + log.dropped == 5_000
    assert log.dropped > 0
    assert all(json.loads(line)["tenant"] == "acme" for line in read.splitlines())


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As logrotate does it; the last line of the old one is whole."""
    monkeypatch.setattr(access_log, "LAST", SOON)
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(path)
    path.rename(old)
    log.tell(OVER)
    log.close()
    assert len(path.read_bytes().splitlines()) == 1
    assert old.read_bytes() == b""


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"fields": "tenant,body"}, "--access-log-fields"),
        ({"otlp_endpoint": "http://collector.example.com:4318/v1/traces"}, "--otlp-endpoint"),
        ({"otlp_endpoint": "http://10.0.0.1/v1/traces"}, "--otlp-endpoint"),
        ({"otlp_endpoint": "https://user:pass@example.com/v1/traces"}, "--otlp-endpoint"),
        ({"otlp_endpoint": "http://[::1"}, "--otlp-endpoint"),
        ({"otlp_endpoint": "grpc://127.0.0.1:4317"}, "--otlp-endpoint"),
        ({"otlp_ratio": 1.5}, "--otlp-ratio"),
        ({"tenants": -1}, "--metrics-tenants"),
        ({"tenants": 1_000_000}, "--metrics-tenants"),
    ],
)
def test_what_can_not_be_observed_names_its_option(given: dict[str, str], option: str) -> None:
    """Spans leave the machine by TLS only."""
    with pytest.raises(SettingsRefused) as refused:
        Observing.of(**given)  # type: ignore[arg-type]
    assert refused.value.field == option


async def test_a_log_that_can_not_be_opened_is_said_at_start(tmp_path: Path) -> None:
    """Before anything is served."""
    with pytest.raises(SettingsRefused) as refused:
        async with world(observing=Observing(access_log=str(tmp_path))):
            pass
    assert refused.value.field == "--access-log"


# --- traces


@pytest.mark.parametrize(
    "line",
    [
        b"", b"00", b"ff-" + PARENT[3:], PARENT + b"-x", PARENT.upper(), PARENT[:-1], b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01", b"00-" + b"g" * 32 + PARENT[35:], b"01-" + PARENT[3:] + b"-" + b"x" * 600,
    ],
)  # fmt: skip
def test_a_traceparent_that_is_none_is_not_followed(line: bytes) -> None:
    """As W3C Trace Context, section 3.2, says."""
    assert parent(line) is None
    assert trace_id(line) == ""


def test_the_callers_decision_is_followed_else_chance() -> None:
    """A newer version's line is read as far as it is known."""
    above = parent(PARENT)
    assert above is not None
    assert (above.sampled, wanted(above, 0.0, 0.9)) == (True, True)
    unsampled = parent(PARENT[:-1] + b"0")
    assert unsampled is not None
    assert not wanted(unsampled, 1.0, 0.0)
    assert [wanted(None, 0.5, draw) for draw in (0.0, 0.49, 0.5, 0.99)] == [True, True, False, False]
    assert not wanted(None, 0.0, 0.0)
    assert parent(b"01-" + PARENT[3:] + b"-more") is not None


class Collector:
    """Takes OTLP over HTTP, and keeps the spans."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.raw.append(await read_body(head, reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    @property
    def spans(self) -> list[Span]:
        """In the order in which they came."""
        requests = [ExportTraceServiceRequest.FromString(raw) for raw in self.raw]
        return [
            span
            for request in requests
            for of in request.resource_spans
            for scope in of.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    """On a free port."""
    found = Collector()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    async with server:
        yield found, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"


async def test_a_request_becomes_a_span_of_its_callers_trace(
    collector: tuple[Collector, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the semantic conventions, without a secret; the app's line goes to the upstream untouched."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setattr(spans, "EXPORT", SOON)
    found, endpoint = collector
    async with world(observing=Observing(otlp_endpoint=endpoint, otlp_ratio=0.0)) as w:
        await w.ask("/~acme/notes/v1/hook?token=t0psecret", b"traceparent: " + PARENT + b"\r\ntracestate: a=b\r\n")
        await w.ask("/~acme/nothing/x", b"traceparent: " + PARENT + b"\r\n")
        await w.ask("/~acme/notes/not-sampled")
        token, key = w.token(), w.key.text.encode()
        assert w.provider.got[0].all(b"traceparent") == [PARENT]
        assert w.provider.got[0].all(b"tracestate") == [b"a=b"]
    good, bad = found.spans
    assert (good.trace_id.hex(), good.parent_span_id.hex(), good.kind) == (
        TRACE,
        "00f067aa0ba902b7",
        Span.SPAN_KIND_CLIENT,
    )
    assert good.end_time_unix_nano > good.start_time_unix_nano
    said = {each.key: each.value.string_value or each.value.int_value for each in good.attributes}
    assert said == {
        "http.request.method": "GET", "http.response.status_code": 200, "server.address": "127.0.0.1",
        "connectors.integration": "notes", "connectors.credential": "notes", "connectors.tenant": "acme",
    }  # fmt: skip
    assert {each.value.string_value for each in bad.attributes if each.key == "error.type"} == {"CREDENTIAL_NOT_FOUND"}
    for secret in (token, key, b"t0psecret", b"hook"):
        assert not any(secret in raw for raw in found.raw)


async def test_a_collector_that_is_gone_costs_no_request() -> None:
    """Spans are lost; answers are not, and the end is not held up for long."""
    async with world(observing=Observing(otlp_endpoint="http://127.0.0.1:9/v1/traces")) as w:
        assert (await w.ask()).status == 200
