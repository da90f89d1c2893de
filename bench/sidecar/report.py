"""What a run says: ratios first, then the figures, and a plot. Pure but for reading the machine's description."""

from __future__ import annotations

import datetime as dt
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

OURS = ("ours", "ours-compiled")


@dataclass(frozen=True, slots=True)
class Row:
    """One round. Units: microseconds, requests a second, MiB."""

    case: str
    peer: str
    round: int
    cpu: float
    kernel: float
    """What of `cpu` the kernel took, by its ticks."""
    rate: float
    p50: float
    p99: float
    p999: float
    rss: float
    errors: int


def middle(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """The median of the rounds, by case and peer; errors are summed."""
    out: dict[tuple[str, str], Row] = {}
    for case, peer in dict.fromkeys((row.case, row.peer) for row in rows):
        every = [row for row in rows if (row.case, row.peer) == (case, peer)]
        figures = [
            median(getattr(row, name) for row in every)
            for name in ("cpu", "kernel", "rate", "p50", "p99", "p999", "rss")
        ]
        out[case, peer] = Row(case, peer, len(every), *figures, errors=sum(row.errors for row in every))
    return out


def table(rows: Sequence[Row]) -> str:
    """In Markdown: the ratios of each of ours, then the figures."""
    found = middle(rows)
    lines: list[str] = []
    for name in dict.fromkeys(peer for _, peer in found if peer in OURS):
        lines += [*_ratios(found, name), ""]
    lines += [
        "| case | peer | CPU us/request | in the kernel | requests/s | p50 us | p99 us | p99.9 us | RSS MiB | errors |"
    ]
    lines.append("|---|---|" + "---:|" * 8)
    for (case, peer), row in found.items():
        cpu = "-" if peer == "no proxy" else f"{row.cpu:,.1f}"
        lines.append(f"| {case} | {peer} | {cpu} | {row.kernel:,.1f} | {row.rate:,.0f} | {row.p50:,.0f} | {row.p99:,.0f} | "
                     f"{row.p999:,.0f} | {row.rss:.0f} | {row.errors} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def _ratios(found: Mapping[tuple[str, str], Row], name: str) -> list[str]:
    peers = [peer for peer in dict.fromkeys(peer for _, peer in found) if peer not in (*OURS, "no proxy")]
    lines = [f"CPU of {name} by the peer's (below 1: {name} is cheaper)", "", "| case | " + " | ".join(peers) + " |"]
    lines.append("|---|" + "---:|" * len(peers))
    for case in dict.fromkeys(case for case, _ in found):
        ours = found.get((case, name))
        cells = [f"{ours.cpu / found[case, peer].cpu:.2f}" if ours and (case, peer) in found and found[case, peer].cpu
                 else "-" for peer in peers]  # fmt: skip
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return lines


def svg(rows: Sequence[Row]) -> str:
    """CPU a request in the base case as bars; what is above 400 fills the width."""
    found = middle(rows)
    bars = sorted((row.cpu, peer) for (case, peer), row in found.items() if case == "base")
    height = 40 + 28 * len(bars)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" font-family="sans-serif" font-size="13">',
           '<text x="10" y="20">CPU a request, base case (µs)</text>']  # fmt: skip
    longest = max((cpu for cpu, _ in bars), default=1)
    for at, (cpu, peer) in enumerate(bars):
        y = 36 + 28 * at
        width = 380 * min(1.0, cpu / min(longest, 400))
        colour = "#2a6fbb" if peer in OURS else "#9aa5b1"
        out.append(f'<text x="10" y="{y + 14}">{peer}</text>')
        out.append(f'<rect x="130" y="{y}" width="{width:.0f}" height="18" fill="{colour}"/>')
        out.append(f'<text x="{138 + width:.0f}" y="{y + 14}">{cpu:,.0f}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def machine() -> dict[str, str]:
    """Without a host's name."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")  # fmt: skip
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
