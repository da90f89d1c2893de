"""The calls that bring OpenBao up and keep it: health, login, secret ids, snapshots. Blocking HTTP over its Unix socket.

The server's own traffic goes through another adapter; this one only has to work before that exists.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any, Final

from connectors_grpc.embedded.setup import Role

_TIMEOUT: Final = 10.0
_PROBE: Final = 2.0
_BULK: Final = 60.0
_CHUNK: Final = 64 * 1024
_MAX_REPLY: Final = 1 << 20
OK: Final = 200


@dataclass(frozen=True, slots=True)
class AppRole:
    """What logs a program in. The secret is kept out of `repr`."""

    role_id: str
    secret_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and decoded body; the body may hold a secret, so it is kept out of `repr`."""

    status: int
    body: dict[str, Any] = field(repr=False)


class _UnixConnection(HTTPConnection):
    """http.client over AF_UNIX."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(
    socket_path: Path, method: str, path: str, body: object = None, token: str = "", timeout: float = _TIMEOUT
) -> Reply:
    """One request, one answer.

    Units: `timeout` is seconds for each wait on the socket.  Bounds: 1 MiB of answer.
    Raises: OSError or HTTPException if there is no whole answer, ValueError if it is not a JSON object.
    """
    connection = _UnixConnection(socket_path, timeout)
    try:
        headers = {"X-Vault-Token": token} if token else {}
        payload = None if body is None else json.dumps(body).encode()
        connection.request(method, f"/v1/{path}", payload, headers)
        answer = connection.getresponse()
        content = answer.read(_MAX_REPLY)
    finally:
        connection.close()
    decoded = json.loads(content) if content else {}
    if not isinstance(decoded, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  (the peer's fault)
    return Reply(answer.status, decoded)


def stream(socket_path: Path, path: str, token: str) -> Iterator[bytes]:
    """The body of a GET, in chunks.

    Units: a minute for each wait.  Raises: OSError, for an answer that is not 200 or breaks off too.
    """
    connection = _UnixConnection(socket_path, _BULK)
    try:
        connection.request("GET", f"/v1/{path}", headers={"X-Vault-Token": token})
        answer = connection.getresponse()
        if answer.status != OK:
            raise ConnectionError(f"OpenBao answered {answer.status}")
        while chunk := answer.read(_CHUNK):
            yield chunk
    except HTTPException:
        raise ConnectionError("OpenBao's answer broke off") from None
    finally:
        connection.close()


def upload(socket_path: Path, path: str, token: str, body: IO[bytes], size: int) -> int:
    """POST `size` bytes; the answer's status.  Units: a minute for each wait.  Raises: OSError."""
    connection = _UnixConnection(socket_path, _BULK)
    try:
        headers = {"X-Vault-Token": token, "Content-Length": str(size)}
        connection.request("POST", f"/v1/{path}", body, headers)
        return connection.getresponse().status
    except HTTPException:
        raise ConnectionError("OpenBao's answer broke off") from None
    finally:
        connection.close()


def is_serving(socket_path: Path) -> bool:
    """Whether OpenBao is initialised, unsealed and active; False too while it does not answer."""
    try:
        return call(socket_path, "GET", "sys/health", timeout=_PROBE).status == OK
    except (OSError, HTTPException, ValueError):
        return False


def login(socket_path: Path, approle: AppRole) -> str | None:
    """A token, or None if the role or secret id is refused."""
    reply = call(
        socket_path, "POST", "auth/approle/login", {"role_id": approle.role_id, "secret_id": approle.secret_id}
    )
    return str(reply.body["auth"]["client_token"]) if reply.status == OK else None


def issue_secret_id(socket_path: Path, token: str, role: Role) -> str | None:
    """A fresh secret id for the role that the token is of, or None if that is refused."""
    reply = call(socket_path, "POST", f"auth/approle/role/{role.name}/secret-id", {}, token)
    return str(reply.body["data"]["secret_id"]) if reply.status == OK else None


def destroy_secret_id(socket_path: Path, token: str, role: Role, secret_id: str) -> bool:
    """End a secret id of the role that the token is of; whether that was done."""
    path = f"auth/approle/role/{role.name}/secret-id/destroy"
    return call(socket_path, "POST", path, {"secret_id": secret_id}, token).status in (OK, 204)


def revoke_self(socket_path: Path, token: str) -> None:
    """End a token; one that lives on ends within its period."""
    call(socket_path, "POST", "auth/token/revoke-self", {}, token)
