"""A simulator's clients and accounts as people write them: a YAML file, and the short forms that the command line shares.

No secret stands in the file: it names files that hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError, model_validator

from connectors_grpc.simulator.misbehaviour import Habit
from connectors_grpc.simulator.settings import (
    SCOPES,
    Account,
    Client,
    RotatingAtOnce,
    RotatingWithGrace,
    Rotation,
    Static,
)

MOST = 1 << 20
LONGEST = 10 * 366 * 86400.0
ReadSecret = Callable[[Path], str]


class ConfigInvalid(Exception):
    """The file can't be used. `problems` name the fields, never their values."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse_rotation(text: object) -> Rotation:
    """`static`, `at-once`, `grace:SECONDS` or `grace:until-used`; `,keep-family` after grace: reuse revokes nothing.

    Raises: ValueError.
    """
    name = text.replace("_", "-") if isinstance(text, str) else ""
    if name == "static":
        return Static()
    if name == "at-once":
        return RotatingAtOnce()
    if name.startswith("grace:"):
        span, comma, more = name.removeprefix("grace:").partition(",")
        if (not comma or more == "keep-family") and (span == "until-used" or _is_seconds(span)):
            return RotatingWithGrace(None if span == "until-used" else float(span), reuse_revokes=not comma)
    raise ValueError("static, at-once, grace:SECONDS or grace:until-used is wanted (,keep-family after grace)")


def parse_lifetime(value: object) -> float | None:
    """Seconds, above 0 and up to ten years, or `forever`. Raises: ValueError."""
    if value == "forever":
        return None
    text = str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    if not _is_seconds(text) or float(text) == 0:
        raise ValueError("seconds, above 0 and up to ten years, or forever are wanted")
    return float(text)


def _is_seconds(text: str) -> bool:
    try:
        return text.isascii() and math.isfinite(float(text)) and 0 <= float(text) <= LONGEST
    except ValueError:
        return False


def _habits(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("a list of KIND[:RATE][@ENDPOINT] is wanted")
    return tuple(Habit.parse(each) for each in value)


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, hide_input_in_errors=True)


class _Account(_Written):
    name: str = Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")
    api_key_file: Path | None = None
    password_file: Path | None = None


class _Client(_Written):
    client_id: str = Field(pattern=r"^[\x21-\x7e]{1,128}$")
    client_secret_file: Path | None = None
    public: bool = False
    redirect_uris: tuple[str, ...] = ()
    scopes: tuple[str, ...] = SCOPES
    rotation: Annotated[
        InstanceOf[Static] | InstanceOf[RotatingWithGrace] | InstanceOf[RotatingAtOnce], BeforeValidator(parse_rotation)
    ] = RotatingAtOnce()
    access_lifetime: Annotated[float | None, BeforeValidator(parse_lifetime)] = 3600.0
    refresh_lifetime: Annotated[float | None, BeforeValidator(parse_lifetime)] = None
    refresh_kills_access_token: bool = False
    require_pkce: bool = True
    issue_refresh_token: bool = True
    omit_refresh_token_on_refresh: bool = False
    omit_expires_in: bool = False
    extra_reply: Mapping[str, Any] = Field(default_factory=dict)
    misbehave: Annotated[tuple[InstanceOf[Habit], ...], BeforeValidator(_habits)] = ()

    @model_validator(mode="after")
    def _says_how_it_proves_itself(self) -> _Client:
        if self.public == (self.client_secret_file is not None):
            raise ValueError("either client_secret_file or public: true is wanted")
        return self

    def client(self, read_secret: ReadSecret) -> Client:
        """As the simulator takes it. Raises: ValueError, and what `read_secret` raises."""
        plain = self.model_dump(include=set(Client.__dataclass_fields__) - {"rotation"})
        secret = None if self.client_secret_file is None else read_secret(self.client_secret_file)
        return Client(**plain, client_secret=secret, rotation=self.rotation, misbehaves=self.misbehave)


class _File(_Written):
    clients: tuple[_Client, ...] = Field(min_length=1, max_length=100)
    accounts: tuple[_Account, ...] = Field(default=(_Account(name="alice"), _Account(name="bob")), min_length=1)


def read_config(path: Path, read_secret: ReadSecret) -> tuple[tuple[Client, ...], tuple[Account, ...]]:
    """The clients and accounts in a YAML file; files that it names lie beside it.

    Bounds: 1 MiB, 100 clients.  Raises: ConfigInvalid, OSError, and what `read_secret` raises.
    """
    with path.open("rb") as stream:
        content = stream.read(MOST + 1)
    if len(content) > MOST:
        raise ConfigInvalid("at most 1 MiB is taken")
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigInvalid("it is not YAML") from None
    try:
        written = _File.model_validate(document)
    except ValidationError as error:
        raise ConfigInvalid(
            *(_problem(each) for each in error.errors(include_input=False, include_url=False))
        ) from None

    def beside(name: Path) -> str:
        return read_secret(path.parent / name)

    clients = []
    for number, each in enumerate(written.clients):
        try:
            clients.append(each.client(beside))
        except ValueError as error:
            raise ConfigInvalid(f"clients.{number}: {error}") from None
    accounts = tuple(
        Account(
            each.name,
            api_key=beside(each.api_key_file) if each.api_key_file else None,
            password=beside(each.password_file) if each.password_file else None,
        )
        for each in written.accounts
    )
    return tuple(clients), accounts


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith("is-instance["))
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text
