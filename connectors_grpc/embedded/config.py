"""OpenBao's configuration as text. Pure: no file is read or written here.

No fixed TCP port. Raft refuses to start without a TCP listener, though a single node talks to nobody, so there is one,
and it is inert:
- both its ports are the kernel's choice at every start, so none can be taken beforehand, by accident or by a squatter,
  and a restart never fails on one;
- the addresses that are advertised have port 0, to which nothing can connect: whoever listens on a port that OpenBao
  once had is called by nobody, and our own clients know the Unix socket alone;
- it accepts API connections from 192.0.2.1 only (TEST-NET-1, RFC 5737, which no host has), so every local caller is cut
  off before a byte of HTTP is read. OpenBao 2.7.2 even closes that listener for good at the first such caller; the Unix
  socket goes on.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors_grpc.embedded.layout import StateLayout
from connectors_grpc.embedded.setup import APPROLE, Role, Step, mount_steps

_NOBODY: Final = "192.0.2.1"


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What only the first start is told of a role: its id, and where its one-time secret id is read from."""

    role: Role
    role_id: str
    secret_source: str


@dataclass(frozen=True, slots=True)
class SealKey:
    """A key by its name, which tells nothing about it, and its file."""

    id: str
    path: Path


def render(layout: StateLayout, seal: Sequence[SealKey], first: Sequence[FirstBoot] = ()) -> str:
    """The whole configuration; with the `initialize` blocks only where there is nothing yet.

    `seal` is the key, and while it is rotated the one that the data may still be sealed with.
    Raises: ValueError if a path holds what HCL can't carry (control characters).
    """
    blocks = [_server(layout), _listeners(layout), _seal(*seal), _audit(layout)]
    if first:
        access = (step for each in first for step in (*each.role.steps(), *_login_steps(each)))
        blocks.append(_initialize("engines", mount_steps()))
        blocks.append(_initialize("access", (APPROLE, *access, _RECOVERY)))
    return "\n".join(blocks)


def _server(layout: StateLayout) -> str:
    return f"""\
ui           = false
log_level    = "info"
api_addr     = "http://127.0.0.1:0"
cluster_addr = "https://127.0.0.1:0"
storage "raft" {{
  path                   = {literal(str(layout.data))}
  node_id                = "embedded"
  performance_multiplier = 1
}}"""


def _listeners(layout: StateLayout) -> str:
    # OpenBao applies the mode only where user and group are given too.
    return f"""\
listener "tcp" {{
  address                         = "127.0.0.1:0"
  cluster_address                 = "127.0.0.1:0"
  tls_disable                     = true
  proxy_protocol_behavior         = "deny_unauthorized"
  proxy_protocol_authorized_addrs = "{_NOBODY}"
}}
listener "unix" {{
  address      = {literal(str(layout.socket))}
  socket_mode  = "0600"
  socket_user  = "{os.geteuid()}"
  socket_group = "{os.getegid()}"
}}"""


def _seal(current: SealKey, previous: SealKey | None = None) -> str:
    lines = _key("current", current) + (_key("previous", previous) if previous else "")
    return f'seal "static" {{\n{lines}}}'


def _key(which: str, key: SealKey) -> str:
    return f"  {which}_key_id = {literal(key.id)}\n  {which}_key = {literal(f'file://{key.path}')}\n"


def _audit(layout: StateLayout) -> str:
    # OpenBao keeps the path in its storage and refuses to unseal with another: relative to its working directory, it stays
    # true when the state directory is moved, or restored elsewhere.
    return f"""\
audit "file" "file" {{
  options {{
    file_path = {literal(os.path.relpath(layout.audit, layout.vault))}
    mode      = "0600"
  }}
}}"""


def _login_steps(first: FirstBoot) -> tuple[Step, ...]:
    role = first.role
    return (
        Step(f"{role.label}_role_id", "", f"auth/approle/role/{role.name}/role-id", {"role_id": first.role_id}),
        Step(
            f"{role.label}_secret_id",
            "",
            f"auth/approle/role/{role.name}/custom-secret-id",
            {"secret_id": {"eval_source": "file", "eval_type": "string", "path": first.secret_source}},
        ),
    )


# Without recovery keys the static seal can't be rotated. The share is in the answer, which nobody reads.
_RECOVERY: Final = Step("recovery", "", "sys/rotate/recovery/init", {"secret_shares": 1, "secret_threshold": 1})


def _initialize(name: str, steps: Iterable[Step]) -> str:
    requests = "\n".join(
        f'  request "{step.name}" {{\n    operation = "update"\n    path      = {literal(step.path)}\n'
        f"    data      = {literal(step.data)}\n  }}"
        for step in steps
    )
    return f'initialize "{name}" {{\n{requests}\n}}\n'


def literal(value: object) -> str:
    """A value as HCL (version 1): an object's attributes stand one a line.

    Raises: ValueError for a control character other than a line's end, TypeError for a type that HCL has not.
    """
    match value:
        case bool() | int():
            return json.dumps(value)
        case str():
            if any((ord(char) < 0x20 and char not in "\n\t") or char == "\x7f" for char in value):
                raise ValueError("a control character in a configuration value")
            return json.dumps(value, ensure_ascii=False)
        case Mapping():
            return "{\n" + "\n".join(f"{key} = {literal(item)}" for key, item in value.items()) + "\n}"
        case list() | tuple():
            return "[" + ", ".join(literal(item) for item in value) + "]"
        case _:
            raise TypeError(f"HCL has no literal for {type(value).__name__}")
