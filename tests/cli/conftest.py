"""A server in this process that answers as it is told, and the command line pointed at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from connectors_grpc.cli.main import root
from connectors_grpc.gen.connectors.v1 import access_service_pb2_grpc as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2_grpc as credentials
from connectors_grpc.gen.connectors.v1 import integration_service_pb2_grpc as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as proxy
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2_grpc as tenants

KEY = "cnk_test_canary0123456789"
Answer = Callable[[Any], Message]


class Refused(Exception):
    """An answer that is a refusal, with its details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


@dataclass
class Scripted:
    """What the server answers, by method name; and what it was asked."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    address: str = ""

    def handle(self, method: str) -> Callable[[Any, grpc.ServicerContext], Message]:
        """The handler of one method."""

        def handler(request: Any, context: grpc.ServicerContext) -> Message:
            self.asked.append((method, request))
            self.keys.append(dict(context.invocation_metadata()).get("authorization", ""))  # type: ignore[arg-type]
            try:
                return self.answers[method](request)
            except Refused as refused:
                packed = []
                for detail in refused.details:
                    packed.append(AnyMessage())
                    packed[-1].Pack(detail)
                status = status_pb2.Status(code=refused.code.value[0], message=refused.message, details=packed)
                context.abort_with_status(rpc_status.to_status(status))
                raise AssertionError from None

        return handler


def scripted_servicer(base: type, script: Scripted) -> Any:
    """A servicer all of whose methods ask the script."""
    names = [name for name in vars(base) if name[0].isupper()]
    methods = {
        name: (lambda handler: lambda _self, request, context: handler(request, context))(script.handle(name))
        for name in names
    }
    return type(f"Scripted{base.__name__}", (base,), methods)()


@pytest.fixture
def script() -> Iterator[Scripted]:
    """A server on a free loopback port."""
    script = Scripted()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    tenants.add_TenantServiceServicer_to_server(scripted_servicer(tenants.TenantServiceServicer, script), server)
    access.add_AccessServiceServicer_to_server(scripted_servicer(access.AccessServiceServicer, script), server)
    proxy.add_ProxyServiceServicer_to_server(scripted_servicer(proxy.ProxyServiceServicer, script), server)
    credentials.add_CredentialServiceServicer_to_server(
        scripted_servicer(credentials.CredentialServiceServicer, script), server
    )
    integrations.add_IntegrationServiceServicer_to_server(
        scripted_servicer(integrations.IntegrationServiceServicer, script), server
    )
    script.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield script
    server.stop(0).wait()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with a key."""
    path = tmp_path / "test.key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


@dataclass(frozen=True)
class Cli:
    """The command line, as a person in a pipe has it."""

    script: Scripted
    key_file: Path

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        """Run one command against the scripted server."""
        before = ("--server", self.script.address, "--key-file", str(self.key_file), "--timeout", "5")
        return CliRunner().invoke(root, [*before, *arguments], input=stdin)


@pytest.fixture
def cli(script: Scripted, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line against the scripted server, in a clean environment."""
    clean_environment(monkeypatch)
    return Cli(script, key_file)


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from whoever runs the tests."""
    import os

    for name in list(os.environ):
        if name.startswith("CONNECTORS_"):
            monkeypatch.delenv(name)
