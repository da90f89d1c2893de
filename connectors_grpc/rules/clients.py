"""What an OAuth client may be, the platform's or a tenant's own: its id, and secrets or a key to sign with. Pure."""

from __future__ import annotations

from connectors_grpc.domain.definition import ClientAuthentication, OAuth, OAuthClient
from connectors_grpc.errors import FieldViolation
from connectors_grpc.oauth2.assertions import KeyRefused, looks_like_key, signing_key
from connectors_grpc.rules import Violations
from connectors_grpc.rules.texts import is_printable, is_visible
from connectors_grpc.secret import Secret

MOST_SECRETS = 3


def client_violations(client: OAuthClient, oauth: OAuth | None = None) -> Violations:
    """What is wrong with an OAuth client, the platform's or a tenant's own; with `oauth`, for that definition."""
    if len(client.client_id) > 512 or not is_visible(client.client_id):
        yield FieldViolation("oauth_client.client_id", "1 to 512 visible ASCII characters")
    if client.key_id and (len(client.key_id) > 256 or not is_visible(client.key_id)):
        yield FieldViolation("oauth_client.key_id", "up to 256 visible ASCII characters")
    if len(client.others) > MOST_SECRETS or (client.others and client.secret is None):
        yield FieldViolation("oauth_client.client_secrets", f"up to {MOST_SECRETS}, besides `client_secret`")
    secrets = [] if client.secret is None else [("oauth_client.client_secret", client.secret)]
    for field, secret in (*secrets, *(("oauth_client.client_secrets", other) for other in client.others)):
        yield from _client_secret(field, secret, client.key_id, oauth)


def needs_secret(oauth: OAuth | None) -> bool:
    """Whether a client of that definition can't do without a secret, or a key."""
    return oauth is not None and (oauth.signs or oauth.client_authentication is not ClientAuthentication.NONE)


def _client_secret(field: str, secret: Secret, key_id: str, oauth: OAuth | None) -> Violations:
    text = secret.reveal()
    if looks_like_key(text):
        try:
            signing_key(secret, None if oauth is None else oauth.signing_algorithm, key_id)
        except KeyRefused as error:
            yield FieldViolation(field, str(error.args[0]))
        if oauth is not None and not oauth.signs:
            yield FieldViolation(field, "a secret: the definition signs nothing with a key")
    # A space may stand within (RFC 6749 appendix A.2); around it, it is a slip of whoever pasted.
    elif not 0 < len(text) <= 4096 or not is_printable(text) or text != text.strip():
        yield FieldViolation(field, "1 to 4,096 ASCII characters, without surrounding white space; or a private key")
    elif oauth is not None and oauth.signs:
        yield FieldViolation(field, "a private key as PEM or JWK: the definition signs with it")
