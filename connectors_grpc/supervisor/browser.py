"""A very small browser for the demo's connect link: follows redirects, keeps cookies, presses the first button of a form.

It talks to loopback only. Standard library, blocking.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

from connectors_grpc.addresses import Address, is_loopback

TIMEOUT: Final = 30.0
MOST_REDIRECTS: Final = 10
MOST_PAGE: Final = 1 << 20
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class BrowsingFailed(Exception):
    """A page did not come, or is not what was expected. The text holds no URL's query and no page's content."""


@dataclass(frozen=True, slots=True)
class Form:
    """The first form of a page, filled in as it came."""

    action: str
    method: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What a walk over redirects ended at."""

    url: str
    status: int
    form: Form | None = field(repr=False)


class Browser:
    """Cookies of a few origins. `places` says where an origin (`https://public.example`) is really reached."""

    def __init__(self, places: Mapping[str, Address], ca_file: Path | None = None) -> None:
        self._places = places
        self._ca_file = ca_file
        self._cookies: dict[str, dict[str, str]] = {}

    def open(self, url: str) -> Page:
        """Load a page.  Raises: BrowsingFailed."""
        return self._walk(url, "GET", b"")

    def submit(self, page: Page) -> Page:
        """Send the page's first form.  Raises: BrowsingFailed."""
        form = page.form
        if form is None:
            raise BrowsingFailed("there is no form")
        target, fields = urljoin(page.url, form.action or page.url), urlencode(form.fields)
        if form.method == "get":
            return self._walk(f"{target.partition('?')[0]}?{fields}", "GET", b"")
        return self._walk(target, "POST", fields.encode())

    def _walk(self, url: str, method: str, body: bytes) -> Page:
        for _ in range(MOST_REDIRECTS):
            status, location, html = self._fetch(url, method, body)
            if status not in _REDIRECTS or not location:
                return Page(url, status, first_form(html))
            url = urljoin(url, location)
            if status not in (307, 308):
                method, body = "GET", b""
        raise BrowsingFailed("too many redirects")

    def _fetch(self, url: str, method: str, body: bytes) -> tuple[int, str, str]:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        connection = self._connect(origin)
        headers = {"Host": parts.netloc, "Accept": "text/html", "User-Agent": "connectors-demo"}
        if cookies := self._cookies.get(origin):
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        if method == "POST":
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": origin}
        try:
            connection.request(method, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
            answer = connection.getresponse()
            html = answer.read(MOST_PAGE).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise BrowsingFailed(f"{origin} does not answer: {type(error).__name__}") from None
        finally:
            connection.close()
        self._keep(origin, answer.headers.get_all("Set-Cookie") or [])
        return answer.status, answer.headers.get("Location", ""), html

    def _connect(self, origin: str) -> http.client.HTTPConnection:
        parts = urlsplit(origin)
        tls = parts.scheme == "https"
        place = self._places.get(origin) or Address(parts.hostname or "", parts.port or (443 if tls else 80))
        if not is_loopback(place.host):
            raise BrowsingFailed("the demo goes to loopback only")
        if tls and self._ca_file is not None:
            context = ssl.create_default_context(cafile=str(self._ca_file))
            return http.client.HTTPSConnection(place.host, place.port, timeout=TIMEOUT, context=context)
        return http.client.HTTPConnection(place.host, place.port, timeout=TIMEOUT)

    def _keep(self, origin: str, lines: list[str]) -> None:
        """Keep what a page sets.  Source: RFC 6265 section 5.2, as far as one session of one origin needs it."""
        jar = self._cookies.setdefault(origin, {})
        for line in lines:
            pair, _, attributes = line.partition(";")
            name, _, value = pair.strip().partition("=")
            if "max-age=0" in attributes.lower().replace(" ", ""):
                jar.pop(name, None)
            else:
                jar[name] = value


def first_form(html: str) -> Form | None:
    """The first form of a page: hidden and filled fields, first options, and its first button. None if it has none."""
    reader = _FormReader()
    reader.feed(html)
    return reader.form()


class _FormReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self._head: tuple[str, str] | None = None
        self._open = False
        self._fields: dict[str, str] = {}
        self._button: tuple[str, str] | None = None
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in one element."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and self._head is None:
            self._head, self._open = (given.get("action", ""), given.get("method", "get").lower()), True
        if not self._open:
            return
        kind = given.get("type", "submit" if tag == "button" else "text").lower()
        name, value = given.get("name", ""), given.get("value", "")
        if tag in ("button", "input") and kind == "submit":
            self._button = self._button or (name, value)
        elif tag == "input" and name and (kind not in ("checkbox", "radio") or "checked" in given):
            self._fields[name] = value
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in given or self._select not in self._fields):
            self._fields[self._select] = value

    def handle_endtag(self, tag: str) -> None:
        """Leave one element."""
        if tag == "form":
            self._open = False
        elif tag == "select":
            self._select = ""

    def form(self) -> Form | None:
        """What was read."""
        if self._head is None:
            return None
        button = (self._button,) if self._button is not None and self._button[0] else ()
        return Form(self._head[0], self._head[1], (*self._fields.items(), *button))
