"""What a definition's URLs and hosts may be, with and without placeholders. Pure; knows nothing of what they are for.

A placeholder never decides which host is meant but in two ways that can be told apart: the first part of a name whose end is
fixed, or the whole host. What fills one has no character that ends a host or a path segment (attacks 10, 14 and 37).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from itertools import islice, product

from connectors_grpc.domain.definition import Discovery, Input
from connectors_grpc.errors import FieldViolation
from connectors_grpc.inject import TargetRefused, parse_target
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.rules import Violations
from connectors_grpc.rules.texts import is_visible

Known = Mapping[str, Input | Discovery]
"""What may stand in a URL, by id."""

LONGEST_URL = 2048
MOST_SAMPLES = 64
NOTHING: Known = {}

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@\\]+)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9.-]{1,253})(?::(?P<port>[1-9][0-9]{0,4}))?")
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS name whose last label begins with a letter, so that no resolver reads it as a number (127.1, 0x7f000001)."""
_FIXED_END = re.compile(r"\{[a-z0-9_]+\}(?:\.[a-z0-9-]+){2,}")
_WHOLE = re.compile(r"\{[a-z0-9_]+\}")
_PART = re.compile(r"[A-Za-z0-9._~-]{1,253}")
"""What may fill a placeholder of a URL. Nothing in it ends a host or a segment."""
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[1-9][0-9]{0,4})?")


def url_violations(field: str, url: str, private: bool, known: Known = NOTHING, *, query: bool = True) -> Violations:
    """What is wrong with an absolute URL, or with a template of one: nothing, whatever fills it."""
    problem = _misplaced(url, known)
    if problem:
        yield FieldViolation(field, problem)
        return
    for sample in samples(url, known):
        violations = tuple(_plain(field, sample, private, query=query))
        if violations:
            yield from violations
            return


def is_host(host: str, private: bool, known: Known = NOTHING) -> bool:
    """Whether it is an authority (a name, perhaps with a port), or a template of one."""
    if _misplaced(f"https://{host}", known):
        return False
    return all(is_authority(sample, private) for sample in samples(host, known))


def names_in(template: str, known: Known) -> list[str]:
    """The known placeholders of a template, in order."""
    return [name for name in PLACEHOLDER.findall(template) if name in known]


def whole_host(url: str) -> str:
    """The placeholder that is the whole host of a URL's template; empty if there is none."""
    host = authority_of(url)
    return host[1:-1] if _WHOLE.fullmatch(host) else ""


def authority_of(url: str) -> str:
    """What stands between the scheme and the path, template or not."""
    return url.partition("://")[2].partition("/")[0]


def fits(url: str, name: str, value: str) -> bool:
    """Whether a value may fill that placeholder of a URL's template."""
    if whole_host(url) == name:
        return _HOST.fullmatch(value) is not None
    return _PART.fullmatch(value) is not None and value not in (".", "..")


def samples(template: str, known: Known) -> Iterator[str]:
    """The template as it may come out: with each of its choices, and a stand-in for whatever else fills it."""
    names = list(dict.fromkeys(names_in(template, known)))
    whole = whole_host(template if "://" in template else f"https://{template}")
    every = [_texts(known[name], "x1.example" if name == whole else "x1") for name in names]
    for chosen in islice(product(*every), MOST_SAMPLES):
        texts = dict(zip(names, chosen, strict=True))
        yield PLACEHOLDER.sub(lambda match, texts=texts: texts.get(match[1], match[0]), template)  # type: ignore[misc]


def _texts(one: Input | Discovery, stand_in: str) -> tuple[str, ...]:
    return tuple(one.choices.values()) if isinstance(one, Input) and one.choices else (stand_in,)


def _misplaced(url: str, known: Known) -> str:
    """What is wrong with where placeholders stand; empty if nothing is."""
    for name in names_in(url, known):
        one = known[name]
        if isinstance(one, Input) and (one.secret or (one.optional and not one.default)):
            return "no input that is secret, or may be left out"
    host = authority_of(url)
    found = names_in(host, known)
    free = [name for name in found if not (isinstance(one := known[name], Input) and one.choices)]
    if free and (len(found) > 1 or not _is_bounded(host, known[free[0]])):
        return "a placeholder is the first part of a host whose end is fixed (`{shop}.example.com`), or an input is all of it"
    if names_in(url.partition("?")[2], known):
        return "no placeholder in a query"
    return ""


def _is_bounded(host: str, one: Input | Discovery) -> bool:
    if _FIXED_END.fullmatch(host):
        return True
    return isinstance(one, Input) and _WHOLE.fullmatch(host) is not None


def _plain(field: str, url: str, private: bool, *, query: bool) -> Violations:
    if len(url) > LONGEST_URL or not is_visible(url):
        yield FieldViolation(field, f"a URL of up to {LONGEST_URL} visible ASCII characters")
        return
    parts = _URL.fullmatch(url)
    if parts is None or not is_authority(parts["authority"], private):
        yield FieldViolation(
            field,
            "an absolute https URL: a host's name in lower case, no user info, no fragment, no unknown placeholder",
        )
        return
    if parts["scheme"] != "https" and not private:
        yield FieldViolation(field, "https; http needs `allow_private_addresses`")
    if not query and parts["query"] is not None:
        yield FieldViolation(field, "no query")
    target = (parts["path"] or "/") + ("" if parts["query"] is None else f"?{parts['query']}")
    if not is_path(target):
        yield FieldViolation(field, "a path without dot segments, in which reserved characters are percent-encoded")


def is_authority(text: str, private: bool) -> bool:
    """A host's name and perhaps a port; a literal address only where private ones are allowed."""
    match = _AUTHORITY.fullmatch(text)
    if match is None or int(match["port"] or 1) > 65_535:
        return False
    host = match["host"]
    if _NAME.fullmatch(host) is not None:
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return private and host.startswith("[") == isinstance(address, IPv6Address)


def is_path(text: str) -> bool:
    """A path, perhaps with a query, that nobody reads in two ways."""
    if not is_visible(text) or len(text) > LONGEST_URL:
        return False
    try:
        parse_target(text.encode())
    except TargetRefused:
        return False
    return True
