"""The few pages that people see, as text. Everything that varies is escaped; nothing is loaded from anywhere."""

from __future__ import annotations

from html import escape

from connectors_grpc.credentials.connecting import Invitation
from connectors_grpc.errors import ConnectorsError, Reason

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem;color:#1c2430}"
    "h1{font-size:1.4rem}button{font:inherit;padding:.6rem 1.4rem;border:0;border-radius:.4rem;background:#1c5fd4;color:#fff}"
    "li{word-break:break-all}.note{color:#5b6675;font-size:.9rem}"
)


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def invitation(invited: Invitation) -> str:
    """Who asks for what, before anything happens (attack 32)."""
    scopes = "".join(f"<li>{escape(scope)}</li>" for scope in invited.scopes)
    values = "".join(f"<li>{escape(title)}: {escape(value)}</li>" for title, value in invited.values.items())
    said = f"<p>It is for:</p><ul>{values}</ul>" if values else ""
    asks = f"<p>It asks for:</p><ul>{scopes}</ul>" if scopes else ""
    return _page(
        f"Connect {invited.integration}",
        f"<p>You are about to give <strong>{escape(invited.tenant)}</strong> access to your "
        f"<strong>{escape(invited.integration)}</strong> account.</p>{said}{asks}"
        '<form method="post"><button type="submit">Continue</button></form>'
        '<p class="note">If you did not expect this, close the page: nothing has happened yet.</p>',
    )


def connected(integration: str) -> str:
    """It worked."""
    return _page("Connected", f"<p>The {escape(integration)} account is connected. You can close this page.</p>")


ADVICE = {
    Reason.FLOW_NOT_FOUND: "This link has been used, is too old, or was begun in another browser. Ask for a new one.",
    Reason.AUTHORIZATION_REFUSED: "The access was not granted. To connect after all, ask for a new link and consent.",
    Reason.OAUTH_CLIENT_REFUSED: "The provider does not accept this platform's registration. Tell whoever runs it.",
    Reason.DEADLINE_EXCEEDED: "It takes longer than it should. Ask whoever sent you the link, before you connect again.",
    Reason.BROWSER_REFUSED: "Another page tried to go on for you. Open the link itself, and press the button there.",
    Reason.TENANT_SUSPENDED: "This account is suspended. Tell whoever sent you the link.",
}
"""What a person can do, where the error's own text speaks to developers."""


FOUND = {
    "discovery_several": "Your consent covers several sites or accounts. Say which one is meant to whoever sent you the link, "
    "and ask for a new one.",
    "discovery_missing": "Your consent covers no site or account that can be used. Ask for a new link, and choose one.",
    "discovery_refused": "Your account is at an address that this platform does not take. Tell whoever sent you the link.",
}
"""The same, where consent was given and what stands behind it can't be used."""


def problem(error: ConnectorsError) -> str:
    """It did not work, and what to do. Nothing that the provider sent is repeated, but a listed error code."""
    usual = ADVICE.get(error.reason, "That did not work. Ask for a new link, and try again in a moment.")
    advice = FOUND.get(error.metadata.get("problem", ""), usual)
    code = error.metadata.get("oauth_error", "")
    detail = f" ({escape(code)})" if code else ""
    return _page("Not connected", f'<p>{escape(advice)}</p><p class="note">{error.reason.value}{detail}</p>')
