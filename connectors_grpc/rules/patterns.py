"""Regular expressions of definitions, by RE2: a match takes time that grows with the text alone, whatever an expression says.

So nobody who gives a value, a tenant or a provider, can make the server think for long. Knows nothing of definitions.
Source: https://github.com/google/re2/wiki/Syntax (no look-around, no back-references).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

from connectors_grpc.rules.texts import is_printable

LONGEST_PATTERN = 200
LONGEST_VALUE = 255
MOST_MEMORY = 256 * 1024
"""Bytes for a compiled expression: some 10,000 steps for each character of a text, at the very most."""


def pattern_problem(pattern: str) -> str:
    """What is wrong with a regular expression; empty if nothing is."""
    wanted = f"a regular expression of RE2 of up to {LONGEST_PATTERN} characters"
    if len(pattern) > LONGEST_PATTERN or not is_printable(pattern):
        return wanted
    compiled = _compiled(pattern)
    if compiled is None:
        return f"{wanted}, without look-around, back-references and large repetitions"
    return f"{wanted}, with one group at most" if compiled.groups > 1 else ""


def taken(pattern: str, text: str) -> str | None:
    """What the pattern takes of the whole text: its group, if it has one, else all; None if it does not match.

    Bounds: texts above 255 characters, and patterns that have a problem, match nothing.
    """
    compiled = _compiled(pattern)
    if compiled is None or len(text) > LONGEST_VALUE:
        return None
    try:
        match = compiled.fullmatch(text)
    except UnicodeEncodeError:  # half a surrogate pair, as JSON can have it
        return None
    if match is None:
        return None
    return (match[1] or "") if compiled.groups else text


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    """None for what is no expression of RE2's, or too large."""
    options = re2.Options()
    options.log_errors, options.max_mem = False, MOST_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None
