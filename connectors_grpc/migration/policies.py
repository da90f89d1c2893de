"""The policies that an operator gives the tool's token, for the path where the old records lie. Pure: renders HCL."""

from __future__ import annotations

from importlib import resources
from typing import Final

STEPS: Final = ("read", "rollback", "finish")
PATH: Final = "secret/tenants"


def policy(step: str, path: str = PATH, transit: str = "transit") -> str:
    """The policy of a step, one of STEPS, as HCL. The mount is taken to be the path's first segment."""
    text = resources.files(__package__).joinpath(f"policy/{step}.hcl").read_text(encoding="utf-8")
    mount, _, folder = path.strip("/").partition("/")
    new_layout = False
    lines = []
    for line in text.splitlines():
        new_layout = new_layout or line.startswith("# --- in the new layout")
        if not new_layout and line.startswith('path "secret/'):
            line = line.replace('"secret/', f'"{mount}/', 1).replace("tenants/", f"{folder}/", 1)
        elif not new_layout and line.startswith('path "transit/'):
            line = line.replace('"transit/', f'"{transit.strip("/")}/', 1)
        lines.append(line)
    return "\n".join(lines) + "\n"
