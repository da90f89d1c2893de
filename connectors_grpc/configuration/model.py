"""What the file may hold. Shapes only, and the source of its JSON Schema: what one value asks of another is checking.py's.

What the file does not say of a tenant that it names is the default, but for `suspended`, which is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainValidator, StringConstraints, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from connectors_grpc.configuration.interpolation import Given
from connectors_grpc.domain.ids import LABEL
from connectors_grpc.secret import Secret

SCHEMA_URL = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = r"\$\{"
LITERAL = "a secret stands here in the open: write ${NAME} or ${file:PATH} (--allow-literal-secrets takes it as it is)"
MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Hidden:
    """A secret, and how the file has it, which may be shown."""

    secret: Secret
    source: str


def _hidden(value: Any, info: ValidationInfo) -> Hidden:
    if not isinstance(value, str):
        raise PydanticCustomError("wanted", "a text is wanted")
    if not value:
        raise PydanticCustomError("wanted", "it is empty")
    if isinstance(value, Given):
        return Hidden(Secret(str(value)), value.source)
    if not (info.context or {}).get("literal_secrets"):
        raise PydanticCustomError("wanted", LITERAL)
    return Hidden(Secret(value), "the file")


HiddenText = Annotated[
    Hidden,
    PlainValidator(_hidden),
    WithJsonSchema({"type": "string", "pattern": REFERENCE, "description": "A secret: ${NAME} or ${file:PATH}."}),
]
Id = Annotated[str, StringConstraints(pattern=rf"^{LABEL.pattern}$")]
_TEXT = {"type": "string", "pattern": REFERENCE}
Flag = Annotated[bool, WithJsonSchema({"anyOf": [{"type": "boolean"}, _TEXT]})]
LabelValue = Annotated[str, StringConstraints(max_length=200)]
Labels = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=63)], LabelValue], Field(max_length=31)
]


def _count(most: int) -> Any:
    schema = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": most}, _TEXT]}
    return Annotated[int, Field(ge=0, le=most), WithJsonSchema(schema)]


class Part(BaseModel):
    """A part of the file: no field that is not here."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class Quota(Part):
    """What all credentials of a tenant together may use, of each server and of each sidecar. 0: no bound."""

    calls_at_once: _count(MOST) = 0  # type: ignore[valid-type]
    """Calls under way at the same time."""
    calls_per_second: _count(MOST) = 0  # type: ignore[valid-type]
    """Calls a second, one second's worth at once."""
    bytes_per_second: _count(1 << 40) = 0  # type: ignore[valid-type]
    """Bytes a second of both bodies, ten seconds' worth at once."""


class Basic(Part):
    """A user name and password."""

    username: str
    """Without a colon."""
    password: HiddenText
    """Its password."""


class OAuthTokens(Part):
    """OAuth tokens that were obtained elsewhere. Once stored, the server renews them: the file's are the first ones."""

    access_token: HiddenText
    """The access token."""
    refresh_token: HiddenText | None = None
    """The refresh token. Unset: it can't be renewed."""
    expire_time: AwareDatetime | None = None
    """When the access token ends, with an offset (`2027-01-01T00:00:00Z`)."""
    scopes: list[str] = Field(default_factory=list)
    """Scopes that it has."""


class Grant(Part):
    """What tokens are minted from, where no person takes part. Which fields are needed, the integration says."""

    installation_id: str | None = None
    """A GitHub App installation's number."""
    subject: str | None = None
    """Whom tokens are to act for."""
    subject_token: HiddenText | None = None
    """A token to exchange."""
    scopes: list[str] = Field(default_factory=list)
    """Scopes to ask for. Unset: the definition's."""


class Credential(Part):
    """One credential: at most one of `api_key`, `basic`, `oauth`, `grant`, `vault`. With none, a person connects it."""

    enabled: Flag = True
    """Whether it may be used."""
    labels: Labels = Field(default_factory=dict)
    """Metadata of the platform's own."""
    api_key: HiddenText | None = None
    """An API key."""
    fields: Annotated[dict[str, HiddenText], Field(max_length=16)] = Field(default_factory=dict)
    """Further secret fields that the integration's templates name, beside `api_key`."""
    basic: Basic | None = None
    """A user name and password."""
    oauth: OAuthTokens | None = None
    """Tokens obtained elsewhere."""
    grant: Grant | None = None
    """What tokens are minted from."""
    inputs: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)
    """What the integration's definition asks for beside the material, by id: a site, an account."""
    vault: str | None = None
    """Where the material lies in the Vault already: `secret/data/TENANT/NAME`, of this very tenant."""


class OAuthClient(Part):
    """An OAuth client registered at the provider."""

    client_id: str
    """Its id."""
    client_secret: HiddenText | None = None
    """Its secret, or its private key. Unset: what is stored is kept."""
    further_secrets: Annotated[list[HiddenText], Field(max_length=3)] = Field(default_factory=list)
    """Secrets to try after it, while it is being rotated."""
    key_id: str = ""
    """`kid` of the private key."""


class TenantIntegration(Part):
    """An integration as one tenant has it."""

    enabled: Flag = True
    """Whether the tenant may use it. What is not enabled is refused, and its credentials are left as they are."""
    oauth_client: OAuthClient | None = None
    """The tenant's own OAuth client, in place of the platform's. Unset: what is there is left as it is."""
    credentials: dict[Id, Credential] = Field(default_factory=dict)
    """By id; the first is usually named as the integration."""


class Tenant(Part):
    """A customer of the platform."""

    display_name: Annotated[str, StringConstraints(max_length=200)] = ""
    """For people. Unset: the id."""
    labels: Labels = Field(default_factory=dict)
    """Metadata of the platform's own."""
    suspended: Flag | None = None
    """Frozen: nothing is given out for it. Unset: it is left as it is."""
    quota: Quota | None = None
    """Unset: no bound."""
    integrations: Annotated[dict[Id, TenantIntegration], Field(max_length=1000)] | None = None
    """By id: it may use those that are listed and enabled, and no other. Unset: all."""


class PlatformIntegration(Part):
    """An integration of the platform: its OAuth client, and its definition unless it is the catalogue's."""

    display_name: Annotated[str, StringConstraints(max_length=200)] | None = None
    """For people."""
    oauth_client: OAuthClient | None = None
    """The platform's OAuth client."""
    oauth: dict[str, Any] | None = None
    """In the shape of connectors.v1.OAuth."""
    api: dict[str, Any] | None = None
    """In the shape of connectors.v1.Api."""
    allow_private_addresses: Flag | None = None
    """Allow hosts that resolve to private or loopback addresses."""


class Configuration(Part):
    """Tenants of a Connectors platform, as they are to be."""

    model_config = ConfigDict(title="Connectors tenants")

    schema_url: str | None = Field(default=None, alias="$schema")
    """Where this schema is, for editors."""
    owner: Id = "tenants"
    """Marks what this file manages, by the label `config-owner`: it prunes nothing else, and takes over nothing of another's."""
    integrations: dict[Id, PlatformIntegration] = Field(default_factory=dict)
    """The platform's own, by id. What is not listed is left as it is."""
    tenants: dict[Id, Tenant] = Field(default_factory=dict)
    """By id: lower-case DNS labels."""


class _Schema(GenerateJsonSchema):
    """Without a title for each field: the names say it."""

    schema_dialect = SCHEMA_URL

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def json_schema() -> dict[str, Any]:
    """The file's JSON Schema."""
    return {"$schema": SCHEMA_URL, **Configuration.model_json_schema(schema_generator=_Schema)}
