"""Counters, and their Prometheus text. Labels are integrations, status classes and reasons: never a tenant, a path or a key."""

from __future__ import annotations

from collections import defaultdict


class Metrics:
    """Plain integers: one event loop writes them."""

    def __init__(self) -> None:
        self.dialled = 0
        self.answers: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)

    def answered(self, integration: str, status: int) -> None:
        """An upstream's answer was passed."""
        self.answers[integration, status // 100] += 1

    def refused(self, reason: str) -> None:
        """The sidecar answered by itself, or cut an answer."""
        self.refusals[reason] += 1

    def text(self, gauges: dict[str, int]) -> str:
        """Prometheus exposition format, version 0.0.4. `gauges` are read by the caller."""
        lines = ["# TYPE connectors_sidecar_responses_total counter"]
        for (integration, status), count in sorted(self.answers.items()):
            lines.append(
                f'connectors_sidecar_responses_total{{integration="{integration}",status="{status}xx"}} {count}'
            )
        lines.append("# TYPE connectors_sidecar_refusals_total counter")
        for reason, count in sorted(self.refusals.items()):
            lines.append(f'connectors_sidecar_refusals_total{{reason="{reason}"}} {count}')
        lines += [
            "# TYPE connectors_sidecar_upstream_dials_total counter",
            f"connectors_sidecar_upstream_dials_total {self.dialled}",
        ]
        for name, value in gauges.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE connectors_sidecar_{name} {kind}", f"connectors_sidecar_{name} {value}"]
        return "\n".join(lines) + "\n"
