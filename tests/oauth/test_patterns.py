"""Regular expressions of definitions: what they take, and that no text makes them think for long."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.catalogue import catalogue
from connectors_grpc.rules.patterns import LONGEST_PATTERN, LONGEST_VALUE, pattern_problem, taken


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+b", "(?:a|aa)+b", "(?:a|a){40}b", "a?" * 60 + "a" * 60 + "b", "a{0,99}" * 28 + "b", "(?:.*a){12}b"],
)
def test_an_expression_that_trial_and_error_would_not_end_with_ends(pattern: str) -> None:
    """Whoever gives the text: a tenant, or a provider."""
    assert pattern_problem(pattern) == ""
    assert taken(pattern, "a" * (LONGEST_VALUE - 1) + "!") is None


def test_what_is_too_large_to_be_matched_at_once_is_refused() -> None:
    """Repetitions multiply: an expression is refused by what it comes to, not only by its length."""
    for pattern in ("x{1001}", "(?:a{1,90}){1,90}", "[\\w-]{500}" * 20, "x" * (LONGEST_PATTERN + 1)):
        assert "RE2" in pattern_problem(pattern)


@pytest.mark.parametrize("pattern", ["(?=a)a", "(?<!a)b", r"(a)\1", "(", "a\nb", "(a)(b)"])
def test_what_can_not_be_taken_is_refused_and_matches_nothing(pattern: str) -> None:
    """A definition that was stored before there was such a rule takes no value: it fails closed."""
    assert pattern_problem(pattern)
    if pattern != "(a)(b)":
        assert taken(pattern, "a") is None


def test_of_a_group_only_that_part_is_taken() -> None:
    """One that matched nothing gives nothing; without a group, all of it; above the bound, and half a surrogate pair, none."""
    assert taken("https://([a-z]+)\\.example/?", "https://acme.example/") == "acme"
    assert taken("a(b)?", "a") == ""
    assert taken("[a-z]+", "acme") == "acme"
    assert taken("[a-z]+", "acme!") is None
    assert taken("a*", "a" * (LONGEST_VALUE + 1)) is None
    assert taken(".*", "\udcff") is None


def patterns_of_the_catalogue() -> list[str]:
    """Of every entry, inputs and discoveries."""
    found = []
    for entry in catalogue(None).values():
        found += [one.pattern for one in entry.inputs]
        found += [one.pattern for one in (entry.oauth.discovery if entry.oauth else ())]
    return sorted({pattern for pattern in found if pattern})


PATTERNS = patterns_of_the_catalogue()


@given(st.data())
def test_the_catalogues_expressions_mean_what_they_say_to_any_engine(data: st.DataObject) -> None:
    """RE2 and Python's take the same of the same text."""
    pattern = data.draw(st.sampled_from(PATTERNS))
    text = data.draw(st.one_of(st.from_regex(pattern, fullmatch=True), st.text("abAZ09._-/:", max_size=40)))
    match = re.fullmatch(pattern, text)
    wanted = None if match is None or len(text) > LONGEST_VALUE else (match[1] or "") if match.re.groups else match[0]
    assert taken(pattern, text) == wanted
