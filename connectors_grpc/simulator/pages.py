"""The simulator's HTML pages: what it is, its login and consent form, its refusals. Everything put in is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    # No form-action: browsers apply it to the redirect after the form too, which leads to the client.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}"
    ".note{border:2px dashed #b45309;padding:.5rem 1rem}button,select{font:inherit;padding:.3rem .8rem}"
)
BANNER = '<p class="note" role="note"><strong>Simulator.</strong> No real service, no real accounts.</p>'


def front(url: str) -> str:
    """What somebody sees who opens the simulator's address."""
    return _page(
        "Simulated provider",
        "<p>An OAuth 2.0 authorization server and a notes API, for demos and tests.</p><ul>"
        f"<li>Metadata: <a href='{escape(url)}/.well-known/oauth-authorization-server'>"
        "/.well-known/oauth-authorization-server</a></li>"
        "<li>API: /v1/notes, /v1/whoami, /v1/echo, /v1/stream, /v1/bytes/{n}</li>"
        f"<li>What it saw: <a href='{escape(url)}/-/record'>/-/record</a></li></ul>",
    )


def consent(hidden: Mapping[str, str], accounts: tuple[str, ...], client_id: str, scope: str) -> str:
    """The login and consent form; it posts back the authorization request it was opened with."""
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in hidden.items()
    )
    options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in accounts)
    return _page(
        "Allow access?",
        f"<p><strong>{escape(client_id)}</strong> asks for: <code>{escape(scope)}</code></p>"
        f'<form method="post" action="/authorize">{fields}'
        f'<p><label>Sign in as <select name="account">{options}</select></label></p>'
        '<p><button type="submit" name="decision" value="allow">Allow</button> '
        '<button type="submit" name="decision" value="deny">Deny</button></p></form>',
    )


def refusal(description: str) -> str:
    """Why nothing was granted, where the client can't be told."""
    return _page("Not possible", f"<p>{escape(description)}</p>")


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)} - simulator</title>'
        f"<style>{STYLE}</style><main>{BANNER}<h1>{escape(title)}</h1>{body}</main></html>"
    )
