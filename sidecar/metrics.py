"""What the sidecar counts. Labels are integrations, statuses and reasons, tenants only if asked for: never a path or a key."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from sidecar.exposition import Family, Labels, counter, histogram

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets. Units: seconds."""
MOST_INTEGRATIONS = 200
MOST_REFUSALS = 2_000
OTHER = "other"
"""Takes what comes above a bound of labels."""


class Histogram:
    """Counts by bucket, each for itself; a page adds them up."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Series:
    """Of one integration. `answers` by status class."""

    __slots__ = ("answers", "heads", "whole")

    def __init__(self) -> None:
        self.answers = [0] * 6
        self.heads = Histogram()
        self.whole = Histogram()


class Metrics:
    """Plain integers: one event loop writes them. Bounds: as above; `most_tenants`, of which 0 counts none."""

    def __init__(self, most_tenants: int = 0) -> None:
        self.most_tenants = most_tenants
        self.resends: Counter[str] = Counter()
        self.unauthorized: Counter[str] = Counter()
        self._series: dict[str, Series] = {}
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._dials: Counter[str] = Counter()
        self._tenants: dict[str, Counter[str]] = {}

    def answered(self, integration: str, status: int, waited: float = -1.0) -> None:
        """An upstream's answer was passed, `waited` seconds after the whole request was sent; negative if before."""
        series = self._series.get(integration) or self._new(integration)
        series.answers[status // 100] += 1
        if waited >= 0:
            series.heads.add(waited)

    def took(self, integration: str, seconds: float) -> None:
        """An exchange that had a lease is over, answered or not."""
        (self._series.get(integration) or self._new(integration)).whole.add(seconds)

    def refused(self, reason: str, integration: str = "") -> None:
        """The sidecar answered by itself, or cut an answer."""
        key = (integration, reason)
        if key not in self._refusals and len(self._refusals) >= MOST_REFUSALS:
            key = (OTHER, reason)
        self._refusals[key] += 1

    def dialled(self, result: str) -> None:
        """A connection was made (`made`), or not: then why."""
        self._dials[result] += 1

    def of_tenant(self, tenant: str, result: str) -> None:
        """A tenant's request is over: `2xx` and so on, or `refused`. Tenants above the bound are counted together."""
        if tenant not in self._tenants and len(self._tenants) >= self.most_tenants:
            tenant = OTHER
        self._tenants.setdefault(tenant, Counter())[result] += 1

    def _new(self, integration: str) -> Series:
        if len(self._series) >= MOST_INTEGRATIONS:
            integration = OTHER
        return self._series.setdefault(integration, Series())

    def families(self) -> Iterator[Family]:
        """All of it, as it is now."""
        answers: dict[Labels, float] = {}
        for integration, series in self._series.items():
            for status, count in enumerate(series.answers):
                if count:
                    answers[("integration", integration), ("status", f"{status}xx")] = count
        yield counter("connectors_sidecar_responses_total", "Answers of upstreams that were passed on.", answers)
        yield counter(
            "connectors_sidecar_refusals_total",
            "Requests that the sidecar answered by itself, and answers that it cut; no integration is named before a lease.",
            {(("integration", name), ("reason", reason)): count for (name, reason), count in self._refusals.items()},
        )
        yield histogram(
            "connectors_sidecar_request_duration_seconds",
            "From a request's head to its answer's end, of requests that had a lease.",
            BOUNDS,
            {
                (("integration", name),): (series.whole.counts, series.whole.total)
                for name, series in self._series.items()
            },
        )
        yield histogram(
            "connectors_sidecar_upstream_response_seconds",
            "From the whole request sent to the head of the upstream's answer.",
            BOUNDS,
            {
                (("integration", name),): (series.heads.counts, series.heads.total)
                for name, series in self._series.items()
            },
        )
        yield _by("upstream_dials_total", "Connections to upstreams, made or not.", "result", self._dials)
        yield _by("resends_total", "Requests that were sent to the upstream again, by why.", "reason", self.resends)
        yield _by(
            "unauthorized_total",
            "401s to tokens that can be renewed: renewed, or passed on.",
            "result",
            self.unauthorized,
        )
        if self.most_tenants:
            yield counter(
                "connectors_sidecar_tenant_requests_total",
                "Requests that are over, by tenant.",
                {
                    (("result", result), ("tenant", tenant)): count
                    for tenant, results in self._tenants.items()
                    for result, count in results.items()
                },
            )


def _by(name: str, text: str, label: str, counts: Counter[str]) -> Family:
    return counter(f"connectors_sidecar_{name}", text, {((label, said),): count for said, count in counts.items()})
