"""The demo: one integration, one tenant, one credential connected by a genuine flow, one app key. Made once, then found again.

An API client like any other: it holds the admin key and knows the contract alone.
"""

from __future__ import annotations

import shlex
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click
import grpc

from connectors_grpc.cli.connection import KeyUnusable, Session
from connectors_grpc.cli.errors import read
from connectors_grpc.embedded import StateLayout
from connectors_grpc.embedded.files import write_private
from connectors_grpc.gen.connectors.v1 import (
    access_service_pb2,
    credential_service_pb2,
    proxy_service_pb2,
    tenant_service_pb2,
)
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.settings import UpSettings
from connectors_grpc.supervisor.browser import Browser, BrowsingFailed
from connectors_grpc.supervisor.parts import client_secret_file, dialable, server_address
from connectors_grpc.supervisor.problem import Problem
from connectors_grpc.supervisor.report import Report

NAME = "demo"
APP_KEY = "demo-app"
CLIENT_ID = "demo-client"
SCOPES = ("notes.read", "notes.write", "offline_access")
WHOAMI = "/v1/whoami"
MOST_FORMS = 5
OK = 200
TIMEOUT = 30.0


def set_up(settings: UpSettings, layout: StateLayout, report: Report) -> str:
    """Make what is missing, mend what is broken; the curl line that shows it. Blocking.  Raises: Problem."""
    demo = _Demo(
        settings, layout, Session(server_address(settings), layout.keys / "admin.key", settings.tls_cert, TIMEOUT)
    )
    report.starting("demo")
    try:
        changed = demo.integration()
        demo.tenant()
        if changed or not demo.works():
            demo.connect()
        demo.app_key()
    except KeyUnusable as error:
        raise Problem(
            f"The demo can't be set up: {error.message}", "Put the admin key back, or start without --demo."
        ) from None
    except grpc.RpcError as error:
        refusal = read(cast(grpc.Call, error))
        text = f"The demo can't be set up: {refusal.reason}: {refusal.message}"
        raise Problem(text, f"See {layout.logs / 'server.log'}.") from None
    except (BrowsingFailed, click.ClickException) as error:
        raise Problem(f"The demo can't be connected: {error}.", f"See {layout.logs / 'server.log'}.") from None
    finally:
        demo.session.close()
    report.note(f"{'demo':<10} connected")
    return demo.curl()


