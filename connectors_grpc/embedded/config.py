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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from connectors_grpc.embedded.layout import StateLayout
from connectors_grpc.embedded.setup import ROLE, Step, access_steps, mount_steps

_NOBODY: Final = "192.0.2.1"


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What only the first start is told: a role id, and where the one-time secret id is read from."""

    role_id: str
    secret_source: str


def render(layout: StateLayout, seal_key_id: str, first: FirstBoot | None) -> str:
    """The whole configuration; with the `initialize` blocks only where there is nothing yet.

    Raises: ValueError if a path holds what HCL can't carry (control characters).
    """
    blocks = [_server(layout), _listeners(layout), _seal(layout, seal_key_id), _audit(layout)]
    if first is not None:
        blocks.append(_initialize("engines", mount_steps()))
        blocks.append(_initialize("access", (*access_steps(), *_login_steps(first))))
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


def _seal(layout: StateLayout, key_id: str) -> str:
    return f"""\
seal "static" {{
  current_key_id = {literal(key_id)}
  current_key    = {literal(f"file://{layout.seal_key}")}
}}"""


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
    return (
        Step("role_id", "", f"auth/approle/role/{ROLE}/role-id", {"role_id": first.role_id}),
        Step(
            "secret_id",
            "",
            f"auth/approle/role/{ROLE}/custom-secret-id",
            {"secret_id": {"eval_source": "file", "eval_type": "string", "path": first.secret_source}},
        ),
        # Without recovery keys the static seal can't be rotated. The share is in the answer, which nobody reads.
        Step("recovery", "", "sys/rotate/recovery/init", {"secret_shares": 1, "secret_threshold": 1}),
    )


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
