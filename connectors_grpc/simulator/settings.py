"""What a simulated provider is told before it starts: clients, accounts, and how each client is treated.

Values only. No secret is a constant here: whoever starts a simulator gives them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from connectors_grpc.simulator.misbehaviour import Endpoint, Habit, Misbehaviour

DEMO_CLIENT_ID = "demo-client"
SCOPES = ("notes.read", "notes.write", "offline_access")


@dataclass(frozen=True, slots=True)
class Static:
    """The refresh token never changes (Google, HubSpot, Dropbox)."""


@dataclass(frozen=True, slots=True)
class RotatingWithGrace:
    """A new refresh token each time; the old one works a while longer (Atlassian, Shopify).

    Units: `grace` is seconds since the old token was first used; None: until the new one is first used.
    Past the grace, using the old token is refused, and revokes the family if `reuse_revokes`.
    """

    grace: float | None = None
    reuse_revokes: bool = True


@dataclass(frozen=True, slots=True)
class RotatingAtOnce:
    """A refresh token works once; using it again revokes the whole family (RFC 9700 section 4.14.2)."""


Rotation = Static | RotatingWithGrace | RotatingAtOnce


@dataclass(frozen=True, slots=True)
class Client:
    """One registered OAuth client, and how the simulator treats it.

    Units: lifetimes are seconds; None means for ever. `refresh_lifetime` counts from the last use.
    A client without a secret is public and authenticates by its id and PKCE alone.
    """

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    redirect_uris: tuple[str, ...] = ()
    scopes: tuple[str, ...] = SCOPES
    access_lifetime: float | None = 3600
    refresh_lifetime: float | None = None
    rotation: Rotation = RotatingAtOnce()
    refresh_kills_access_token: bool = False
    require_pkce: bool = True
    issue_refresh_token: bool = True
    omit_refresh_token_on_refresh: bool = False
    omit_expires_in: bool = False
    extra_reply: Mapping[str, object] = field(default_factory=dict, repr=False)
    misbehaves: tuple[Misbehaviour | Habit, ...] = ()

    def __post_init__(self) -> None:
        """Refuse habits that leave no room for each other. Raises: ValueError."""
        for endpoint in Endpoint:
            if sum(habit.rate for habit in self.habits(endpoint)) > 1 + 1e-9:
                raise ValueError(f"the rates of what goes wrong at {endpoint.value} are more than 1 together")

    def habits(self, endpoint: Endpoint) -> tuple[Habit, ...]:
        """How it is answered wrongly there; a bare Misbehaviour is for each token request."""
        habits = (each if isinstance(each, Habit) else Habit(each) for each in self.misbehaves)
        return tuple(habit for habit in habits if habit.on is endpoint)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody with an account at the simulated provider; the key and password open the API-key routes."""

    name: str
    api_key: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """All that one simulator needs to know.

    Bounds: `host` is a loopback address or `localhost`; port 0 means any free port. With a `seed` every
    token can be foretold, which is the purpose: leave it None outside of tests and recorded demos.
    Raises: ValueError for any other host, or where an id or name is given twice.
    """

    clients: tuple[Client, ...]
    host: str = "127.0.0.1"
    port: int = 0
    seed: int | None = None
    accounts: tuple[Account, ...] = (Account("alice"), Account("bob"))
    auto_consent: bool = False
    state_file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what could never be served safely."""
        if not is_loopback(self.host):
            raise ValueError("the simulator binds loopback only: use 127.0.0.1, ::1 or localhost")
        if not 0 <= self.port <= 65535:
            raise ValueError("the port must be between 0 and 65535")
        if len({client.client_id for client in self.clients}) != len(self.clients):
            raise ValueError("two clients have the same id")
        if not self.accounts or len({account.name for account in self.accounts}) != len(self.accounts):
            raise ValueError("accounts must be given, each with its own name")

    @property
    def url(self) -> str:
        """The issuer: scheme, host and port, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or an address that never leaves this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def demo_client(client_secret: str, *redirect_uris: str) -> Client:
    """The client that the demo registers, under a secret that the caller made."""
    return Client(DEMO_CLIENT_ID, client_secret, redirect_uris)
