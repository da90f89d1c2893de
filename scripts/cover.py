"""Put together what `make test COVER=1` measured, and fail where too little was run: lines and branches together, by part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COVERAGE = Path(sys.executable).with_name("coverage")
USE_CASES = ("access", "deleting", "integrations", "metering", "proxying", "tenants", "watching")
BOUNDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "vault": (85, ("connectors_grpc/vault/*",)),
    "oauth2": (85, ("connectors_grpc/oauth2/*",)),
    "sidecar": (85, ("sidecar/*",)),
    "rpc": (75, ("connectors_grpc/rpc/*", "connectors_grpc/boundary.py")),
    "use cases": (75, ("connectors_grpc/credentials/*", *(f"connectors_grpc/{name}.py" for name in USE_CASES))),
    "operators": (85, ("connectors_grpc/provisioning/*", "connectors_grpc/schema.py")),
    "configuration": (85, ("connectors_grpc/configuration/*",)),
    "migration": (85, ("connectors_grpc/migration/*", "connectors_grpc/legacy*.py")),
    "settings": (80, ("connectors_grpc/settings.py",)),
    "all": (80, ("*",)),
}
"""Per cent, and of which files."""


def measured(patterns: tuple[str, ...]) -> float:
    """Per cent of lines and branches that were run."""
    command = [str(COVERAGE), "report", "--format=total", "--precision=1", f"--include={','.join(patterns)}"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Combine, say, judge."""
    if list(Path().glob(".coverage.*")):
        subprocess.run([str(COVERAGE), "combine", "-q"], check=True)
    short = []
    for part, (bound, patterns) in BOUNDS.items():
        found = measured(patterns)
        print(f"{part:<13} {found:5.1f} % (at least {bound} %)")
        if found < bound:
            short.append(part)
    if short:
        raise SystemExit(
            f"Too little of {', '.join(short)} is run by the tests; `.venv/bin/coverage report` names the lines."
        )


if __name__ == "__main__":
    main()