@dataclass(frozen=True, slots=True)
class _Demo:
    """The steps; each looks first."""

    settings: UpSettings
    layout: StateLayout
    session: Session

    @property
    def key_file(self) -> Path:
        """The app's key."""
        return self.layout.keys / f"{APP_KEY}.key"

    @property
    def header_file(self) -> Path:
        """The app's key as a header, for curl: so it is in no process' arguments."""
        return self.layout.keys / f"{APP_KEY}.header"

    def integration(self) -> bool:
        """See that the integration is there and points at the simulator; whether that changed."""
        wanted = self._wanted()
        stub = self.session.integrations
        try:
            found = stub.GetIntegration(integrations.GetIntegrationRequest(integration=NAME)).integration
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            request = integrations.CreateIntegrationRequest(
                integration_id=NAME, integration=wanted, request_id=str(uuid.uuid4())
            )
            stub.CreateIntegration(request)
            return True
        if (found.api.base_url, found.oauth.token_endpoint) == (wanted.api.base_url, wanted.oauth.token_endpoint):
            return False
        wanted.id, wanted.etag = NAME, found.etag
        update = integrations.UpdateIntegrationRequest(integration=wanted)
        update.update_mask.paths.extend(("oauth", "api", "oauth_client", "allow_private_addresses"))
        stub.UpdateIntegration(update)
        return True

    def _wanted(self) -> integrations.Integration:
        provider = f"http://{self.settings.simulator_listen}"
        secret = client_secret_file(self.layout).read_text(encoding="ascii").strip()
        return integrations.Integration(
            display_name="Demo notes (simulated)",
            oauth=integrations.OAuth(
                authorization_endpoint=f"{provider}/authorize",
                token_endpoint=f"{provider}/token",
                revocation_endpoint=f"{provider}/revoke",
                issuer=provider,
                iss_required=True,
                scopes=SCOPES,
            ),
            api=integrations.Api(base_url=provider, identity_path=WHOAMI),
            oauth_client=integrations.OAuthClient(client_id=CLIENT_ID, client_secret=secret),
            allow_private_addresses=True,
        )

    def tenant(self) -> None:
        """See that the tenant is there."""
        try:
            self.session.tenants.GetTenant(tenant_service_pb2.GetTenantRequest(tenant=NAME))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            wanted = tenant_service_pb2.Tenant(display_name="Demo")
            self.session.tenants.CreateTenant(
                tenant_service_pb2.CreateTenantRequest(tenant_id=NAME, tenant=wanted, request_id=str(uuid.uuid4()))
            )

    def works(self) -> bool:
        """Whether the credential is active, and the provider takes it."""
        try:
            request = credential_service_pb2.GetCredentialRequest(tenant=NAME, credential=NAME)
            found = self.session.credentials.GetCredential(request).credential
            if found.state != credential_service_pb2.Credential.STATE_ACTIVE:
                return False
            verify = credential_service_pb2.VerifyCredentialRequest(tenant=NAME, credential=NAME)
            return self.session.credentials.VerifyCredential(verify).accepted
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                return False
            raise

    def connect(self) -> None:
        """Use a connect link as a person would: our page, the provider's consent, the callback."""
        request = credential_service_pb2.StartAuthorizationRequest(tenant=NAME, integration=NAME)
        link = self.session.credentials.StartAuthorization(request).connect_url
        browser = Browser({self.settings.base_url: dialable(self.settings.http_listen)}, self.settings.tls_cert)
        page = browser.open(link)
        for _ in range(MOST_FORMS):
            if page.form is None:
                break
            page = browser.submit(page)
        if page.status != OK or not self.works():
            raise BrowsingFailed(f"the connection ended with status {page.status} and no working credential")

    def app_key(self) -> None:
        """See that the app's key is there and opens what it is for."""
        if not (self.key_file.exists() and self._opens()):
            self._new_key()
        content = b"Authorization: Bearer " + self.key_file.read_bytes().strip() + b"\n"
        if not self.header_file.exists() or self.header_file.read_bytes() != content:
            write_private(self.header_file, content)

    def _opens(self) -> bool:
        app = Session(server_address(self.settings), self.key_file, self.settings.tls_cert, TIMEOUT)
        try:
            answer = app.proxy.Call(proxy_service_pb2.CallRequest(tenant=NAME, credential=NAME, path=WHOAMI))
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return False
            raise
        finally:
            app.close()
        return answer.http_status == OK

    def _new_key(self) -> None:
        wanted = access_service_pb2.ApiKey(
            display_name="Demo app", roles=[access_service_pb2.ROLE_APP], tenants=[NAME], credentials=[NAME]
        )
        request = access_service_pb2.CreateApiKeyRequest(key_id=APP_KEY, api_key=wanted)
        try:
            answer = self.session.access.CreateApiKey(request)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            request.key_id = ""  # its file was lost, or it was revoked: the server makes up another id
            answer = self.session.access.CreateApiKey(request)
        write_private(self.key_file, answer.secret.encode() + b"\n")

    def curl(self) -> str:
        """One line that works at once."""
        sidecar = self.settings.sidecar_listen
        header = f"-H @{shlex.quote(str(self.header_file))}"
        if sidecar.path:
            return f"curl {header} --unix-socket {shlex.quote(sidecar.path)} http://localhost/~{NAME}/{NAME}{WHOAMI}"
        return f"curl {header} http://{sidecar}/~{NAME}/{NAME}{WHOAMI}"
