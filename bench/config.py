"""What applying a configuration file costs: a thousand tenants with three integrations each, then the same file again.

`python -m bench.config [--tenants 1000] [--integrations 3]`. A real server and a real OpenBao, each a process; the file is
applied by `connectors config apply`, a process too. Vault operations are counted in OpenBao's audit log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.audit import requests
from bench.platform import cpu_seconds, resident_mib
from connectors_grpc.embedded import EmbeddedVault, StateLayout
from connectors_grpc.embedded.process import EmbeddedSettings
from tests.openbao import opened
from tests.replicas import replica_process

FOLDERS = ("connectors/data/tenants", "secret/data", "transit/keys", "transit/encrypt", "transit/decrypt")


def document(tenants: int, names: Sequence[str], changed: int = 0) -> dict[str, Any]:
    """The file; the first `changed` tenants have another label and another key."""

    def tenant(number: int) -> dict[str, Any]:
        reference = "${BENCH_OTHER}" if number < changed else "${BENCH_KEY}"
        inside = {name: {"credentials": {name: {"api_key": f"{reference}-{number}"}}} for name in names}
        labels = {"plan": "free" if number < changed else "pro"}
        return {"labels": labels, "quota": {"calls_per_second": 100}, "integrations": inside}

    return {"owner": "bench", "tenants": {f"bench-{number}": tenant(number) for number in range(tenants)}}


def vault_operations(audit: Path, since: int) -> Counter[str]:
    """What was asked of the Vault, by operation and folder."""
    return Counter(
        f"{operation} {next((folder for folder in FOLDERS if path.startswith(folder)), 'other')}"
        for operation, path in requests(audit, since)
    )


async def applied(command: Sequence[str], environment: dict[str, str]) -> tuple[dict[str, Any], float, float]:
    """One run of the command: what it said, its seconds, its seconds of CPU."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    took = time.monotonic() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"the command failed: {process.returncode}")
    return json.loads(said), took, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


async def run(tenants: int, integrations: int) -> None:
    """Apply the file, apply it again, change a hundredth of it, apply that."""
    names = [f"api-{number}" for number in range(integrations)]
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        settings = EmbeddedSettings(audit_max_bytes=1 << 40)
        vault = await stack.enter_async_context(EmbeddedVault(StateLayout.at(scratch / "s"), settings))
        replica = await stack.enter_async_context(
            replica_process(opened(vault).address, vault.secret_id_file, scratch / "keys", scratch / "replica")
        )
        for name in names:
            api: Any = {"base_url": "https://api.example.com", "placement": {"headers": {"X-Api-Key": "{api_key}"}}}
            await replica.server.admin.create_integration(name, api=api)
        file = scratch / "tenants.json"
        environment = {**os.environ, "BENCH_KEY": os.urandom(16).hex(), "BENCH_OTHER": os.urandom(16).hex()}
        command = [
            sys.executable, "-m", "connectors_grpc", "--server", replica.server.grpc_address,
            "--key-file", str(scratch / "keys" / "admin.key"), "config", "apply", str(file), "--yes", "--json",
        ]  # fmt: skip
        print(f"{tenants} tenants, {integrations} integrations each")
        changed = max(1, tenants // 100)
        for title, content in (
            ("applied", document(tenants, names)),
            ("applied again", document(tenants, names)),
            (f"{changed} tenants changed", document(tenants, names, changed)),
        ):
            file.write_text(json.dumps(content, indent=1))
            pids = {"server": replica.process.pid, "OpenBao": vault.pid or 0}
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            since = vault.layout.audit.stat().st_size
            said, took, own = await applied(command, environment)
            cpu = {"command": own} | {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
            report(title, said, took, cpu, vault_operations(vault.layout.audit, since))
        print(
            f"the file: {file.stat().st_size / 1024:.0f} KiB; the server: {resident_mib(replica.process.pid):.0f} MiB"
        )


def report(title: str, said: dict[str, Any], took: float, cpu: dict[str, float], operations: Counter[str]) -> None:
    """One run's figures."""
    print(f"{title}: {said['create']} created, {said['change']} changed, {said['unchanged']} unchanged")
    print(f"  {took:.1f} s; CPU " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in cpu.items()))
    print(f"  {sum(operations.values())} Vault operations")
    for name, count in sorted(operations.items()):
        print(f"    {name:<32} {count}")


def main() -> None:
    """Read the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--integrations", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(run(given.tenants, given.integrations))


if __name__ == "__main__":
    main()
