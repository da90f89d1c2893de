"""What a definition file may hold. Shapes only: what the values may be is said once, in `connectors_grpc/rules/`.

Field names and defaults are the domain's (`OAuth`, `Api`); lengths of time are written `90d`, `8h`, `30m` or `45s`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from connectors_grpc.domain.definition import (
    ACCESS_TOKEN_TYPE,
    BEARER,
    Api,
    BasicPlacement,
    ClientAuthentication,
    Discovery,
    Grant,
    Input,
    Integration,
    OAuth,
    Placement,
    RefreshRotation,
    ResetUnit,
    Retry,
    Revocation,
    SigningAlgorithm,
    Source,
    TokenRequestFormat,
)
from connectors_grpc.domain.ids import IntegrationId

_LENGTH = re.compile(r"([1-9][0-9]{0,8})([dhms])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def _length(value: Any) -> Any:
    match = _LENGTH.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a length of time as 90d, 8h, 30m or 45s")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


Length = Annotated[
    timedelta, BeforeValidator(_length), WithJsonSchema({"type": "string", "pattern": f"^{_LENGTH.pattern}$"})
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BasicFile(_Part):
    """Templates of `Authorization: Basic`."""

    username: str
    password: str = ""


class PlacementFile(_Part):
    """Where the credential stands in a request."""

    headers: dict[str, str] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    basic: BasicFile | None = None

    def to_domain(self) -> Placement:
        """The same in the domain's words."""
        basic = None if self.basic is None else BasicPlacement(self.basic.username, self.basic.password)
        return Placement(self.headers, self.query, basic)


class InputFile(_Part):
    """What a tenant must say before it can connect."""

    id: str
    title: str = ""
    pattern: str = ""
    choices: dict[str, str] = Field(default_factory=dict)
    example: str = ""
    default: str = ""
    optional: bool = False
    secret: bool = False

    def to_domain(self) -> Input:
        """The same in the domain's words."""
        return Input(**self.model_dump())


class DiscoveryFile(_Part):
    """What is found out once there is a token."""

    id: str
    pointer: str
    url: str = ""
    pattern: str = ""
    match_pointer: str = ""
    match: str = ""
    optional: bool = False
    example: str = ""

    def to_domain(self) -> Discovery:
        """The same in the domain's words."""
        return Discovery(**self.model_dump())


class RevocationFile(_Part):
    """How a grant is ended, where that is not RFC 7009."""

    url: str
    method: str = "POST"
    placement: PlacementFile = PlacementFile()
    format: Annotated[TokenRequestFormat, Field(strict=False)] = TokenRequestFormat.FORM
    parameters: dict[str, str] = Field(default_factory=dict)

    def to_domain(self) -> Revocation:
        """The same in the domain's words."""
        return Revocation(self.url, self.method, self.placement.to_domain(), self.format, self.parameters)


class OAuthFile(_Part):
    """The provider's OAuth 2.0 side. The client's authentication has no default: no two providers agree on it."""

    authorization_endpoint: str = ""
    token_endpoint: str
    refresh_endpoint: str = ""
    revocation_endpoint: str = ""
    issuer: str = ""
    iss_required: bool = False
    client_authentication: Annotated[ClientAuthentication, Field(strict=False)]
    token_request_format: Annotated[TokenRequestFormat, Field(strict=False)] = TokenRequestFormat.FORM
    pkce: bool = True
    scope_separator: str = " "
    scopes: list[str] = Field(default_factory=list)
    authorization_parameters: dict[str, str] = Field(default_factory=dict)
    token_parameters: dict[str, str] = Field(default_factory=dict)
    refresh_rotation: Annotated[RefreshRotation, Field(strict=False)] = RefreshRotation.AT_ONCE
    refresh_ends_access_token: bool = False
    default_access_token_ttl: Length | None = None
    refresh_token_idle_ttl: Length | None = None
    grant: Annotated[Grant, Field(strict=False)] = Grant.AUTHORIZATION_CODE
    device_authorization_endpoint: str = ""
    pushed_authorization_request_endpoint: str = ""
    resources: list[str] = Field(default_factory=list)
    signing_algorithm: Annotated[SigningAlgorithm | None, Field(strict=False)] = None
    assertion_audience: str = ""
    assertion_claims: dict[str, str] = Field(default_factory=dict)
    subject_token_type: str = ACCESS_TOKEN_TYPE
    scope_parameter: str = "scope"
    code_parameter: str = "code"
    token_headers: dict[str, str] = Field(default_factory=dict)
    token_pointer: str = ""
    terminal_errors: list[str] = Field(default_factory=list)
    revocation: RevocationFile | None = None
    introspection_endpoint: str = ""
    discovery: list[DiscoveryFile] = Field(default_factory=list)

    def to_domain(self) -> OAuth:
        """The same in the domain's words."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        fields |= {name: tuple(fields[name]) for name in ("scopes", "resources", "terminal_errors")}
        fields["discovery"] = tuple(one.to_domain() for one in self.discovery)
        fields["revocation"] = None if self.revocation is None else self.revocation.to_domain()
        return OAuth(**fields)


class RetryFile(_Part):
    """How the API says that it takes no more calls for now, and until when."""

    statuses: list[int] = Field(default_factory=lambda: list(Retry().statuses))
    remaining_header: str = ""
    reset_header: str = ""
    reset_unit: Annotated[ResetUnit, Field(strict=False)] = ResetUnit.SECONDS

    def to_domain(self) -> Retry:
        """The same in the domain's words."""
        return Retry(tuple(self.statuses), self.remaining_header, self.reset_header, self.reset_unit)


class ApiFile(_Part):
    """Where calls go, and how the credential is put in."""

    base_url: str
    allowed_hosts: list[str] = Field(default_factory=list)
    placement: PlacementFile | None = None
    default_headers: dict[str, str] = Field(default_factory=dict)
    identity_path: str = ""
    pass_cookies: bool = False
    account_pointer: str = ""
    ok_field: str = ""
    retry: RetryFile = RetryFile()
    identity_body: str = ""

    def to_domain(self) -> Api:
        """The same in the domain's words."""
        return Api(
            base_url=self.base_url,
            allowed_hosts=tuple(self.allowed_hosts),
            placement=BEARER if self.placement is None else self.placement.to_domain(),
            default_headers=self.default_headers,
            identity_path=self.identity_path,
            pass_cookies=self.pass_cookies,
            account_pointer=self.account_pointer,
            ok_field=self.ok_field,
            retry=self.retry.to_domain(),
            identity_body=self.identity_body,
        )


class DefinitionFile(_Part):
    """One file. `verified` says that every fact in it was re-checked against the vendor's documentation."""

    display_name: str
    verified: bool
    oauth: OAuthFile | None = None
    api: ApiFile
    allow_private_addresses: bool = False
    inputs: list[InputFile] = Field(default_factory=list)

    def to_domain(self, integration: IntegrationId) -> Integration:
        """The same in the domain's words."""
        return Integration(
            id=integration,
            display_name=self.display_name,
            source=Source.CATALOGUE,
            oauth=None if self.oauth is None else self.oauth.to_domain(),
            api=self.api.to_domain(),
            allow_private_addresses=self.allow_private_addresses,
            verified=self.verified,
            inputs=tuple(one.to_domain() for one in self.inputs),
        )
