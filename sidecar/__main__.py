"""`python -m sidecar`."""

import sys

# For tracebacks in colour structlog loads rich where it is installed: 6 MiB that no sidecar uses.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

from sidecar.command import command  # noqa: E402

command(prog_name="python -m sidecar")
