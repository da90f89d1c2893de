"""The sidecar's own answers: why, and what to do next. Pure; holds no secret, no query and nothing that the upstream said.

Reasons are the contract's (error_reason.proto).  Source: RFC 9457.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from sidecar.framing import Malformed

TEXT: Mapping[str, tuple[int, str]] = {
    "MALFORMED_REQUEST": (400, "The request is malformed."),
    "INVALID_FIELD": (400, "The server finds the tenant or the credential malformed, or missing."),
    "WRONG_HOST": (
        421,
        "The Host header is not one of this listener's names: call the sidecar by the address it listens on.",
    ),
    "BROWSER_REFUSED": (403, "Requests of browser pages are refused here: call from a program, without Origin."),
    "METHOD_NOT_ALLOWED": (405, "TRACE and CONNECT are never passed on."),
    "NOT_IMPLEMENTED": (501, "The sidecar does not pass this protocol upgrade."),
    "API_KEY_MISSING": (
        403,
        "No app key came with the request: put it where the SDK's token goes (Authorization, X-Api-Key), or in X-Connectors-Key.",
    ),
    "API_KEY_INVALID": (403, "The app key is malformed, unknown, expired or revoked: use a current key."),
    "PERMISSION_DENIED": (403, "The key does not allow this: use a key with the scope for this tenant and credential."),
    "HOST_NOT_ALLOWED": (403, "The host was not sealed with the credential: connect again to allow it."),
    "ADDRESS_NOT_ALLOWED": (
        403,
        "The upstream has a private or reserved address: an admin may set `allow_private_addresses` on the integration.",
    ),
    "PATH_NOT_ALLOWED": (403, "The path is an OAuth endpoint of the provider, which is never called this way."),
    "TENANT_NOT_FOUND": (404, "There is no such tenant."),
    "INTEGRATION_NOT_FOUND": (404, "There is no such integration."),
    "CREDENTIAL_NOT_FOUND": (
        404,
        "The tenant has no such credential: connect it by CredentialService.StartAuthorization or StoreCredential.",
    ),
    "NEEDS_REAUTH": (
        401,
        "The provider refuses the credential: call CredentialService.StartAuthorization, and let a person follow its link.",
    ),
    "CREDENTIAL_EXPIRED": (
        401,
        "The access token has ended and can't be renewed: call CredentialService.StartAuthorization or StoreCredential.",
    ),
    "CREDENTIAL_REVOKED": (403, "The credential was revoked: connect again by CredentialService.StartAuthorization."),
    "CREDENTIAL_DISABLED": (403, "The credential is switched off: UpdateCredential with `enabled` lifts it."),
    "TENANT_SUSPENDED": (403, "The tenant is suspended: ResumeTenant lifts it."),
    "INTEGRATION_NOT_ENABLED": (403, "The tenant may not use this integration: an admin may allow it by UpdateTenant."),
    "PLACEHOLDER_UNRESOLVED": (
        503,
        "The credential lacks a field that its integration needs: store it with that field.",
    ),
    "INTEGRATION_NOT_CONFIGURED": (
        503,
        "The integration lacks what this needs: an admin sets it by UpdateIntegration.",
    ),
    "LIMIT_EXCEEDED": (429, "Too many at once: come again later."),
    "VAULT_UNAVAILABLE": (503, "The Vault does not answer, and no usable lease is held: retry in a moment."),
    "PROVIDER_UNAVAILABLE": (503, "The provider did not renew the token: retry in a moment."),
    "SERVER_UNAVAILABLE": (503, "The server can't be reached, and no usable lease is held: retry in a moment."),
    "UPSTREAM_UNREACHABLE": (
        502,
        "The upstream can't be reached, or broke the protocol: retry if the call may be repeated.",
    ),
    "UPSTREAM_TIMEOUT": (504, "The upstream did not answer in time."),
    "DEADLINE_EXCEEDED": (504, "The deadline ended first."),
    "INTERNAL": (500, "A bug of ours: report it, with the time and the sidecar's log."),
}
"""Status and what to do next, by reason."""
_PASSED_METADATA = frozenset(("tenant", "credential", "integration", "retry_after", "limit"))
_UNKNOWN = (503, "The server refused, for a reason that this sidecar does not know.")


class Problem(Exception):
    """A request that the sidecar answers itself. `close`: the connection can't be used any further.

    Units: retry_after in seconds.
    """

    def __init__(
        self,
        reason: str,
        detail: str | None = None,
        *,
        status: int | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(reason)
        known, text = TEXT.get(reason, _UNKNOWN)
        self.reason = reason
        self.status = status or known
        self.detail = detail or text
        self.metadata = {k: v for k, v in (metadata or {}).items() if k in _PASSED_METADATA}
        self.retry_after = retry_after
        self.close = close


def problem_of(error: Problem | Malformed) -> Problem:
    """A refusal as an answer."""
    if isinstance(error, Problem):
        return error
    return Problem("MALFORMED_REQUEST", str(error.args[0]), status=error.status, close=True)


def answer(problem: Problem, *, head_only: bool = False, keep_alive: bool = True) -> bytes:
    """The whole answer as bytes."""
    phrase = HTTPStatus(problem.status).phrase
    document = {
        "type": "about:blank",
        "title": phrase,
        "status": problem.status,
        "detail": problem.detail,
        "reason": problem.reason,
        **problem.metadata,
    }
    body = json.dumps(document).encode()
    retry_after = problem.retry_after
    if retry_after is None and problem.status in (429, 503):
        retry_after = 1.0
    lines = [
        f"HTTP/1.1 {problem.status} {phrase}",
        "Content-Type: application/problem+json",
        f"X-Connectors-Error: {problem.reason}",
        "Cache-Control: no-store",
        f"Content-Length: {len(body)}",
    ]
    if retry_after is not None:
        lines.append(f"Retry-After: {max(1, round(retry_after))}")
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    if not keep_alive:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head if head_only else head + body


def plain(status: int, text: str, *, head_only: bool, keep_alive: bool, kind: str = "text/plain") -> bytes:
    """A health check's answer, or the metrics page."""
    body = text.encode()
    close = b"" if keep_alive else b"Connection: close\r\n"
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nCache-Control: no-store\r\nContent-Length: %d\r\n%b\r\n"
    head %= (status, HTTPStatus(status).phrase.encode(), kind.encode(), len(body), close)
    return head if head_only else head + body
