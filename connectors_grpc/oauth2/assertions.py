"""JWTs that a client signs with a key of its own: to prove who it is, and as a grant. Pure: time and `jti` come in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from connectors_grpc.domain.definition import OAuth, OAuthClient, SigningAlgorithm
from connectors_grpc.oauth2.errors import ClientRefused
from connectors_grpc.secret import Secret

LIFETIME = timedelta(minutes=5)
LEEWAY = timedelta(seconds=60)
"""How far our clock may be ahead of the provider's."""
LONGEST_KEY = 8192
LEAST_RSA_BITS = 2048
_KEY = re.compile(r"\s*(?:-----BEGIN [A-Z ]*PRIVATE KEY-----|\{)[\x20-\x7e\r\n\t]*")


class KeyRefused(Exception):
    """The text is no private key that can sign. `args[0]` says what is wanted, never what came."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """When an assertion is made, and its unique id: new for each request."""

    now: datetime
    jti: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and how it signs. Its repr shows nothing."""

    key: RSAKey | ECKey
    algorithm: SigningAlgorithm
    key_id: str

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm})"

    def sign(self, claims: Mapping[str, str | int]) -> Secret:
        """A compact JWS.  Source: RFC 7515, RFC 7519."""
        header = {"alg": self.algorithm.value} | ({"kid": self.key_id} if self.key_id else {})
        return Secret(jwt.encode(header, dict(claims), self.key, algorithms=[self.algorithm.value]))


def looks_like_key(text: str) -> bool:
    """Whether a secret is a private key: such a one is never sent."""
    return _KEY.fullmatch(text) is not None


def signing_key(secret: Secret, algorithm: SigningAlgorithm | None = None, key_id: str = "") -> SigningKey:
    """A private key from PEM (PKCS 8, PKCS 1 or SEC 1, not encrypted) or JWK; a JWK's own `kid` comes first.

    Without `algorithm`: RS256 for RSA, ES256 for P-256.  Bounds: 8,192 characters; RSA of 2,048 bits or more.
    Raises: KeyRefused.
    """
    text = secret.reveal()
    if len(text) > LONGEST_KEY or not looks_like_key(text):
        raise KeyRefused("a private key as PEM or JWK is wanted, up to 8,192 characters")
    key = _import(text.strip())
    own = str(key.kid) if text.lstrip().startswith("{") and key.kid else key_id
    if isinstance(key, RSAKey):
        chosen = algorithm or SigningAlgorithm.RS256
        fits = chosen is not SigningAlgorithm.ES256
    else:
        chosen = algorithm or SigningAlgorithm.ES256
        fits = chosen is SigningAlgorithm.ES256
    if not fits:
        raise KeyRefused("RS256 and PS256 need an RSA key, ES256 one on P-256")
    return SigningKey(key, chosen, own)


def client_assertion(oauth: OAuth, client: OAuthClient, stamp: Stamp) -> Secret:
    """How a client proves itself by `private_key_jwt`.

    Raises: ClientRefused if the stored secret is no key that can sign.
    Source: RFC 7523 section 3, OpenID Connect Core section 9.
    """
    claims = {"iss": client.client_id, "sub": client.client_id, "aud": oauth.assertion_audience or oauth.token_endpoint}
    return key_of(oauth, client).sign({**claims, **times(stamp), "jti": stamp.jti})


def key_of(oauth: OAuth, client: OAuthClient) -> SigningKey:
    """The client's key. Raises: ClientRefused."""
    try:
        return signing_key(client.secret or Secret(""), oauth.signing_algorithm, client.key_id)
    except KeyRefused:
        raise ClientRefused(problem="signing_key") from None


def times(stamp: Stamp, lifetime: timedelta = LIFETIME) -> dict[str, int]:
    """`iat`, a little back so that a provider whose clock is behind takes it, and `exp`, so that both span `lifetime`."""
    issued = stamp.now - LEEWAY
    return {"iat": int(issued.timestamp()), "exp": int((issued + lifetime).timestamp())}


def _import(text: str) -> RSAKey | ECKey:
    try:
        key = _from_jwk(json.loads(text)) if text.startswith("{") else _from_pem(text)
    except (ValueError, TypeError, KeyError, RecursionError, UnsupportedAlgorithm, JoseError):
        key = None
    if key is None:  # after `except`: the libraries' exceptions may quote the key
        raise KeyRefused("a private RSA key of at least 2,048 bits, or one on P-256, not encrypted")
    return key


def _from_pem(text: str) -> RSAKey | ECKey | None:
    key = load_pem_private_key(text.encode("ascii"), password=None)
    if isinstance(key, RSAPrivateKey) and key.key_size >= LEAST_RSA_BITS:
        return RSAKey.import_key(key)
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return ECKey.import_key(key)
    return None


def _from_jwk(members: Any) -> RSAKey | ECKey | None:
    """Source: RFC 7517, RFC 7518 section 6."""
    if not isinstance(members.get("d"), str):
        return None
    if members.get("kty") == "RSA" and len(members["n"]) * 6 >= LEAST_RSA_BITS:
        return RSAKey.import_key(members)
    if members.get("kty") == "EC" and members.get("crv") == "P-256":
        return ECKey.import_key(members)
    return None
