"""What each process is told before it starts: one model a process, read from flags, `CONNECTORS_*`, and a file, in that order.

Values only: nothing is opened here but the settings file. No setting is a secret; secrets lie in files that settings name.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from connectors_grpc.addresses import (
    Address,
    check_url,
    check_vault_address,
    default_state_dir,
    require_tls_unless_loopback,
)
from connectors_grpc.certificates import read_certificates

PREFIX = "CONNECTORS_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
MOST_FILE = 1 << 20
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104  (what others may write)


def _listen(value: object) -> object:
    return Address.parse(value) if isinstance(value, str) else value


def _public(text: str) -> str:
    check_url(text, "https://host, or http:// on loopback,")
    return text.rstrip("/")


def _old_path(text: str) -> str:
    if "/" not in text.strip("/"):
        raise ValueError("a mount and a folder are wanted, as in secret/tenants")
    return text.strip("/")


def _certificates(text: str) -> str:
    read_certificates(text.split())
    return text


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100  (resolve() would follow links)


Listen = Annotated[Address, NoDecode, BeforeValidator(_listen)]
AnyPath = Annotated[Path, AfterValidator(_absolute)]
Model = TypeVar("Model", bound="ServerSettings")


class ServerSettings(BaseSettings):
    """What `connectors serve` needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    state_dir: AnyPath = Field(default_factory=default_state_dir, description="Where state, keys and logs lie.")
    grpc_listen: Listen = Field(Address("127.0.0.1", 50051), description="Where the gRPC API listens.")
    http_listen: Listen = Field(Address("127.0.0.1", 3000), description="Where REST, connect links and console listen.")
    public_url: Annotated[str, AfterValidator(_public)] | None = Field(
        None, description="What browsers and providers reach the HTTP port by. Unset: http://{http_listen}."
    )
    vault_addr: Annotated[str, AfterValidator(check_vault_address)] | None = Field(
        None,
        description="An existing Vault or OpenBao: https://host:8200, http:// on loopback, or unix:///path; "
        "several nodes of one cluster are separated by commas.",
    )
    vault_role_id: str | None = Field(None, description="AppRole role id. Unset: it stands in the secret id's file.")
    vault_secret_id_file: AnyPath | None = Field(
        None, description="A file with the AppRole secret id, or JSON with role_id and secret_id."
    )
    vault_token_file: AnyPath | None = Field(None, description="A file with a Vault token, in place of an AppRole.")
    vault_ca_file: AnyPath | None = Field(None, description="CA certificates (PEM) for the Vault. Unset: the system's.")
    vault_namespace: str | None = Field(None, description="The Vault's namespace. Unset: none.")
    tls_cert: AnyPath | None = Field(None, description="Certificate chain (PEM) of both listeners. Unset: no TLS.")
    tls_key: AnyPath | None = Field(None, description="Private key (PEM) of tls_cert.")
    outbound_ca_file: AnyPath | None = Field(
        None, description="CA certificates (PEM) for providers. Unset: the system's."
    )
    client_certs: Annotated[str, AfterValidator(_certificates)] | None = Field(
        None,
        description="Client certificates for the calls that the server makes: INTEGRATION=CHAIN,KEY (PEM files), "
        "separated by spaces. Unset: none.",
    )
    catalogue_dir: AnyPath | None = Field(
        None,
        description="A folder of definitions (YAML) that add to the catalogue, or stand in for its entries of the same name. "
        "Read at the start. Unset: none.",
    )
    bootstrap_keys: AnyPath | None = Field(
        None,
        description="A directory for admin.key and sidecar.key, made where there is no key yet. Unset: none is made.",
    )
    legacy_reads: Annotated[str, AfterValidator(_old_path)] | None = Field(
        None,
        description="While a migration runs: where old records lie in the same Vault, as in secret/tenants. What is not cut "
        "over is read there. Unset: nothing is.",
    )
    legacy_map: AnyPath | None = Field(
        None, description="The migration's --map: CSV lines `old,new`. Unset: old tenants kept their ids."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")

    @property
    def base_url(self) -> str:
        """`public_url`, or what follows from the listener."""
        return self.public_url or f"{'https' if self.tls_cert else 'http'}://{self.http_listen}"

    @model_validator(mode="after")
    def _fit_together(self) -> ServerSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or neither")
        for name in ("grpc_listen", "http_listen"):
            address: Address = getattr(self, name)
            try:
                require_tls_unless_loopback(address, tls=self.tls_cert is not None)
            except ValueError as error:
                raise ValueError(f"{name}: {error}; give tls_cert and tls_key, or listen on 127.0.0.1") from None
        if self.http_listen.path:
            raise ValueError("http_listen: HOST:PORT is wanted, as browsers can't reach a Unix socket")
        if self.public_url is None and self.http_listen.host in WILDCARDS:
            raise ValueError(
                "public_url: it must be given where http_listen is on every interface, as links are made of it"
            )
        if self.vault_token_file and (self.vault_role_id or self.vault_secret_id_file):
            raise ValueError("vault_token_file and an AppRole exclude each other: give one of the two")
        if self.vault_role_id and not self.vault_secret_id_file:
            raise ValueError("vault_role_id needs vault_secret_id_file")
        if self.legacy_map and not self.legacy_reads:
            raise ValueError("legacy_map: it needs legacy_reads")
        if self.vault_addr and not (self.vault_token_file or self.vault_secret_id_file):
            raise ValueError("vault_addr needs vault_secret_id_file (with vault_role_id), or vault_token_file")
        return self


class UpSettings(ServerSettings):
    """What `connectors up` needs: the server's settings, and those of what it starts beside it."""

    sidecar_listen: Listen = Field(
        Address("127.0.0.1", 15001), description="Where the sidecar listens: loopback, or unix:/path."
    )
    demo: bool = Field(False, description="Start a simulated provider too, and connect a demo tenant to it.")
    simulator_listen: Listen = Field(
        Address("127.0.0.1", 15080), description="Where the demo's simulated provider listens: loopback."
    )
    seal_key: AnyPath | None = Field(
        None, description="The seal key of the embedded OpenBao. Unset: vault/seal.key in the state directory."
    )

    @model_validator(mode="after")
    def _have_one_vault(self) -> UpSettings:
        if self.vault_addr and self.seal_key:
            raise ValueError("seal_key: it is the embedded OpenBao's; leave it out with vault_addr")
        for name in ("vault_role_id", "vault_secret_id_file", "vault_token_file", "vault_ca_file", "vault_namespace"):
            if getattr(self, name) and not self.vault_addr:
                raise ValueError(f"{name}: it needs vault_addr; without that the embedded OpenBao is used")
        return self

    @model_validator(mode="after")
    def _stay_local(self) -> UpSettings:
        for name in ("sidecar_listen", "simulator_listen"):
            address: Address = getattr(self, name)
            if not address.is_local:
                raise ValueError(f"{name}: only loopback is served; use 127.0.0.1")
        for name in ("grpc_listen", "http_listen", "sidecar_listen", "simulator_listen"):
            listen: Address = getattr(self, name)
            if not listen.path and not listen.port:
                raise ValueError(f"{name}: the port must be given, as others are told of it; 0 won't do")
        return self


class SettingsInvalid(Exception):
    """Settings that can't be used; each problem names the setting, where it came from and what is wanted."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(model: type[Model], flags: Mapping[str, Any], config: Path | None = None) -> Model:
    """Settings from `flags` (None means not given), the environment and the file, the first that has one.

    Bounds: the file has at most 1 MiB.  Raises: SettingsInvalid.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    path = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    filed = {} if path is None else _read(path)
    if unknown := sorted(set(filed) - set(UpSettings.model_fields)):
        raise SettingsInvalid(
            tuple(f"{name} ({path}): there is no such setting; `connectors settings` lists them" for name in unknown)
        )
    below = {
        name: value
        for name, value in filed.items()
        if name in model.model_fields and not os.environ.get(variable(name))
    }
    try:
        return model(**(below | given))
    except ValidationError as error:
        raise SettingsInvalid(
            tuple(_problem(item, given, below, path) for item in error.errors(include_input=False))
        ) from None


def _problem(item: Any, given: Mapping[str, Any], filed: Mapping[str, Any], path: Path | None) -> str:
    """One error of pydantic in our words: setting, source, what is wanted. The value is not repeated."""
    text = str(item["msg"]).removeprefix("Value error, ")
    named = text.partition(":")[0]
    name = str(item["loc"][0]) if item["loc"] else named if named in UpSettings.model_fields else ""
    if not name:
        return text
    text = text.removeprefix(f"{name}: ")
    if name in given:
        source = flag(name)
    elif os.environ.get(variable(name)):
        source = variable(name)
    else:
        source = str(path) if name in filed else "default"
    return f"{name} ({source}): {text}"


def _read(path: Path) -> dict[str, Any]:
    """The file's settings.  Raises: SettingsInvalid."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsInvalid((f"config ({path}): it can't be read: {error.strerror}",)) from None
    if len(content) > MOST_FILE:
        raise SettingsInvalid((f"config ({path}): it is larger than 1 MiB",))
    is_yaml = path.suffix in (".yaml", ".yml")
    try:
        found = (yaml.safe_load(content) or {}) if is_yaml else tomllib.loads(content.decode())
    except (ValueError, yaml.YAMLError):
        raise SettingsInvalid((f"config ({path}): it is not {'YAML' if is_yaml else 'TOML'}",)) from None
    if not isinstance(found, dict):
        raise SettingsInvalid((f"config ({path}): names and values are wanted, as in `grpc_listen: 127.0.0.1:50051`",))
    return {str(name): value for name, value in found.items()}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The command line flag of a setting."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Described:
    """One setting, as the documentation lists it."""

    name: str
    process: str
    flag: str
    variable: str
    default: str
    description: str


def describe() -> Iterator[Described]:
    """Every setting of every process, in the order of the models. The documentation is made from this."""
    for name, info in UpSettings.model_fields.items():
        process = "serve, up" if name in ServerSettings.model_fields else "up"
        match name, info.default:
            case "state_dir", _:
                default = "$XDG_STATE_HOME/connectors or ~/.local/state/connectors"
            case "public_url", _:
                default = "http://{http_listen}"
            case _, None:
                default = ""
            case _, bool(value):
                default = str(value).lower()
            case _, value:
                default = str(value)
        yield Described(name, process, flag(name), variable(name), default, info.description or "")
