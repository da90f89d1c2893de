"""Call an integration as a tenant, by a generated stub: `python call_with_stub.py TENANT CREDENTIAL PATH`.

Reads CONNECTORS_SERVER (127.0.0.1:50051), APP_KEY_FILE (the demo's key that `make up` left), CONNECTORS_STATE_DIR.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2, proxy_service_pb2_grpc

STATE = Path(os.environ.get("CONNECTORS_STATE_DIR") or Path.home() / ".local/state/connectors")
SERVER = os.environ.get("CONNECTORS_SERVER", "127.0.0.1:50051")
KEY_FILE = Path(os.environ.get("APP_KEY_FILE") or STATE / "keys" / "demo-app.key")
DEADLINE = 30.0


def main(tenant: str, credential: str, path: str) -> int:
    """Make the call; print what the provider answered, or why Connectors refused."""
    key = KEY_FILE.read_text().strip()
    # Loopback only: to another machine, use grpc.secure_channel.
    with grpc.insecure_channel(SERVER) as channel:
        stub = proxy_service_pb2_grpc.ProxyServiceStub(channel)
        request = proxy_service_pb2.CallRequest(tenant=tenant, credential=credential, path=path)
        try:
            answer = stub.Call(request, timeout=DEADLINE, metadata=[("authorization", f"Bearer {key}")])
        except grpc.RpcError as error:
            print(f"refused: {reason(error)}: {error.details()}", file=sys.stderr)
            return 1
    print(answer.http_status, answer.body.decode())
    return 0


def reason(error: grpc.RpcError) -> str:
    """The one word that says why; docs/errors.md lists them all."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.reason)
    return str(error.code().name)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
