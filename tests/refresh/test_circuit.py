"""A provider that is down is not hammered."""

from __future__ import annotations

from connectors_grpc.circuit import FAILURES, LONGEST_OPEN, OPEN_FOR, Circuits


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_try() -> None:
    """Half-open: one probe, and the rest wait for what it says."""
    circuits = Circuits()
    for _ in range(FAILURES):
        assert circuits.wait("notion", 0.0) == 0
        circuits.failed("notion", 0.0)
    assert circuits.wait("notion", 1.0) == OPEN_FOR - 1
    assert circuits.wait("github", 1.0) == 0
    assert circuits.wait("notion", OPEN_FOR) == 0
    assert circuits.wait("notion", OPEN_FOR) > 0
    circuits.passed("notion")
    assert circuits.wait("notion", OPEN_FOR) == 0


def test_a_failed_probe_doubles_the_pause_up_to_a_cap() -> None:
    """And a probe that never asked gives its turn back."""
    circuits = Circuits()
    for _ in range(FAILURES + 1):
        circuits.failed("notion", 0.0)
    assert circuits.wait("notion", 0.0) == OPEN_FOR * 2
    assert circuits.wait("notion", OPEN_FOR * 2) == 0
    circuits.left("notion")
    assert circuits.wait("notion", OPEN_FOR * 2) == 0
    for _ in range(50):
        circuits.failed("notion", 0.0, retry_after=1e9)
    assert circuits.wait("notion", 0.0) == LONGEST_OPEN


def test_a_success_between_failures_keeps_it_closed() -> None:
    """Only failures in a row count."""
    circuits = Circuits()
    for _ in range(FAILURES * 3):
        circuits.failed("notion", 0.0)
        circuits.passed("notion")
    assert circuits.wait("notion", 0.0) == 0


def test_it_remembers_no_more_than_it_is_told_to() -> None:
    """The oldest is forgotten, which closes it."""
    circuits = Circuits(most=2)
    for name in ("a", "b", "c"):
        for _ in range(FAILURES):
            circuits.failed(name, 0.0)
    assert circuits.wait("a", 0.0) == 0
    assert circuits.wait("c", 0.0) > 0
