"""What a Vault is given once before the platform can use it, as data: the embedded one and an operator's get the same.

Pure: renders, and knows nothing of processes. An operator reads it through `operator_setup`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

Json = Mapping[str, object]

ROLE: Final = "connectors-server"
# Periodic: no end of life as long as it is renewed within the hour, and at most an hour of it outlives its owner.
TOKEN_PERIOD: Final = "1h"
UPKEEP_TOKEN_TTL: Final = "15m"


@dataclass(frozen=True, slots=True)
class Step:
    """One write to the Vault; `name` is an HCL label, so underscores and no dashes."""

    name: str
    why: str
    path: str
    data: Json


@dataclass(frozen=True, slots=True)
class Role:
    """An AppRole with a policy of the same name; `label` begins the names of its steps and names its files.

    A token of it lives for `token_ttl`, or with `periodic` for as long as it is renewed within that.
    """

    name: str
    label: str
    token_ttl: str
    periodic: bool = False

    @property
    def policy(self) -> str:
        """Its policy, as HCL."""
        return resources.files(__package__).joinpath(f"policy/{self.label}.hcl").read_text(encoding="utf-8")

    def steps(self) -> tuple[Step, Step]:
        """Its policy, and the role whose tokens have that policy and nothing else."""
        role = {
            "token_policies": [self.name],
            "token_no_default_policy": True,
            "token_num_uses": 0,
            "secret_id_num_uses": 0,
            "secret_id_ttl": 0,
            "token_period" if self.periodic else "token_ttl": self.token_ttl,
        }
        why = "The least that it needs."
        return (
            Step(f"{self.label}_policy", why, f"sys/policies/acl/{self.name}", {"policy": self.policy}),
            Step(f"{self.label}_role", "No use counter, which would end it.", f"auth/approle/role/{self.name}", role),
        )


SERVER: Final = Role(ROLE, "server", TOKEN_PERIOD, periodic=True)
UPKEEP: Final = Role("connectors-upkeep", "upkeep", UPKEEP_TOKEN_TTL)
RESTORE: Final = Role("connectors-restore", "restore", UPKEEP_TOKEN_TTL)
TENANT_POLICY: Final = "connectors-tenant"
APPROLE: Final = Step("approle", "How programs log in.", "sys/auth/approle", {"type": "approle"})


def server_policy() -> str:
    """The least policy that the server runs under, as HCL."""
    return SERVER.policy


def tenant_policy(accessor: str) -> str:
    """The policy of every tenant's own tokens, by the accessor of the auth method that makes them; as HCL."""
    text = resources.files(__package__).joinpath("policy/tenant.hcl").read_text(encoding="utf-8")
    return "".join(
        line if line.startswith("#") else line.replace("ACCESSOR", accessor) for line in text.splitlines(keepends=True)
    )


def mount_steps() -> tuple[Step, ...]:
    """The four mounts and the one key of the platform."""
    kv = {"type": "kv", "options": {"version": "2"}}
    no_upsert = "A typing error in a key's name must fail, and not make a key."
    return (
        Step("secret", "Tenants' credentials, as ciphertext.", "sys/mounts/secret", kv),
        Step("transit", "Tenants' keys.", "sys/mounts/transit", {"type": "transit"}),
        Step("transit_config", no_upsert, "transit/config/keys", {"disable_upsert": True}),
        Step("connectors", "The platform's own records.", "sys/mounts/connectors", kv),
        Step(
            "connectors_transit",
            "The platform's own key, on a mount that no tenant's name can reach.",
            "sys/mounts/connectors-transit",
            {"type": "transit"},
        ),
        Step("connectors_transit_config", no_upsert, "connectors-transit/config/keys", {"disable_upsert": True}),
        Step(
            "platform_key",
            "Derived, so that a ciphertext is bound to what it belongs to; the server can't delete or export it.",
            "connectors-transit/keys/platform",
            {"type": "aes256-gcm96", "derived": True},
        ),
    )


def access_steps() -> tuple[Step, ...]:
    """AppRole, and the server's policy and role."""
    return (APPROLE, *SERVER.steps())


def operator_setup() -> str:
    """What an operator runs once on an existing OpenBao or Vault, as a commented shell script.

    It holds no secret and asks for none: it writes with the token that the operator's own `bao` or `vault` command has.
    """
    lines = [
        "#!/bin/sh",
        "# Prepares an existing OpenBao or HashiCorp Vault for Connectors. Read it, then run it once with a token that",
        "# may write sys/mounts, sys/auth and sys/policies. With HashiCorp Vault: BAO=vault sh this-file",
        "# What is there already is left as it is, but for the policy and the role, which are set anew.",
        "set -eu",
        ': "${BAO:=bao}"',
    ]
    for step in (*mount_steps(), *access_steps()):
        lines += ["", f"# {step.why}"]
        if step.path.startswith("sys/policies/"):
            lines += [f"\"$BAO\" policy write {ROLE} - <<'POLICY'", server_policy().rstrip(), "POLICY"]
        else:
            lines += [f"{_unless_there(step.path)}\"$BAO\" write {step.path} - <<'JSON'", json.dumps(step.data), "JSON"]
            lines += _check_version(step)
    lines += [
        "",
        "# What the server is given: the role id, a name, and the secret id, wrapped for one reader:",
        f'"$BAO" read -field=role_id auth/approle/role/{ROLE}/role-id',
        f'"$BAO" write -wrap-ttl=10m -f auth/approle/role/{ROLE}/secret-id',
        "",
        "# Have two audit devices, on two disks: a Vault that can write to none refuses every request. OpenBao",
        "# takes them from its configuration file (an `audit` stanza each), HashiCorp Vault from:",
        "#   vault audit enable file file_path=/var/log/vault/audit.log",
        "",
    ]
    return "\n".join(lines)


def _unless_there(path: str) -> str:
    mount = path.startswith(("sys/mounts/", "sys/auth/"))
    return f'"$BAO" read {path}/tune >/dev/null 2>&1 || ' if mount else ""


def _check_version(step: Step) -> list[str]:
    if step.data.get("type") != "kv":
        return []
    complaint = f"The mount {step.name}/ is there and is not KV version 2: the platform can not use it."
    return [
        f"\"$BAO\" read -field=options {step.path}/tune | grep -q version:2 || {{ echo '{complaint}' >&2; exit 1; }}"
    ]
