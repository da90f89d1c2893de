"""What a credential costs, cold and warm, by each way in, beside reading the Vault directly with hvac: one run, one machine.

    python -m bench.cold            # about half a minute

Loopback throughout. CPU is what server and sidecar used together, for the direct rows what this process used.
"""

from __future__ import annotations

import base64
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import hvac
import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool

from bench.platform import HEADER, Platform, platform, row
from connectors_grpc.embedded import read_approle
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import access_service_pb2_grpc as access_rpc
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import credential_service_pb2_grpc as credential_rpc
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import integration_service_pb2_grpc as integration_rpc
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2_grpc as tenant_rpc

COUNT = 300
WARM = 2000
TENANT = "bench"


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers everything with 200 and 500 bytes."""

    protocol_version = "HTTP/1.1"
    body = b"x" * 500

    def do_GET(self) -> None:
        """Answer in one write."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + self.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _UnixConnection(urllib3.connection.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class _UnixPool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> _UnixConnection:
        return _UnixConnection(self._path)


class _UnixAdapter(requests.adapters.HTTPAdapter):
    """The embedded OpenBao's socket for requests, so that hvac talks to the very same Vault."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = _UnixPool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool


def timed(calls: Sequence[Callable[[], object]]) -> list[float]:
    """How long each took."""
    seconds = []
    for call in calls:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def prepare(found: Platform, channel: grpc.Channel, upstream: str) -> tuple[str, str]:
    """A tenant with COUNT credentials twice over (one set a way in), and keys. Returns reader key and app key."""
    admin = (("authorization", f"Bearer {found.key('admin')}"),)
    tenant_rpc.TenantServiceStub(channel).CreateTenant(tenants.CreateTenantRequest(tenant_id=TENANT), metadata=admin)
    integration_rpc.IntegrationServiceStub(channel).CreateIntegration(
        integrations.CreateIntegrationRequest(
            integration_id="api",
            integration=integrations.Integration(api=integrations.Api(base_url=upstream), allow_private_addresses=True),
        ),
        metadata=admin,
    )
    stub = credential_rpc.CredentialServiceStub(channel)
    for number in range(COUNT * 2):
        stub.StoreCredential(
            credentials.StoreCredentialRequest(
                tenant=TENANT,
                integration="api",
                credential=f"c{number}",
                oauth=credentials.OAuthMaterial(access_token=f"token-{number:08d}"),
            ),
            metadata=admin,
        )
    keys = access_rpc.AccessServiceStub(channel)
    made = [
        keys.CreateApiKey(
            access.CreateApiKeyRequest(api_key=access.ApiKey(roles=[role], tenants=[TENANT])), metadata=admin
        ).secret
        for role in (access.ROLE_TOKEN_READER, access.ROLE_APP)
    ]
    return made[0], made[1]


def direct(found: Platform) -> Callable[[int], None]:
    """KV read and decrypt by hvac's own transport, as a hand-rolled client does it."""
    session = requests.Session()
    session.mount("http://", _UnixAdapter(str(found.state / "vault" / "bao.sock")))
    client = hvac.Client(url="http://localhost", session=session)
    role = read_approle(found.state / "vault" / "approle.json")
    client.auth.approle.login(role.role_id, role.secret_id)

    def read(number: int) -> None:
        document = client.secrets.kv.v2.read_secret_version(f"{TENANT}/c{number}", raise_on_deleted_version=True)
        data = document["data"]["data"]
        context = base64.b64encode(f"{data['tenant_uid']}/c{number}".encode()).decode()
        opened = client.secrets.transit.decrypt_data(TENANT, data["ciphertext"], context=context)
        assert base64.b64decode(opened["data"]["plaintext"])

    return read


def sidecar_call(connection: http.client.HTTPConnection, key: str) -> Callable[[int], None]:
    """One GET through the sidecar, on a kept-alive connection."""

    def call(number: int) -> None:
        connection.request("GET", f"/~{TENANT}/c{number}/things", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()

    return call


def main() -> None:
    """Measure and print."""
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port = upstream.server_address[1]
    with platform() as found, grpc.insecure_channel(found.grpc) as channel:
        reader, app = prepare(found, channel, f"http://127.0.0.1:{port}")
        metadata = (("authorization", f"Bearer {reader}"),)
        fetch = credential_rpc.CredentialServiceStub(channel).FetchAccessToken
        read = direct(found)
        through = sidecar_call(http.client.HTTPConnection(found.sidecar.removeprefix("http://")), app)
        plain = http.client.HTTPConnection(f"127.0.0.1:{port}")

        def bare(_: int) -> None:
            plain.request("GET", "/things")
            plain.getresponse().read()

        def fetched(number: int) -> None:
            fetch(credentials.FetchAccessTokenRequest(tenant=TENANT, credential=f"c{number}"), metadata=metadata)

        read(0)
        bare(0)
        through(COUNT)
        fetched(0)
        rows: list[tuple[str, Callable[[int], None], Sequence[int], bool]] = [
            ("hvac directly: KV read + decrypt", read, range(COUNT), False),
            ("FetchAccessToken, each credential's first", fetched, range(COUNT), True),
            ("FetchAccessToken, one credential again", fetched, [1] * WARM, True),
            ("upstream directly", bare, [0] * WARM, False),
            ("sidecar, each credential's first (lease)", through, range(COUNT, COUNT * 2), True),
            ("sidecar, hit", through, [COUNT] * WARM, True),
        ]
        print(HEADER)
        for name, call, numbers, ours in rows:
            before, mine = found.cpu(), time.process_time()
            seconds = timed([lambda number=number, call=call: call(number) for number in numbers])  # type: ignore[misc]
            after = found.cpu()
            used = sum(after.get(part, 0.0) - before.get(part, 0.0) for part in ("server", "sidecar"))
            print(row(name, seconds, used if ours else time.process_time() - mine))
        print("\nresident MiB: " + ", ".join(f"{name} {mib:.0f}" for name, mib in sorted(found.resident().items())))
    upstream.shutdown()


if __name__ == "__main__":
    main()
