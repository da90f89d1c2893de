"""Measurements as Prometheus text, and those of several processes as one. Pure; it knows neither what is measured nor who asks.

Source: Prometheus exposition formats, text format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Labels = tuple[tuple[str, str], ...]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    """One number. `suffix` follows the family's name: `_bucket`, `_sum` and `_count` of a histogram, else nothing."""

    suffix: str
    labels: Labels
    value: float


class Family(NamedTuple):
    """What stands under one name. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def counter(name: str, text: str, values: Mapping[Labels, float] | float) -> Family:
    """A number that only grows; its name ends in `_total`."""
    return Family(name, "counter", text, _plain(values))


def gauge(name: str, text: str, values: Mapping[Labels, float] | float) -> Family:
    """A number as it is just now."""
    return Family(name, "gauge", text, _plain(values))


def histogram(
    name: str, text: str, bounds: tuple[float, ...], found: Mapping[Labels, tuple[list[int], float]]
) -> Family:
    """Counts by upper bound. `found` has for each label set a count a bucket, one more than `bounds`, and the sum of all."""
    samples: list[Sample] = []
    for labels, (counts, total) in sorted(found.items()):
        upto = 0
        for bound, count in zip((*map(number, bounds), "+Inf"), counts, strict=True):
            upto += count
            samples.append(Sample("_bucket", (*labels, ("le", bound)), upto))
        samples += [Sample("_sum", labels, total), Sample("_count", labels, upto)]
    return Family(name, "histogram", text, tuple(samples))


def _plain(values: Mapping[Labels, float] | float) -> tuple[Sample, ...]:
    if isinstance(values, Mapping):
        return tuple(Sample("", labels, value) for labels, value in sorted(values.items()))
    return (Sample("", (), values),)


def merged(parts: Iterable[Iterable[Family]]) -> list[Family]:
    """Each sample summed over the parts; a gauge of two processes is what both have together."""
    found: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, Labels], float]] = {}
    for part in parts:
        for family in part:
            found.setdefault(family.name, family)
            mine = sums.setdefault(family.name, {})
            for suffix, labels, value in family.samples:
                mine[suffix, labels] = mine.get((suffix, labels), 0) + value
    return [
        family._replace(samples=tuple(Sample(*key, value) for key, value in sums[name].items()))
        for name, family in found.items()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """Those that go on counting when their process has ended: all but gauges."""
    return [family for family in families if family.kind != "gauge"]


def render(families: Iterable[Family]) -> str:
    """The page."""
    lines: list[str] = []
    for name, kind, text, samples in families:
        lines += [f"# HELP {name} {_escaped(text)}", f"# TYPE {name} {kind}"]
        for suffix, labels, value in samples:
            inside = ",".join(f'{key}="{_quoted(said)}"' for key, said in labels)
            lines.append(f"{name}{suffix}{{{inside}}} {number(value)}" if inside else f"{name}{suffix} {number(value)}")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """A whole number without a fraction."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def told(document: Any) -> list[Family]:
    """Families out of the JSON that they became on their way between two processes of ours."""
    return [
        Family(
            name,
            kind,
            text,
            tuple(Sample(suffix, tuple((k, v) for k, v in labels), value) for suffix, labels, value in samples),
        )
        for name, kind, text, samples in document
    ]
