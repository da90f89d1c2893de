"""A person at a browser, for connect links and consent pages: forms, redirects, cookies, Fetch Metadata."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx2

DEADLINE = 60.0
MOST_STEPS = 20


@dataclass(slots=True)
class _Form:
    action: str
    method: str
    fields: list[tuple[str, str, str]] = field(default_factory=list)  # type, name, value


class _FormFinder(HTMLParser):
    """The first form of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.form: _Form | None = None
        self._inside = False
        self._select: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag == "form" and self.form is None:
            self.form, self._inside = _Form(at.get("action", ""), at.get("method", "get").lower()), True
        if not self._inside or self.form is None:
            return
        if tag in ("input", "button"):
            kind = at.get("type", "text" if tag == "input" else "submit").lower()
            self.form.fields.append((kind, at.get("name", ""), at.get("value", "")))
        elif tag == "select":
            self._select = (at.get("name", ""), [])
        elif tag == "option" and self._select is not None:
            self._select[1].append(at.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "select" and self._select is not None and self.form is not None:
            name, options = self._select
            self.form.fields.append(("select", name, "\n".join(options)))
            self._select = None


class Browser:
    """A person at a browser: follows redirects, keeps cookies by host, fills in and submits what is asked."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client
        self.visited: list[str] = []

    async def consent(self, link: str, account: str = "alice", press: str | None = None) -> httpx2.Response:
        """Follow a connect link as a person does, until a page without a form; that page.

        On each form the first submit button is pressed, or the one whose value is `press` where there is one.
        Raises: RuntimeError if it does not end after 20 pages.
        """
        page = await self.open(link)
        for _ in range(MOST_STEPS):
            finder = _FormFinder()
            if page.headers.get("content-type", "").startswith("text/html"):
                finder.feed(page.text)
                finder.close()
            if finder.form is None:
                return page
            page = await self._submit(page, finder.form, account, press)
        raise RuntimeError("the pages go round in circles")

    async def open(self, link: str) -> httpx2.Response:
        """Go to a link as if it was typed in, and wherever it redirects."""
        return await self._go("GET", link, None, initiator=None)

    async def _submit(self, page: httpx2.Response, form: _Form, account: str, press: str | None) -> httpx2.Response:
        target = urljoin(str(page.url), form.action)
        data = _filled_in(form, account, press)
        if form.method == "get":
            target = str(httpx2.URL(target).copy_with(params=data))
            return await self._go("GET", target, None, initiator=str(page.url))
        return await self._go("POST", target, data, initiator=str(page.url))

    async def _go(self, method: str, url: str, data: dict[str, str] | None, initiator: str | None) -> httpx2.Response:
        chain: list[str] = []
        for _ in range(MOST_STEPS):
            chain.append(url)
            self.visited.append(url)
            headers = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
            headers |= {"Sec-Fetch-Site": _site(initiator, chain), "Accept": "text/html,*/*;q=0.8"}
            if method == "POST" and initiator is not None:
                headers["Origin"] = _origin(initiator) if len({_origin(u) for u in chain}) == 1 else "null"
            reply = await self.client.request(method, url, data=data, headers=headers, follow_redirects=False)
            if reply.status_code not in (301, 302, 303, 307, 308):
                return reply
            if reply.status_code not in (307, 308):
                method, data = "GET", None
            url = urljoin(url, reply.headers["location"])
        raise RuntimeError("redirected in circles")


def _filled_in(form: _Form, account: str, press: str | None) -> dict[str, str]:
    """What a person's browser sends for a form."""
    buttons = [(name, value) for kind, name, value in form.fields if kind in ("submit", "image")]
    pressed = next((pair for pair in buttons if pair[1] == press), buttons[0] if buttons else ("", ""))
    sent = {pressed[0]: pressed[1]} if pressed[0] else {}
    for kind, name, value in form.fields:
        if not name or kind in ("submit", "image", "button", "reset", "file"):
            continue
        if kind == "select":
            options = value.split("\n")
            sent[name] = account if account in options else options[0]
        elif kind == "password":
            sent[name] = "a password"
        elif kind in ("text", "email"):
            sent[name] = value or account
        elif kind in ("checkbox", "radio"):
            sent.setdefault(name, value or "on")
        else:
            sent[name] = value
    return sent


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _site(initiator: str | None, chain: list[str]) -> str:
    """`Sec-Fetch-Site` for a navigation. Source: W3C Fetch Metadata section 2.3."""
    if initiator is None:
        return "none"
    if all(_origin(url) == _origin(initiator) for url in chain):
        return "same-origin"
    same_host = all(urlsplit(url).hostname == urlsplit(initiator).hostname for url in chain)
    return "same-site" if same_host else "cross-site"


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with an empty cookie jar, that uses no proxy of this machine."""
    async with httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as client:
        yield Browser(client)
