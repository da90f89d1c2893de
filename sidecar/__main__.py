"""`python -m sidecar`."""

from sidecar.main import command

command(prog_name="python -m sidecar")
